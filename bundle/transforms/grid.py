"""Bring all scans of a subject onto one grid: RAS, isotropic, in the space of the reference scan."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Orientation, ResampleToMatch, Spacing
from torch import Tensor

from bundle.errors import InputError

SMALLEST_OVERLAP = 0.05  # of the reference's field of view: less is no overlap
GOOD_OVERLAP = 0.5  # less is said
SLAB = 2**24  # voxels that are brought back at once: MONAI keeps four coordinates of each, and copies of them


class ToNetworkGridd(MapTransform, InvertibleTransform):
    """Resample every scan onto the network's grid: axes R, A, S and cubic voxels, spanned by the reference scan.

    The reference scan is the first available contrast in the order of ``contrasts``. It is copied to ``"image"`` before
    it is turned and resampled, and only ``"image"`` carries the operations that invert this transform. The other
    contrasts (linear) and the masks (nearest neighbour) are resampled once, by their affines, directly onto that grid;
    where a scan does not reach it is 0.

    Args:
        contrasts: names of the contrasts, which are also their keys, in registry order.
        masks: keys of label volumes, resampled where present.
        spacing: edge of a voxel of the network's grid in mm.

    Input: volumes ``(1, X, Y, Z)`` as MetaTensors with their native affine. Output: volumes ``(1, X', Y', Z')`` on one
    grid; ``"image"``, the reference scan on it; ``"reference"``, its name.

    Raises:
        InputError: no contrast is there, or a scan lies somewhere else than the reference scan.
    """

    def __init__(
        self, contrasts: Sequence[str], masks: Sequence[str] = ("label", "mask"), spacing: float = 1.0
    ) -> None:
        super().__init__([*contrasts, *masks], allow_missing_keys=True)
        self.contrasts = tuple(contrasts)
        self.orientation = Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))
        # float32 places a sample to better than 1e-4 of a voxel, in half the time and memory of MONAI's float64
        self.spacing = Spacing(pixdim=(spacing,) * 3, mode="bilinear", padding_mode="border", dtype=np.float32)
        self.resample = ResampleToMatch(padding_mode="zeros", dtype=np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        reference = next((name for name in self.contrasts if name in d), None)
        if reference is None:
            raise InputError(f"none of the contrasts {', '.join(self.contrasts)} is there", "Give at least one of them")
        given = d[reference]
        image = cast(MetaTensor, self.spacing(self.orientation(given)))
        d["image"], d["reference"] = image, reference
        warnings = list(d.get("warnings", []))
        for key in self.key_iterator(d):
            if key == reference:
                d[key] = MetaTensor(image.as_tensor(), affine=image.affine)
                continue
            warnings += check_overlap(d[key], given)
            mode = "bilinear" if key in self.contrasts else "nearest"
            # turned first: then a scan that differs from the reference in orientation only is not interpolated
            moved = cast(MetaTensor, self.resample(self.orientation(d[key]), image, mode=mode))
            d[key] = MetaTensor(moved.as_tensor(), affine=image.affine)
        d["warnings"] = warnings
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring ``"image"`` back to the grid of the reference scan; a large one channel by channel and in slabs."""
        d = dict(data)
        image = d["image"]
        if math.prod(image.applied_operations[-1]["orig_size"]) <= SLAB:
            d["image"] = self.orientation.inverse(self.spacing.inverse(image))
            return d
        result = torch.zeros(())
        for number, channel in enumerate(image.as_tensor()):
            back = cast(MetaTensor, self.orientation.inverse(self.in_slabs(channel[None], image)))
            result = result if number else torch.empty(len(image), *back.shape[1:])
            result[number] = back.as_tensor()[0]
        d["image"] = MetaTensor(result, meta=back.meta, applied_operations=back.applied_operations)
        return d

    def in_slabs(self, channel: Tensor, image: MetaTensor) -> MetaTensor:
        """`spacing.inverse` of a channel (1, X, Y, Z) of an image, one slab of the result after the other."""
        *before, undone = image.applied_operations
        *sides, depth = undone["orig_size"]
        affine = torch.as_tensor(undone["extra_info"]["src_affine"])
        result = torch.empty(1, *sides, depth)
        step = max(1, SLAB // math.prod(sides))
        for start in range(0, depth, step):
            corner = affine.clone()
            corner[:3, 3] += start * affine[:3, 2]
            size = (*sides, min(step, depth - start))
            slab = {**undone, "orig_size": size, "extra_info": {**undone["extra_info"], "src_affine": corner}}
            part = MetaTensor(channel, affine=image.affine, applied_operations=[slab])
            result[..., start : start + step] = cast(MetaTensor, self.spacing.inverse(part)).as_tensor()
        return MetaTensor(result, meta={**image.meta, "affine": affine}, applied_operations=before)


def check_overlap(scan: MetaTensor, reference: MetaTensor) -> list[str]:
    """Warnings about how much of the reference's field of view a scan covers; InputError where it is hardly any."""
    covered = overlap(scan, reference)
    path, other = scan.meta["filename_or_obj"], reference.meta["filename_or_obj"]
    if covered < SMALLEST_OVERLAP:
        raise InputError(
            f"does not overlap with the reference scan {other}",
            "Check that both are of one exam and that their headers place them in one space, or register them first",
            path,
        )
    if covered < GOOD_OVERLAP:
        return [f"{path}: covers only {covered:.0%} of the field of view of the reference scan {other}"]
    return []


def overlap(scan: MetaTensor, reference: MetaTensor, points: int = 24) -> float:
    """Share of the reference's field of view, probed at ``points`` positions per axis, that lies within the scan's."""
    axes = [torch.linspace(-0.5, n - 0.5, points, dtype=torch.float64) for n in reference.shape[1:]]
    grid = torch.stack([*torch.meshgrid(*axes, indexing="ij"), torch.ones((points,) * 3, dtype=torch.float64)])
    to_scan = torch.linalg.solve(scan.affine.double(), reference.affine.double())
    voxels = (to_scan @ grid.flatten(1))[:3]
    size = torch.tensor(scan.shape[1:])[:, None]
    tolerance = 0.01  # of a voxel: the outermost probes lie on the border itself
    inside = ((voxels >= -0.5 - tolerance) & (voxels <= size - 0.5 + tolerance)).all(0)
    return inside.double().mean().item()
