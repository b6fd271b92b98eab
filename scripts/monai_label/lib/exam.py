"""From the one scan that a client names to the exam that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.checks import check_subjects
from bundle.data.datalist import NAME, subjects
from bundle.data.discovery import scan_keys
from bundle.errors import InputError
from scripts.monai_label.lib.refusals import OutsideStudies
from scripts.monai_label.lib.studies import Studies, is_synthetic


def exam_of(scan: Path, studies: Studies, contrasts: Sequence[str], registry: Mapping[str, Any]) -> dict[str, Any]:
    """The item of `find_subjects`, checked, that a scan belongs to.

    A datalist.csv in the studies folder, see `read_datalist`, says which files belong together; without one their names
    do.

    Raises:
        InputError: the scan is synthetic or of none of the contrasts, or the datalist cannot be used.
        OutsideStudies: the datalist or another scan of the study lies outside the studies folder, also by a link.
    """
    if is_synthetic(scan.name.split(".nii")[0]):
        raise InputError("is synthetic", "Name a scan that was measured", scan)
    datalist = studies.root / NAME if (studies.root / NAME).is_file() else None
    if datalist is not None and not studies.holds(datalist):
        raise OutsideStudies("is a link that leads out of the studies folder", "Put the file itself there", datalist)
    for item in subjects(studies.root, contrasts, registry, datalist):
        paths = [Path(item[key]) for key in scan_keys(item)]
        if os.path.realpath(scan) not in map(os.path.realpath, paths):
            continue
        outside = next((path for path in paths if not studies.holds(path)), None)
        if outside is not None:
            fault = "is a link that leads out of the studies folder"
            if not Path(os.path.abspath(outside)).is_relative_to(studies.root):
                fault = "is not in the studies folder"
            raise OutsideStudies(fault, "Put the scan itself there", outside)
        return check_subjects([item])[0]
    raise InputError(f"is none of {', '.join(contrasts)} by its name", "Name a scan of one of these contrasts", scan)
