"""Datalists: what is read of a folder, written as a table that the user can correct, and read back."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.choice import may_hold
from bundle.data.contrasts import load_registry, select
from bundle.data.discovery import find_subjects, scan_keys
from bundle.data.labels import CONVENTIONS
from bundle.data.naming import UNKNOWN, label_convention, read_folder
from bundle.data.output import write_text
from bundle.data.words import Vocabulary
from bundle.errors import InputError

NAME = "datalist.csv"
BESIDE = ("mask", "label", "label_convention", "unread", "refused")
EMPTY = ("na", "n/a", "none", "-")  # what a table may have in a cell of which there is no file
OR = " | "  # between the files of a cell of which the user has to choose one

Overrides = Mapping[str, Mapping[str, Any]]


def subjects(
    dataset_dir: str | Path,
    contrasts: Sequence[str],
    overrides: Overrides | None = None,
    datalist: str | Path | None = None,
) -> list[dict[str, Any]]:
    """The subjects that a datalist names or, without one, those under a folder.

    Args:
        dataset_dir, contrasts, overrides: see `find_subjects`; the folder is not looked at where there is a datalist.
        datalist: path of a table or of MONAI's JSON, see `read_datalist`.

    Raises:
        InputError: see `find_subjects` and `read_datalist`.
    """
    if datalist is None:
        return find_subjects(dataset_dir, contrasts, overrides)
    return read_datalist(datalist, contrasts, overrides)


def list_subjects(
    dataset_dir: str | Path,
    output_dir: str | Path,
    contrasts: Sequence[str],
    overrides: Overrides | None = None,
    datalist: str | Path | None = None,
) -> None:
    """Print which file is used for what, and which are not and why; write it as OUTPUT_DIR/datalist.csv.

    Args:
        dataset_dir, contrasts, overrides, datalist: see `subjects`.
        output_dir: where the table goes; made if it is missing.

    Raises:
        InputError: see `subjects`, or the table is there already or cannot be written.
    """
    items = subjects(dataset_dir, contrasts, overrides, datalist)
    path = Path(output_dir).expanduser() / NAME
    root = Path(dataset_dir).expanduser() if datalist is None else Path(datalist).expanduser().parent
    for item in items:
        print(described(item, contrasts, root))
    if path.exists():
        raise InputError("is there already, perhaps with your changes", "Use another --output_dir, or remove it", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_datalist(items, contrasts, path)
    except OSError as error:
        remedy = "Give --output_dir a folder that you may write to"
        raise InputError(f"cannot be written ({error.strerror})", remedy, path) from error
    refused = sum("fault" in item for item in items)
    print(
        f"{len(items)} subjects, {refused} of them refused. Correct {path} where it is wrong, and pass it as --datalist"
    )


def described(item: Mapping[str, Any], contrasts: Sequence[str], root: Path) -> str:
    """What is used of a subject, in lines; paths are relative to `root`."""
    lines = [item["subject"]]
    lines += [f"  {key:8}{os.path.relpath(item[key], root)}" for key in scan_keys(item)]
    missing = [name for name in contrasts if name not in item]
    lines += [f"  missing {', '.join(missing)}"] if missing else []
    lines += [f"  unused  {os.path.relpath(entry['file'], root)}: {entry['reason']}" for entry in item["unused"]]
    lines += [f"  warning {line}" for line in item["warnings"] if " is not used: " not in line]
    return "\n".join([*lines, *([f"  refused {item['fault']}"] if "fault" in item else [])])


def write_datalist(items: Sequence[Mapping[str, Any]], contrasts: Sequence[str], path: str | Path) -> None:
    """Write a table with a row per subject: its name, the file of each contrast, mask and label.

    Paths are relative to the table's folder. The column "unread" holds the files that may be one of the missing
    contrasts. Where a subject was refused the column "refused" says why, and a cell holds all the files in question,
    with " | " between them. Who reads the table heeds both columns: to clear them is to say that the row is right.

    Args:
        items: see `find_subjects`.
        contrasts: the names of the columns.
        path: of the table.
    """
    path = Path(path)

    def relative(file: str) -> str:
        return Path(os.path.relpath(file, path.parent)).as_posix()

    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["subject", *contrasts, *BESIDE])
    for item in items:
        cells = []
        for key in (*contrasts, "mask", "label"):
            files = [item[key]] if key in item else []
            if "fault" in item:
                files += [entry["file"] for entry in item["unused"] if entry["kind"] == key]
            cells.append(OR.join(map(relative, sorted(files))))
        unread = [relative(entry["file"]) for entry in item["unused"] if entry["may_hold"]]
        marks = [item.get("label_convention", ""), OR.join(unread), item.get("fault", "")]
        rows.writerow([item["subject"], *cells, *marks])
    write_text(path, table.getvalue())


def read_datalist(
    path: str | Path, contrasts: Sequence[str], overrides: Overrides | None = None
) -> list[dict[str, Any]]:
    """The subjects of a datalist, as `find_subjects` has them; no scan is opened.

    Args:
        path: of a table (CSV; comma, semicolon or tab) with the columns "subject", contrasts, and perhaps "mask",
            "label", "label_convention", "unread" and "refused" (see `write_datalist`); or of MONAI's JSON: a list of
            such items, or lists of them by part, whose scans may also be a list under "image", each named by its
            contrast. Relative paths are relative to the datalist's folder.
        contrasts: the names of the contrasts wanted; others are not used.
        overrides: rows that change the registry, see `load_registry`.

    Raises:
        InputError: it is missing or not of that form, names a subject twice or in a way that no folder can be named,
            or has a column that is no contrast.
    """
    path = Path(path).expanduser()
    registry, wanted = load_registry(overrides), [contrast.name for contrast in select(contrasts, overrides)]
    vocabulary = Vocabulary(registry)
    if not path.is_file():
        raise InputError("does not exist", "Name a datalist, as the command 'list' writes one", path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8", "Save it as CSV in UTF-8", path) from error
    if path.suffix.lower() == ".json":
        rows = [_named(row, path, vocabulary) for row in _json_rows(text, path)]
    else:
        rows = _table_rows(text, path)
    known = ("subject", *registry, *BESIDE)
    unknown = sorted({key for row in rows for key in row} - set(known))
    if unknown:
        raise InputError(f"has {', '.join(unknown)}, which is no contrast", f"Known are {', '.join(known)}", path)
    items = [_item(row, path, wanted, vocabulary) for row in rows]
    _check_names([item["subject"] for item in items], path)
    _refuse_shared(items, wanted, path)
    if not any(name in item for item in items for name in wanted) and not any("fault" in item for item in items):
        raise InputError(f"has no scan of {', '.join(wanted)}", "Fill in their columns", path)
    return sorted(items, key=lambda item: item["subject"])


def _table_rows(text: str, path: Path) -> list[dict[str, str]]:
    header, _, rest = text.partition("\n")
    separator = re.fullmatch(r"sep=(.)\s*", header, re.I)  # Excel's line, not one of the table
    text = rest if separator else text
    delimiter = separator[1] if separator else max(",;\t", key=header.count)  # spreadsheets write one or another
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [[cell.strip() for cell in line] for line in table]
    except csv.Error as error:
        raise InputError(f"is not readable as a table ({error})", "Write it as CSV", path) from error
    lines = [_without_empty_end(line) for line in lines if any(line)]
    names = [name.lower() for name in lines[0]] if lines else []
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise InputError(f"has two columns named {twice[0]}", "Leave one of them", path)
    if "subject" not in names:
        raise InputError("has no line of column names with 'subject'", "Begin it with subject,t1,t1ce,...", path)
    if len(lines) < 2:
        raise InputError("names no subject", "Write a line per subject", path)
    for number, line in enumerate(lines[1:], 2):
        if len(line) > len(names):
            raise InputError(f"has more cells than columns in row {number}", "Put paths with a comma in quotes", path)
        if any(cell and not name for name, cell in zip(names, line)):
            raise InputError(f"has a cell in row {number} whose column has no name", "Name the column", path)
    return [{name: cell for name, cell in zip(names, line) if _says(name, cell)} for line in lines[1:]]


def _says(name: str, cell: str) -> bool:
    """Whether there is something in a cell; a subject's name may be NA."""
    return bool(cell) and (name == "subject" or cell.lower() not in EMPTY)


