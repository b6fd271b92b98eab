"""The examples of docs/names.md are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bundle.data.contrasts import load_registry
from bundle.data.discovery import find_subjects, scan_keys
from bundle.data.naming import read_folder
from bundle.data.words import Vocabulary
from tests.data.test_discovery import CONTRASTS, make

TEXT = (Path(__file__).parents[2] / "docs" / "names.md").read_text(encoding="utf-8")
VOCABULARY = Vocabulary(load_registry())


def rows(columns):
    """The rows of the table that begins with these names of columns."""
    table = TEXT.split(f"| {' | '.join(columns)} |\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


NAMES = [(name.strip("`"), kind) for name, kind, _ in rows(("name", "read as", "convention"))]
FOLDERS = rows(("files", "used", "not used"))


def test_the_tables_are_read():
    assert len(NAMES) > 40 and len(FOLDERS) > 12


@pytest.mark.parametrize(("name", "kind"), NAMES)
@pytest.mark.parametrize("change", [str, str.upper, str.lower])
def test_a_name(name, kind, change):
    path = Path("root") / f"{change(name)}.nii.gz"
    (file,) = read_folder([path], Path("root"), VOCABULARY)
    if file.rest and file.key and file.is_scan:
        file = file.doubtful("a word behind the contrast")
    assert file.kind == kind


@pytest.mark.parametrize(("files", "used", "unused"), FOLDERS)
def test_a_folder(tmp_path, files, used, unused):
    def paths(cell):
        return [name if "." in name else f"{name}.nii.gz" for name in re.findall("`([^`]+)`", cell)]

    items = find_subjects(make(tmp_path, *paths(files)), CONTRASTS)
    if used == "refused":
        assert all("fault" in item for item in items)
        return
    (item,) = items
    assert "fault" not in item
    expected = dict(zip(re.findall(r"(\w+) `", used), paths(used), strict=True))
    assert {key: Path(item[key]).relative_to(tmp_path).as_posix() for key in scan_keys(item)} == expected
    assert sorted(Path(e["file"]).relative_to(tmp_path).as_posix() for e in item["unused"]) == sorted(paths(unused))
