"""The release: what is in it, that its bytes repeat, and that it runs wherever it lies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigParser

from bundle import __version__
from bundle.errors import InputError
from scripts import make_zip
from tests.conftest import ROOT
from tests.phantom import affine_of, write_subject

SHAPE = (36, 46, 3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the tiny network and its weights, and with some litter."""
    root = tmp_path_factory.mktemp("source") / "repository"
    for name in ("bundle", "configs", "docs", "scripts", "tests"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "LICENSE", root)
    sizes = json.loads((ROOT / "configs/tiny.json").read_text())
    for name in ("inference", "train", "evaluate"):
        config = json.loads((root / f"configs/{name}.json").read_text())
        config |= {key: value for key, value in sizes.items() if key in config}
        (root / f"configs/{name}.json").write_text(json.dumps(config))
    parser = ConfigParser()
    parser.read_config(str(root / "configs/inference.json"))
    (root / "models").mkdir()
    shutil.copy(ROOT / "models/README.md", root / "models")
    torch.save(parser.get_parsed_content("network_def").state_dict(), root / "models/model.pt")
    for litter in ("bundle/__pycache__/x.pyc", "bundle/notes.txt", "training/model.pt", "configs/.inference.json.swp"):
        (root / litter).parent.mkdir(exist_ok=True)
        (root / litter).touch()
    return root


@pytest.fixture(scope="module")
def unzipped(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the bundle, unzipped."""
    folder = tmp_path_factory.mktemp("release")
    make_zip.pack(make_zip.stage(source, folder / "build"), folder / "release.zip")
    with zipfile.ZipFile(folder / "release.zip") as archive:
        archive.extractall(folder / "a b")
    return folder / "a b" / make_zip.NAME


def test_only_what_the_bundle_needs(unzipped: Path) -> None:
    files = {path.relative_to(unzipped).as_posix() for path in unzipped.rglob("*") if path.is_file()}
    assert {path.split("/")[0] for path in files} == {"LICENSE", "bundle", "configs", "docs", "models"}
    assert files >= {
        *("LICENSE", "configs/metadata.json", "configs/inference.json", "configs/train.json", "configs/logging.conf"),
        *("models/model.pt", "models/README.md", "docs/README.md", "docs/data_license.txt", "bundle/networks/hfib.py"),
        *("bundle/data/contrasts.json",),
    }
    assert not [path for path in files if re.search(r"pyc|notes|swp|tests|test_|scripts/", path)]


def test_its_pages_point_to_nothing_that_was_left_out(unzipped: Path) -> None:
    pages = sorted(unzipped.rglob("*.md"))
    assert len(pages) >= 3
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert links and not [(page.name, link) for page, link in links if not (page.parent / link).exists()]


def test_the_bytes_repeat(source: Path, tmp_path: Path) -> None:
    packed = []
    for number, umask in enumerate((0o022, 0o077)):
        copy = tmp_path / f"copy {number}"
        before = os.umask(umask)
        try:
            shutil.copytree(source, copy, copy_function=shutil.copyfile)  # of another age
            make_zip.pack(make_zip.stage(copy, copy / "build"), copy / "release.zip")
        finally:
            os.umask(before)
        packed.append((copy / "release.zip").read_bytes())
    assert packed[0] == packed[1]
    (copy / "LICENSE").write_text("other")
    make_zip.pack(make_zip.stage(copy, copy / "build"), copy / "release.zip")
    assert (copy / "release.zip").read_bytes() != packed[0]


def test_a_release_is_staged_anew(source: Path, tmp_path: Path) -> None:
    stale = tmp_path / make_zip.NAME / "bundle" / "removed.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert make_zip.stage(source, tmp_path) == tmp_path / make_zip.NAME
    assert not stale.exists() and (stale.parent / "api.py").is_file()


def run_elsewhere(config: Path, run_id: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A workflow of the unzipped bundle, started in an empty folder, by a Python that does not have this package."""
    (folder / "elsewhere").mkdir()
    # -S leaves out what is installed in place, as this package is for its developers; the other packages are named
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [
            *(sys.executable, "-S", "-m", "monai.bundle", "run", run_id),
            *("--config_file", str(config), "--bundle_root", str(config.parents[1])),
            *("--dataset_dir", str(folder / "in"), "--output_dir", str(folder / "out"), *options),
        ],
        cwd=folder / "elsewhere",
        env={**os.environ, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout, done.stderr)
    assert not list((folder / "elsewhere").iterdir())
    return done


def test_it_synthesises_from_anywhere(unzipped: Path, tmp_path: Path) -> None:
    write_subject(tmp_path / "in" / "sub-001", ["t1", "t2"], SHAPE, affine_of(SHAPE, (2, 2, 2)))
    assert run_elsewhere(unzipped / "configs/inference.json", "inference", tmp_path).returncode == 0
    assert nib.load(tmp_path / "out/sub-001/sub-001_flair_synth.nii.gz").shape == SHAPE


@pytest.mark.parametrize(("config", "run_id"), [("evaluate", "evaluation"), ("train", "training")])
def test_the_other_workflows_start_from_anywhere(config: str, run_id: str, unzipped: Path, tmp_path: Path) -> None:
    where = "$print('from', sys.modules['bundle'].__file__)"
    done = run_elsewhere(unzipped / f"configs/{config}.json", run_id, tmp_path, f"--{run_id}", where)
    assert done.returncode == 0 and f"from {unzipped}/bundle/__init__.py" in done.stdout


def test_faults(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_zip, "LARGEST", 2000)
    with pytest.raises(InputError, match=r"LICENSE: has 0\.0 MB, but the Model Zoo takes 25 MB\. Publish it elsewhere"):
        list(make_zip.contents(source))
    with pytest.raises(InputError, match=r"LICENSE: is missing, but a bundle must have it\. "):
        list(make_zip.contents(tmp_path))


def test_the_command(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which the command replaces
    monkeypatch.setattr(make_zip, "ROOT", source)
    make_zip.main(["--output_dir", str(tmp_path)])
    path = tmp_path / f"{make_zip.NAME}_v{__version__}.zip"
    assert sorted(tmp_path.iterdir()) == [tmp_path / make_zip.NAME, path]
    assert make_zip.sha256(path) in capsys.readouterr().out
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and f"{make_zip.NAME}/models/model.pt" in archive.namelist()