def _without_empty_end(line: list[str]) -> list[str]:
    """The cells up to the last that is not empty; spreadsheets write the cells of deleted columns."""
    return line[: max(number for number, cell in enumerate(line, 1) if cell)]


def _json_rows(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"is not readable as JSON ({error})", "Correct it", path) from error
    parts = content.values() if isinstance(content, dict) else [content]
    # MONAI's files say other things beside the lists of items: "name", "modality", "numTraining"
    rows = [row for part in parts if isinstance(part, list) for row in part if isinstance(row, dict)]
    if not rows:
        raise InputError("has no list of items", 'Write [{"subject": "p1", "t1": "p1/T1.nii.gz"}, ...]', path)
    return rows


def _named(row: Mapping[str, Any], path: Path, vocabulary: Vocabulary) -> dict[str, str]:
    """An item of MONAI's JSON with its images under the names of their contrasts."""
    item = {
        key: value for key, value in row.items() if key not in ("image", "fold") and isinstance(value, str) and value
    }
    said = row.get("image") or []
    images = [said] if isinstance(said, str) else said
    wrong = [key for key in ("subject", *vocabulary.registry, *BESIDE) if not isinstance(row.get(key) or "", str)]
    if not isinstance(images, list) or wrong:
        fault = f"has {json.dumps(row.get(wrong[0]) if wrong else said)} under '{wrong[0] if wrong else 'image'}'"
        raise InputError(fault, "Write one text there; several files only under 'image', as a list", path)
    for image in images:
        file = Path(str(image))
        (named,) = read_folder([path.parent / file], path.parent.joinpath(file).parent, vocabulary)
        if not named.is_scan or named.kind in item:
            fault = f"does not say of which contrast {image} is"
            raise InputError(fault, "Write it under the contrast's name instead of 'image'", path)
        item[named.kind] = str(image)
        item.setdefault("subject", named.key or file.parent.name)
    return item


