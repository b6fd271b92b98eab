"""Write results so that they appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np

from bundle.errors import InputError


@contextmanager
def staged(folder: Path, outdated: Iterable[str] = ()) -> Iterator[Path]:
    """Give a folder to write in; its files move to `folder` once all are written, and vanish if that fails.

    Files of `folder` with the same names are replaced; `.json` files move last and the old ones go first, so that one
    that is there vouches for the others.

    Args:
        folder: where the files are to be; made if need be.
        outdated: names of files that are removed from it if they are not written anew.
    """
    aside = clear_leftover(folder)
    aside.mkdir(parents=True)
    try:
        yield aside
        folder.mkdir(exist_ok=True)
        files = sorted(aside.iterdir(), key=lambda file: file.suffix == ".json")
        for name in [*(file.name for file in files if file.suffix == ".json"), *outdated]:
            (folder / name).unlink(missing_ok=True)
        for file in files:
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def clear_leftover(folder: Path) -> Path:
    """Remove what a run that was killed left beside a folder: the place where `staged` writes, which is returned."""
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def as_json(content: Any) -> str:
    """Indented JSON that keeps letters of all languages readable."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write_volume(path: Path, volume: np.ndarray, reference: str | Path, description: str) -> None:
    """Write a volume as float32 NIfTI with the affine, the qform and sform codes and the units of a reference file.

    Args:
        path: ends in .nii or .nii.gz.
        volume: ``(X, Y, Z)``, on the grid of the reference.
        reference: the NIfTI file whose grid it is.
        description: kept in the header, at most 79 bytes.

    Raises:
        ValueError: the volume's shape is not that of the reference.
    """
    source = cast(nib.Nifti1Image, nib.load(reference))
    if volume.shape != source.shape[:3]:
        raise ValueError(f"volume: shape {volume.shape}, but {reference} has {source.shape[:3]}.")
    header = source.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    header.extensions.clear()  # notes of other programs about another image
    header["cal_min"], header["cal_max"] = 0, 1
    header["descrip"] = description.encode()[:79]
    nib.save(type(source)(volume.astype(np.float32), source.affine, header), path)


def prepare_output(output_dir: Path, dataset_dir: Path) -> None:
    """Make the folder for results; InputError if that is not possible or it would be taken for input."""
    target, source = output_dir.resolve(), dataset_dir.resolve()
    if target == source or source in target.parents:
        raise InputError(
            f"the output folder lies inside the input folder {dataset_dir}, where results would be taken for subjects",
            "Give --output_dir a folder outside of it",
            output_dir,
        )
    probe = output_dir / ".writable"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to the output folder ({error.strerror})",
            "Give --output_dir a folder that you may write to",
            output_dir,
        ) from error


def told(error: OSError, folder: Path) -> str:
    """What an error of the file system means for the user, in one line; `folder` is where results go."""
    where = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: no space is left. Free some, then run the same command again: what is done stays"
    return f"{where}: {error.strerror or error}. Mend this, then run the same command again: what is done stays"


def is_done(folder: Path, sidecar: Path, claim: Mapping[str, Any]) -> bool:
    """Whether a sidecar of an earlier run says all that `claim` says and the files that it names are there."""
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    wanted = json.loads(json.dumps(claim))  # tuples become lists, as in the file
    same = all(found.get(key) == value for key, value in wanted.items())
    return same and all((folder / name).is_file() for name in found.get("files", []))
