"""Bring all scans of a subject onto one grid: RAS, isotropic, in the space of the reference scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Orientation, ResampleToMatch, Spacing, SpatialResample
from torch import Tensor

from bundle.data.scan_file import ScanFile, part_affine, slabs
from bundle.errors import InputError
from bundle.transforms.placement import ELSEWHERE, check_places, no_place

SMALLEST_OVERLAP = 0.05  # of the reference's field of view: less is no overlap
GOOD_OVERLAP = 0.5  # less is said


class ToNetworkGridd(MapTransform, InvertibleTransform):
    """Resample every scan onto the network's grid: axes R, A, S and cubic voxels, spanned by the reference scan.

    The reference scan is the first available contrast in the order of ``contrasts``. It is copied to ``"image"`` before
    it is turned and resampled, and only ``"image"`` carries what inverts this transform: operations, or of a large one
    the grid that it came from. The other contrasts (linear) and the masks (nearest neighbour) are resampled once, by
    their affines, directly onto that grid; where a scan does not reach it is 0.

    Args:
        contrasts: names of the contrasts, which are also their keys, in registry order.
        masks: keys of label volumes, resampled where present.
        spacing: edge of a voxel of the network's grid in mm.

    Input: volumes ``(1, X, Y, Z)`` as MetaTensors with their native affine, or large ones as `ScanFile`. Output:
    volumes ``(1, X', Y', Z')`` on one grid; ``"image"``, the reference scan on it; ``"reference"``, its name.

    Raises:
        InputError: no contrast is there, or a scan, or the brain in it, lies somewhere else than the reference scan's.
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
        self.back = SpatialResample(padding_mode="border", dtype=np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        reference = next((name for name in self.contrasts if name in d), None)
        if reference is None:
            raise InputError(f"none of the contrasts {', '.join(self.contrasts)} is there", "Give at least one of them")
        given = d[reference]
        image = self.on_own_grid(given)
        d["image"], d["reference"] = image, reference
        warnings, sources = list(d.get("warnings", [])), {key: d[key] for key in self.contrasts if key in d}
        for key in self.key_iterator(d):
            if key == reference:
                d[key] = MetaTensor(image.as_tensor(), affine=image.affine)
                continue
            warnings += check_overlap(d[key], given)
            d[key] = MetaTensor(self.onto(image, d[key], key in self.contrasts), affine=image.affine)
        noise = {name: background.noise for name, background in d.get("background", {}).items()}
        warnings += check_places({key: d[key][0].numpy() for key in sources}, sources, image.affine, noise)
        d["warnings"] = warnings
        return d

    def on_own_grid(self, scan: MetaTensor | ScanFile) -> MetaTensor:
        """The reference scan on the network's grid."""
        if isinstance(scan, MetaTensor):
            return cast(MetaTensor, self.spacing(self.orientation(scan)))
        plan: Any = MetaTensor(torch.zeros(1).expand(scan.shape), affine=scan.affine)  # a single number in memory
        plan = self.spacing(self.orientation(plan, lazy=True), lazy=True)
        affine, shape = torch.as_tensor(plan.peek_pending_affine()), plan.peek_pending_shape()
        meta = {"original_affine": scan.affine.numpy(), "spatial_shape": scan.shape[1:], "affine": affine}
        return MetaTensor(scan.onto(affine, shape, padding_mode="border"), meta={**scan.meta, **meta})

    def onto(self, image: MetaTensor, scan: MetaTensor | ScanFile, smooth: bool) -> Tensor:
        """Another scan, or a mask, on the grid of the image."""
        mode = "bilinear" if smooth else "nearest"
        if isinstance(scan, ScanFile):
            return scan.onto(image.affine, image.shape[1:], mode)
        # turned first: then a scan that differs from the reference in orientation only is not interpolated
        return cast(MetaTensor, self.resample(self.orientation(scan), image, mode=mode)).as_tensor()

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring ``"image"`` back to the grid of the reference scan, or to a slab of it, see `slab_of`."""
        d = dict(data)
        image = d["image"]
        if image.applied_operations:
            d["image"] = self.orientation.inverse(self.spacing.inverse(image))
            return d
        affine, shape = torch.as_tensor(image.meta["original_affine"]), image.meta["spatial_shape"]
        result = torch.empty(len(image), *shape)
        for start, stop in slabs(shape):
            size = (*shape[:2], stop - start)
            slab = self.back(image, part_affine(affine, (0, 0, start)), size)
            result[..., start:stop] = cast(MetaTensor, slab).as_tensor()
        d["image"] = MetaTensor(result, meta={**image.meta, "affine": affine})
        return d


def slab_of(image: MetaTensor, start: int, stop: int) -> MetaTensor:
    """The stack ``"image"`` of a large reference scan as if this were a slab of it, `start` to `stop` of its last axis.

    What is brought back by it, as with MONAI's `Invertd`, is that slab alone. It carries no operations to be undone,
    since affines tell all: where it was cropped it need not be made large first, as long as it is 0 along the cut.
    """
    affine = part_affine(torch.as_tensor(image.meta["original_affine"]), (0, 0, start))
    shape = (*image.meta["spatial_shape"][:2], stop - start)
    return MetaTensor(image.as_tensor(), meta={**image.meta, "original_affine": affine.numpy(), "spatial_shape": shape})


def check_overlap(scan: MetaTensor | ScanFile, reference: MetaTensor | ScanFile) -> list[str]:
    """Warnings about how much of the reference's field of view a scan covers; InputError where it is hardly any."""
    covered = overlap(scan, reference)
    path, other = scan.meta["filename_or_obj"], reference.meta["filename_or_obj"]
    if covered < SMALLEST_OVERLAP:
        raise InputError(
            f"does not overlap with the reference scan {other}{no_place(scan, reference)}", ELSEWHERE, path
        )
    if covered < GOOD_OVERLAP:
        return [f"{path}: covers only {covered:.0%} of the field of view of the reference scan {other}"]
    return []


def overlap(scan: MetaTensor | ScanFile, reference: MetaTensor | ScanFile, points: int = 24) -> float:
    """Share of the reference's field of view, probed at ``points`` positions per axis, that lies within the scan's."""
    axes = [torch.linspace(-0.5, n - 0.5, points, dtype=torch.float64) for n in reference.shape[1:]]
    grid = torch.stack([*torch.meshgrid(*axes, indexing="ij"), torch.ones((points,) * 3, dtype=torch.float64)])
    to_scan = torch.linalg.solve(scan.affine.double(), reference.affine.double())
    voxels = (to_scan @ grid.flatten(1))[:3]
    size = torch.tensor(scan.shape[1:])[:, None]
    tolerance = 0.01  # of a voxel: the outermost probes lie on the border itself
    inside = ((voxels >= -0.5 - tolerance) & (voxels <= size - 0.5 + tolerance)).all(0)
    return inside.double().mean().item()
