"""Which subjects of a folder are evaluated, and which ones the floors may learn from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.data.checks import check_subjects
from bundle.data.datalist import subjects
from bundle.data.splits import apply_split, load_split
from bundle.errors import InputError

Overrides = Mapping[str, Mapping[str, Any]]


def subjects_of_part(
    dataset_dir: str,
    contrasts: Sequence[str],
    overrides: Overrides | None,
    split_file: str | None,
    part: str,
    datalist: str | None = None,
) -> list[dict[str, Any]]:
    """Checked datalist of one part of a split, or of all subjects where there is no split file.

    Args:
        dataset_dir, contrasts, overrides, datalist: see `subjects`.
        split_file, part: JSON file of subject names, see `load_split`, and which of its parts.

    Raises:
        InputError: nothing found, as `subjects` and `apply_split` say, or the part is empty.
    """
    items: Sequence[Mapping[str, Any]] = subjects(dataset_dir, contrasts, overrides, datalist)
    if split_file is not None:
        items = apply_split(items, load_split(split_file), part)
        if not items:
            raise InputError(f"the split's {part} part is empty", "Name subjects in it, or another part", split_file)
    return check_subjects(items)


def reference_subjects(
    reference_dir: str | None,
    contrasts: Sequence[str],
    overrides: Overrides | None,
    split_file: str | None,
    part: str | None,
    evaluated: Sequence[Mapping[str, Any]],
    datalist: str | None = None,
) -> list[dict[str, Any]]:
    """Checked datalist of other subjects than those evaluated; empty where no folder is given.

    Args:
        reference_dir: folder of subjects; may be the folder of those evaluated.
        contrasts, overrides: see `find_subjects`.
        split_file, part: use only this part of the split, if `part` is given.
        evaluated: subjects none of whose scans may be used.
        datalist: names the subjects instead of the folder.

    Raises:
        InputError: as `subjects_of_part`, or no usable subject is left.
    """
    if reference_dir is None and datalist is None:
        return []
    reference_dir = reference_dir or ""
    if part is not None and split_file is None:
        raise InputError("reference_part is given, but no split", "Give --split_file too")
    found = subjects_of_part(reference_dir, contrasts, overrides, split_file if part else None, part or "", datalist)
    used = {os.path.realpath(item[name]) for item in evaluated for name in contrasts if name in item}
    items = [
        item
        for item in found
        if "fault" not in item and not used & {os.path.realpath(item[name]) for name in contrasts if name in item}
    ]
    if not items:
        raise InputError("holds no usable subject but those that are evaluated", "Name another folder", reference_dir)
    return items
