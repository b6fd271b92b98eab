"""Write results so that they appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.arraywriters import ArrayWriter
from nibabel.openers import ImageOpener

from bundle.data.checks import load_nifti
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


@contextmanager
def volume_file(path: Path, reference: str | Path, description: str) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a float32 NIfTI file, little-endian, with the affine, qform and sform codes and units of a reference file.

    Gives a function that is to be called with the volume ``(X, Y, Z)``, on the grid of the reference, or with one part
    of it ``(X, Y, n)`` after the other along the last axis.

    Args:
        path: ends in .nii or .nii.gz.
        reference: the NIfTI file whose grid it is.
        description: kept in the header, at most 79 bytes.

    Raises:
        ValueError: what was written has not the shape of the reference.
    """
    source = load_nifti(reference)
    *sides, depth = source.shape[:3]
    header = source.header.as_byteswapped("<")  # a copy: that of a big-endian file would not fit the voxels
    header.set_data_dtype(np.float32)
    header.extensions.clear()  # notes of other programs about another image
    header["cal_min"], header["cal_max"] = 0, 1
    header["descrip"] = description.encode()[:79]
    zeros = np.broadcast_to(np.float32(0), (*sides, depth))  # of the shape that the header is to tell, without memory
    try:
        header.get_qform()
    except ValueError:  # a quaternion that is none, which other programs would refuse
        header.set_qform(source.affine, 0)
    header = type(source)(zeros, source.affine, header).header
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 0  # right behind the header, not where the reference has its voxels
    written = 0

    def write(part: np.ndarray) -> None:
        nonlocal written
        written += part.shape[2]
        if list(part.shape[:2]) != sides or written > depth:
            raise ValueError(f"volume: shape {(*part.shape[:2], written)}, but {reference} has {(*sides, depth)}.")
        ArrayWriter(part, np.dtype("<f4"), check_scaling=False).to_fileobj(file)

    with ImageOpener(str(path), "wb") as file:
        header.write_to(file)
        yield write
    if written < depth:
        raise ValueError(f"volume: {written} planes, but {reference} has {depth}.")


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
