"""Stage the bundle for a release: a folder with only what it needs to run and train, and a zip file of it."""

from __future__ import annotations

import argparse
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bundle import __version__
from bundle.errors import InputError, report_plainly
from bundle.networks.weights import sha256

ROOT = Path(__file__).resolve().parents[1]
NAME = "brain_mri_missing_contrast_synthesis"  # as the Model Zoo names bundles: anatomy, modality, task
CONTENTS = (
    "LICENSE",
    "bundle/**/*.py",
    "bundle/**/*.json",
    "bundle/data/viewer/*",
    "configs/**/*.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/baselines.md",
    "docs/data_license.txt",
    "docs/design.md",
    "docs/evaluation.md",
    "docs/results.md",
    "docs/experiments/*",
    "docs/images/*",
    "models/*",
)
REQUIRED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "models/model.pt")
LARGEST = 25_000_000  # bytes of a file: the Model Zoo's limit
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can tell


def contents(root: Path) -> Iterator[Path]:
    """The files of a release, relative to the root of the bundle, in order.

    Raises:
        InputError: a file that a bundle must have is missing, or one is too large.
    """
    for name in REQUIRED:
        if not (root / name).is_file():
            raise InputError("is missing, but a bundle must have it", "Run this in the whole repository", root / name)
    for path in sorted({path for pattern in CONTENTS for path in root.glob(pattern) if path.is_file()}):
        if path.stat().st_size > LARGEST:
            fault = f"has {path.stat().st_size / 1e6:.1f} MB, but the Model Zoo takes 25 MB"
            raise InputError(fault, "Publish it elsewhere and name its address in large_files.yml", path)
        yield path.relative_to(root)


def stage(root: Path, output_dir: Path) -> Path:
    """Copy what a release needs into `output_dir`/NAME, which is made anew, and return that folder.

    Raises:
        InputError: see `contents`.
    """
    folder = output_dir / NAME
    files = list(contents(root))
    if folder.exists():
        shutil.rmtree(folder)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, folder / file)
    return folder


def pack(folder: Path, path: Path) -> None:
    """Zip a folder: the same bytes wherever and whenever the files are the same.

    The files are stored, not compressed: what zlib makes of them differs between its versions, and the weights, nearly
    all of a release, would hardly shrink.
    """
    aside = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}", EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix, -rw-r--r--, on every system
            archive.writestr(entry, file.read_bytes())
    aside.replace(path)


def main(arguments: list[str] | None = None) -> None:
    """Write the folder and the zip file."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("build"))
    options = parser.parse_args(arguments)
    folder = stage(ROOT, options.output_dir)
    path = options.output_dir / f"{NAME}_v{__version__}.zip"
    pack(folder, path)
    print(f"{folder}: the bundle\n{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(path)}")


if __name__ == "__main__":
    main()
