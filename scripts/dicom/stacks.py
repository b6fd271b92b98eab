"""The stacks of parallel slices among the DICOM files of a folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from bundle.errors import InputError

FEWEST = 8  # slices of a volume; localizers have fewer
GAP_TOLERANCE = 0.05  # mm, of 0.05 mm + 1 % by which the gaps between slices may differ
ECHO_TOLERANCE = (
    0.1  # ms, by which the echo times of one series may differ: scanners round them; echoes lie further apart
)
TURN_TOLERANCE = 0.01  # of the components of the axes' unit vectors
SHIFT_TOLERANCE = 0.5  # mm, by which slices may be shifted against each other: scanners round positions


@dataclass
class Stack:
    """Slices of one series with one size and type of image, and one orientation and echo time within tolerances.

    Attributes:
        key: the SeriesInstanceUID; with ``#2`` and so on where the series has several stacks.
        tags: of its first slice, without pixels.
        files: ordered along the normal of the slices.
        fault: why it cannot become a volume, or "".
    """

    key: str
    tags: Dataset
    files: list[Path]
    fault: str

    @property
    def number(self) -> int:
        """The number of its series, as consoles show it."""
        return int(self.tags.get("SeriesNumber") or 0)

    @property
    def description(self) -> str:
        """What the technologist called it."""
        return " ".join(str(self.tags.get("SeriesDescription") or self.tags.get("ProtocolName") or "").split())


def find_stacks(root: Path) -> list[Stack]:
    """All stacks in a folder, at any depth, in the order of their series' numbers; pixels are not read.

    Raises:
        InputError: the folder does not exist or holds no DICOM image.
    """
    if not root.is_dir():
        raise InputError("is not a folder", "Name the folder that holds the DICOM files", root)
    series: dict[tuple[Any, ...], dict[str, tuple[Path, Dataset]]] = defaultdict(dict)
    for path in sorted(file for file in root.rglob("*") if file.is_file()):
        try:
            tags = dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "SeriesInstanceUID" in tags and "Rows" in tags:  # else a DICOMDIR, a report, raw data
            series[_group(tags)].setdefault(str(tags.SOPInstanceUID), (path, tags))  # a copy of a file counts once
    if not series:
        raise InputError("holds no DICOM image", "Name the folder that holds the DICOM files", root)
    stacks: list[Stack] = []
    times_seen: dict[str, int] = defaultdict(int)
    for (uid, *_), copies in sorted(series.items(), key=lambda group: str(group[0])):
        for images in _alike(list(copies.values())):
            times_seen[uid] += 1
            key = uid if times_seen[uid] == 1 else f"{uid}#{times_seen[uid]}"
            stacks.append(_stack(key, images))
    return sorted(stacks, key=lambda stack: (stack.number, stack.key))


def position(tags: Dataset) -> np.ndarray:
    """Centre of the first pixel, in mm along L, P and S."""
    return np.array(tags.ImagePositionPatient, float)


def axes(tags: Dataset) -> np.ndarray:
    """Unit vectors ``(3, 3)``, one per row: along a row of pixels, along a column, and the normal of the slice."""
    row, column = np.array(tags.ImageOrientationPatient, float).reshape(2, 3)
    return np.stack([row, column, np.cross(row, column)])


def _group(tags: Dataset) -> tuple[Any, ...]:
    return str(tags.SeriesInstanceUID), tuple(tags.get("ImageType") or ()), tags.Rows, tags.Columns


def _echo_and_axes(tags: Dataset) -> list[float]:
    """Echo time in ms, then the components of the axes; 0 where they are unknown."""
    return [float(tags.get("EchoTime") or 0), *map(float, tags.get("ImageOrientationPatient") or 6 * [0.0])]


def _alike(images: Sequence[tuple[Path, Dataset]]) -> list[list[tuple[Path, Dataset]]]:
    """The images of a series by orientation and echo time, which may differ by the tolerances within a stack."""
    stacks: list[tuple[np.ndarray, list[tuple[Path, Dataset]]]] = []
    for image in sorted(images, key=lambda image: _echo_and_axes(image[1])):
        values = np.array(_echo_and_axes(image[1]))
        for first, members in stacks:
            if (np.abs(values - first) <= [ECHO_TOLERANCE, *6 * [TURN_TOLERANCE]]).all():
                members.append(image)
                break
        else:
            stacks.append((values, [image]))
    return [members for _, members in stacks]


def _stack(key: str, images: Sequence[tuple[Path, Dataset]]) -> Stack:
    first = images[0][1]
    if first.get("Modality") != "MR":
        return Stack(key, first, [path for path, _ in images], f"is of modality {first.get('Modality')}, not MR")
    if int(first.get("NumberOfFrames") or 1) > 1 or "SharedFunctionalGroupsSequence" in first:
        fault = "is enhanced (multi-frame) MR, which is not read here; dcm2niix converts it"
        return Stack(key, first, [path for path, _ in images], fault)
    if not all(tags.get(name) for _, tags in images for name in ("ImageOrientationPatient", "ImagePositionPatient")):
        return Stack(key, first, [path for path, _ in images], "has no position in the scanner")
    normal = axes(first)[2]
    ordered = sorted(images, key=lambda image: float(position(image[1]) @ normal))
    return Stack(key, ordered[0][1], [path for path, _ in ordered], _fault([tags for _, tags in ordered]))


def _fault(slices: Sequence[Dataset]) -> str:
    if len(slices) < FEWEST:
        return f"has {len(slices)} slices, too few for a volume"
    places = np.array([position(tags) for tags in slices])
    normal = axes(slices[0])[2]
    gaps = np.diff(places @ normal)
    if gaps.min() < GAP_TOLERANCE:
        return f"has {len(slices)} images of fewer places: several time points or weightings"
    if np.ptp(gaps) > GAP_TOLERANCE + 0.01 * float(np.median(gaps)):
        return f"lacks slices: the gaps between them are {gaps.min():.2f} to {gaps.max():.2f} mm"
    shifts = places - places[0] - np.outer((places - places[0]) @ normal, normal)
    if np.abs(shifts).max() > SHIFT_TOLERANCE:
        return f"has slices that are shifted against each other by up to {np.abs(shifts).max():.1f} mm"
    return ""
