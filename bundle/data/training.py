"""Which subjects of a folder train, and which validate."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.data.checks import check_subjects
from bundle.data.datalist import subjects
from bundle.data.splits import apply_split, load_split, make_split
from bundle.errors import InputError

logger = logging.getLogger(__name__)

FEWEST_TO_SPLIT = 5  # subjects; below that, holding one back costs more than its figures tell


def training_and_validation(
    dataset_dir: str,
    contrasts: Sequence[str],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    split_file: str | None = None,
    seed: int = 0,
    datalist: str | None = None,
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Datalists for training and validation.

    Subjects with a fault are left out, with a line each. Without a split file a tenth of the persons validate; with
    fewer than five subjects all of them train, and also validate, which is said. Subjects with a single contrast do not
    validate.

    Args:
        dataset_dir: folder of subjects; any of them may lack contrasts or a lesion mask.
        contrasts, overrides, datalist: see `subjects`.
        split_file: JSON file of subject names, see `load_split`; its `test` part is not used here.
        seed: of the split that is drawn where none is given.

    Returns:
        Items of `find_subjects`, each with the `stamps` of its files.

    Raises:
        InputError: no subject can be used or asked, or the split names subjects that are not there.
    """
    items: list[Mapping[str, Any]] = []
    for item in check_subjects(subjects(dataset_dir, contrasts, overrides, datalist)):
        for line in item["warnings"]:
            logger.warning(f"{item['subject']}: {line}")
        if "fault" in item:
            logger.warning(f"{item['subject']} is left out: {item['fault']}")
        else:
            items.append({**item, "stamps": stamps(item)})
    if not items:
        raise InputError("no subject can be used", "Mend the faults listed above", dataset_dir)
    if split_file is not None:
        split = load_split(split_file)
        training, validation = (apply_split(items, split, part) for part in ("training", "validation"))
    elif len(items) < FEWEST_TO_SPLIT:
        logger.warning(
            f"{len(items)} subjects are too few to hold any back: "
            "the validation figures are those of the training subjects"
        )
        training, validation = items, items
    else:
        split = make_split([item["subject"] for item in items], test=0.0, seed=seed)
        training, validation = (apply_split(items, split, part) for part in ("training", "validation"))
    # Of a subject with a single contrast nothing can be hidden, so nothing can be asked.
    asked = [item for item in validation or training if sum(name in item for name in contrasts) > 1]
    if not asked:
        raise InputError(
            "no subject to validate on has two of the contrasts",
            "Add such subjects, or name them in a split file",
            dataset_dir,
        )
    logger.info(f"{len(training)} subjects train, {len(asked)} validate")
    return training, asked


def stamps(item: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Size in bytes and time of change in ns of each file of a subject: a cache whose key holds them sees new scans."""
    files = {key: os.stat(value) for key, value in item.items() if isinstance(value, str) and os.path.isfile(value)}
    return {key: (status.st_size, status.st_mtime_ns) for key, status in files.items()}
