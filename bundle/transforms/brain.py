"""Find the brain: what is not zero in skull-stripped scans, cleaned."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from bundle.errors import InputError

# Without its background a real scan fills 1.1 to 2.1 litres where only the brain is left, up to 2.6 with remains of the
# eyes, and 2.3 to 3.1 with the skull. Whether the background is exactly zero tells nothing: scanners write zeros.
LARGEST_BRAIN = 2.1e6  # mm^3
LARGEST_STRIPPED = 2.8e6  # mm^3
RIM = 0.01  # of the 99.5 percentile: resampling leaves such values, and spline overshoot below zero, around the brain

# The bone of a skull is a dark layer below the scalp, also in a slab of a head. From 54 mm on it was 7 % or more of
# what lies that deep, and at most 5.2 % in stripped brains, but more where only the lowest, small sections are there.
BONE = (5, 14)  # mm below the surface
INNER = 24  # mm below the surface: brain
DARK = 0.3  # of the brain's median, and not background
LARGEST_DARK = 0.06  # share of that layer beyond the share deeper inside
SMALLEST_SECTION = 1.5e4  # mm^2 of the largest plane: less shows too little to judge
COARSE = 2.0  # mm between the voxels that are looked at


class BrainMaskd(MapTransform):
    """Add ``"brain"``, a mask ``(1, X, Y, Z)``, uint8, of the voxels the network may see.

    With a given mask that mask is used. Otherwise the brain is the union over the available skull-stripped contrasts of
    what is brighter than 1 % of the contrast's 99.5 percentile, and than the noise of its background (which
    `LoadScansd` puts under ``"background"``), with specks and thin bridges taken off and holes filled. If no contrast
    is skull-stripped, ``"warnings"`` says so, and the mask is that of the head instead.

    Args:
        contrasts: keys of the scans ``(1, X, Y, Z)``, all on one grid; missing ones are skipped.
        mask: key of the given mask.

    Raises:
        InputError: the given mask, or every scan, is empty.
    """

    def __init__(self, contrasts: Sequence[str], mask: str = "mask") -> None:
        super().__init__(list(contrasts), allow_missing_keys=True)
        self.mask = mask

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        scans = {str(key): d[key] for key in self.key_iterator(d)}
        affine = next(iter(scans.values())).affine
        if self.mask in d:
            brain, warnings = given_mask(d[self.mask]), list[str]()
        else:
            voxel = float(np.abs(np.linalg.det(affine[:3, :3].numpy())))
            noise = {name: background.noise for name, background in d.get("background", {}).items()}
            brain, warnings = find_brain({name: scan[0].numpy() for name, scan in scans.items()}, voxel, noise)
        if not brain.any():
            raise InputError("no brain was found", "Check that the scans hold an image and not only background")
        d["brain"] = MetaTensor(brain[None].astype(np.uint8), affine=affine)
        d["warnings"] = [*d.get("warnings", []), *warnings]
        return d


def given_mask(mask: MetaTensor) -> np.ndarray:
    """The user's brain mask as it is; InputError if no voxel of it lies on the grid."""
    brain: np.ndarray = mask[0].numpy() > 0.5
    if not brain.any():
        raise InputError(
            "the brain mask is empty on the grid of the scans", "Remove it, or give one that marks the brain"
        )
    return brain


def find_brain(
    scans: Mapping[str, np.ndarray], voxel: float, noise: Mapping[str, float]
) -> tuple[np.ndarray, list[str]]:
    """Brain mask ``(X, Y, Z)`` of scans on one grid, and warnings.

    Args:
        scans: contrast -> ``(X, Y, Z)``, 0 in the background.
        voxel: mm^3 per voxel.
        noise: contrast -> intensity up to which the background has noise; 0 where it is not there.
    """
    # magnitudes, because without a constant background z-scored scans are negative in half of the brain
    scans = {name: np.abs(scan) if scan.min() < 0 else scan for name, scan in scans.items() if scan.any()}
    bright = {
        name: scan > max(RIM * np.percentile(scan[scan > 0], 99.5), noise.get(name, 0)) for name, scan in scans.items()
    }
    brains = [name for name, mask in bright.items() if not has_skull(scans[name], mask, voxel)]
    skulls = [name for name in bright if name not in brains]
    if brains:
        large = [name for name in brains if bright[name].sum() * voxel >= LARGEST_BRAIN]
        chosen = [name for name in brains if name not in large] or brains
        names, warnings = ", ".join(chosen), []
        if skulls:
            warnings.append(f"{', '.join(skulls)}: the skull is still on; masked by the brain of {names}")
        if large:
            which = "the mask may be too large" if chosen == large else f"masked by the brain of {names}"
            warnings.append(f"{', '.join(large)}: shows more than the brain, such as the eyes; {which}")
        return clean(np.logical_or.reduce([bright[name] for name in chosen])), warnings
    heads = [scan > air_level(scan) for scan in scans.values()]
    return clean(np.logical_or.reduce(heads)) if heads else np.zeros(0, bool), [
        "the scans still have their skull, for which the network was not trained: expect a poorer result, "
        "or strip the skull first (for example with HD-BET or SynthStrip)"
    ]


def has_skull(scan: np.ndarray, bright: np.ndarray, voxel: float) -> bool:
    """Whether a scan without background, or what is bright in it, shows a skull: by its size, or by its bone.

    The bone is a dark layer below the surface of the head. What the field of view cuts is no surface.
    """
    if bright.mean() >= 0.95 or bright.sum() * voxel >= LARGEST_STRIPPED:
        return True
    edge = voxel ** (1 / 3)
    step = max(1, round(COARSE / edge))
    edge *= step
    scan, bright = scan[::step, ::step, ::step], bright[::step, ::step, ::step]
    part = largest(bright)
    head = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(part, 2, 0)], axis=2)
    if edge**2 * max(head.sum((a, b)).max() for a, b in ((0, 1), (0, 2), (1, 2))) < SMALLEST_SECTION:
        return False
    depth = edge * ndimage.distance_transform_edt(head)
    layer = (depth > BONE[0]) & (depth <= BONE[1])
    inside = depth > INNER if (depth > INNER).any() else head
    dark = bright & (scan < DARK * np.median(scan[inside]))
    return bool(layer.any() and dark[layer].mean() - dark[inside].mean() > LARGEST_DARK)


def air_level(scan: np.ndarray) -> float:
    """Brightness below which a scan with skull shows air: half the median of what is above it (AFNI's 3dClipLevel)."""
    values = scan[scan > 0]
    level, before = float(np.sqrt(0.5 * np.mean(values.astype(np.float64) ** 2))), -1.0
    for _ in range(50):
        if level == before:
            break
        level, before = 0.5 * float(np.median(values[values >= level])), level
    return level


def clean(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, cut where bridges are thinner than three voxels, its holes filled."""
    if not mask.any():
        return mask
    box = tuple(slice(max(s.start - 3, 0), s.stop + 3) for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    part = np.pad(mask[box], 1)
    core = ndimage.binary_opening(part)
    core = largest(core if core.any() else part)
    # opening also rounds off the rim: give back what lies one voxel around the core
    part = part & ndimage.binary_dilation(core, ndimage.generate_binary_structure(3, 3))
    result = np.zeros_like(mask)
    result[box] = ~largest(~part)[1:-1, 1:-1, 1:-1]  # the padded border joins all background that is not a hole
    return result


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected part of a mask."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()