def _item(row: Mapping[str, str], path: Path, wanted: Sequence[str], vocabulary: Vocabulary) -> dict[str, Any]:
    subject = row.get("subject", "")
    item: dict[str, Any] = {"subject": subject, "warnings": [], "unused": []}
    files = {key: row[key] for key in (*wanted, "mask", "label") if key in row}
    item |= {key: str(path.parent / Path(file).expanduser()) for key, file in files.items() if OR not in file}
    open_choice = [key for key, file in files.items() if OR in file]
    scans = [item[name] for name in wanted if name in item]
    used = [item[key] for key in (*wanted, "mask", "label") if key in item]
    if "unread" in row:
        item["unused"] = [
            _unread(path.parent / Path(file).expanduser(), wanted, vocabulary) for file in row["unread"].split(OR)
        ]
    if row.get("refused"):
        fault = f"{subject}: is marked as refused: {row['refused'].rstrip('.')}"
        item["fault"] = str(InputError(fault, "Correct the row and clear its cell 'refused'", path))
    elif open_choice:
        fault = f"{subject}: several files for {', '.join(open_choice)}"
        item["fault"] = str(InputError(fault, "Leave one of them in the cell", path))
    elif not scans:
        item["fault"] = str(InputError(f"{subject}: names no scan of {', '.join(wanted)}", "Fill in a column", path))
    elif len({os.path.realpath(file) for file in used}) < len(used):
        item["fault"] = str(InputError(f"{subject}: has one file in two columns", "Correct it", path))
    item["warnings"] += _exchanged({name: Path(item[name]) for name in wanted if name in item}, vocabulary)
    if "label" in item:
        item["label_convention"] = row.get("label_convention") or _convention(item, wanted, vocabulary)
        if item["label_convention"] not in CONVENTIONS:
            fault = f"{subject}: label_convention '{item['label_convention']}' is unknown"
            raise InputError(fault, f"Use one of {', '.join(CONVENTIONS)}", path)
    return item


def _exchanged(scans: Mapping[str, Path], vocabulary: Vocabulary) -> list[str]:
    """Warnings of scans whose name says another contrast than their column.

    A T1 in the column t1ce is not one, unless the column t1 holds something else: its name need not say the agent.
    """
    said: dict[str, str] = {}
    for folder in {path.parent for path in scans.values()}:
        names = {name: path for name, path in scans.items() if path.parent == folder}
        root = [folder, *folder.parents][:3][-1]
        for name, file in zip(names, read_folder(list(names.values()), root, vocabulary), strict=True):
            if file.is_scan and not file.rest and not file.meaning.token.isdigit():
                said[name] = file.kind
    wrong = [name for name in scans if said.get(name, name) != name]
    wrong = [n for n in wrong if {n, said[n]} != {"t1", "t1ce"} or (said[n] in scans and said.get(said[n]) != said[n])]
    return [
        f"{scans[name].name} is used as {name}, as the datalist says, but its name says {said[name]}" for name in wrong
    ]


def _refuse_shared(items: Sequence[dict[str, Any]], wanted: Sequence[str], path: Path) -> None:
    """Refuse subjects with one scan in both rows, as after a cell was copied too far."""
    owners: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        for scan in {os.path.realpath(item[name]) for name in wanted if name in item}:
            owners.setdefault(scan, []).append(item)
    for scan, found in owners.items():
        for item in found if len(found) > 1 else ():
            names = " and ".join(other["subject"] for other in found)
            fault = f"{item['subject']}: {Path(scan).name} is in the rows of {names}"
            item.setdefault("fault", str(InputError(fault, "Leave it in the row of the subject that it is of", path)))


def _unread(file: Path, wanted: Sequence[str], vocabulary: Vocabulary) -> dict[str, Any]:
    """What `find_subjects` says of an unused file, for one that a table names as unread."""
    (named,) = read_folder([file], file.parent, vocabulary)
    held = may_hold(named, wanted) if named.kind == UNKNOWN else [name for name in wanted if name == named.kind]
    reason = named.meaning.reason or "the datalist names it as unread"
    return {"file": str(file), "kind": UNKNOWN, "reason": reason, "may_hold": held or list(wanted)}


def _convention(item: Mapping[str, Any], wanted: Sequence[str], vocabulary: Vocabulary) -> str:
    """How the label is to be read, by the names of the files."""
    label, *scans = (
        read_folder([Path(item[key])], Path(item[key]).parent, vocabulary)[0]
        for key in ("label", *(name for name in wanted if name in item))
    )
    return label_convention(label, scans)


def _check_names(names: Sequence[str], path: Path) -> None:
    """Whether each subject has a name of its own, of which a folder for its results can be made."""
    for name in names:
        if not name or name.startswith(".") or set(name) & set("\\/\0"):
            fault = f"has a subject named {name!r}, of which no folder can be made"
            raise InputError(fault, "Give every row a name of letters, digits, blanks, - and _", path)
    counts = Counter(name.lower() for name in names)
    twice = next((name for name in names if counts[name.lower()] > 1), None)
    if twice is not None:
        raise InputError(f"names subject {twice} twice", "Give every subject one row", path)
