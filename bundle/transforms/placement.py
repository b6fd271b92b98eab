"""Whether the headers of a subject's scans place the brains in one place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from bundle.data.scan_file import ScanFile
from bundle.errors import InputError
from bundle.transforms.brain import RIM, largest

ELSEWHERE = "Check that both are of one study and that their headers place them in one space, or register them first"

COARSE = 2.0  # mm between the voxels that are looked at
SMALLEST_SHARE = 0.5  # of the smaller brain that lies in the other, where both fields of view reach
FARTHEST = 10.0  # mm; brains that lie farther apart are refused
APART = 5.0  # mm; more is reported, by less the boundaries of one brain differ between contrasts


def check_places(
    scans: Mapping[str, np.ndarray],
    sources: Mapping[str, MetaTensor | ScanFile],
    grid: Tensor,
    noise: Mapping[str, float],
) -> list[str]:
    """Warnings about brains that lie beside that of the reference scan.

    Args:
        scans: contrast -> ``(X, Y, Z)``, on one grid of cubic voxels, 0 in the background; the reference scan first.
        sources: the same scans on their own grids.
        grid: affine of the common grid.
        noise: contrast -> intensity up to which the background has noise; 0 where it is not there.

    Raises:
        InputError: a brain lies more than `FARTHEST` mm beside that of the reference scan, or hardly in it.
    """
    reference, *others = scans
    edge = float(grid[:3, 0].norm())
    step = max(1, round(COARSE / edge))
    size = scans[reference].shape
    brains = {name: brain_in(scan, step, noise.get(name, 0)) for name, scan in scans.items()}
    fields = {name: field_of(sources[name].affine, sources[name].shape[1:], grid, size, step) for name in scans}
    warnings = []
    for name in others:
        both = fields[reference] & fields[name]
        one, other = brains[reference] & both, brains[name] & both
        path, beside = sources[name].meta["filename_or_obj"], sources[reference].meta["filename_or_obj"]
        if not one.any():
            continue  # the reference scan has no brain there: nothing to compare with
        if not other.any():
            fault = f"shows nothing where the brain of the reference scan {beside} is"
            raise InputError(fault + no_place(sources[name], sources[reference]), ELSEWHERE, path)
        shift = shift_of(brains[name], brains[reference], fields[name], fields[reference])
        if (one & other).sum() < SMALLEST_SHARE * min(one.sum(), other.sum()):
            shift = np.subtract(*(np.argwhere(brain).mean(0) for brain in (other, one)))
        apart = edge * step * float(np.linalg.norm(shift))
        told = f"its brain lies {apart:.0f} mm beside that of the reference scan {beside}"
        if apart > FARTHEST:
            fault = f"{told}, more than {FARTHEST:g} mm"
            raise InputError(fault + no_place(sources[name], sources[reference]), ELSEWHERE, path)
        if apart > APART:
            warnings.append(f"{path}: {told}")
    return warnings


def no_place(scan: MetaTensor | ScanFile, reference: MetaTensor | ScanFile) -> str:
    """What is to be added to a fault where the header of one of two scans tells no place: an affine without origin."""
    for which, image in (("its", scan), ("the reference scan's", reference)):
        affine = np.asarray(image.affine, dtype=np.float64)
        if np.array_equal(affine, np.diag(np.abs(affine.diagonal()))):
            return f": {which} header has an identity affine, which places it elsewhere than the scanner did"
    return ""


def brain_in(scan: np.ndarray, step: int, noise: float = 0.0) -> np.ndarray:
    """A coarse mask of what is not background in a scan ``(X, Y, Z)``, 0 in the background: every `step`-th voxel."""
    part = np.abs(scan[::step, ::step, ::step])
    if not part.any():
        return np.zeros(part.shape, bool)
    bright = part > max(RIM * np.percentile(part[part > 0], 99.5), noise)
    return largest(bright) if bright.any() else bright


def field_of(affine: Tensor, shape: tuple[int, ...], grid: Tensor, size: tuple[int, ...], step: int) -> np.ndarray:
    """Which voxels of a grid, every `step`-th of `size`, lie within a scan's field of view."""
    index = [torch.arange(0, n, step, dtype=torch.float64) for n in size]
    places = torch.stack([*torch.meshgrid(*index, indexing="ij"), torch.ones([len(axis) for axis in index])])
    voxels = (torch.linalg.solve(affine.double(), grid.double()) @ places.double().flatten(1))[:3]
    within = ((voxels >= -0.5) & (voxels <= torch.tensor(shape)[:, None] - 0.5)).all(0)
    inside: np.ndarray = within.reshape(places.shape[1:]).numpy()
    return inside


def shift_of(brain: np.ndarray, other: np.ndarray, field: np.ndarray, other_field: np.ndarray) -> np.ndarray:
    """By how many voxels a brain lies beside the other, per axis; all masks ``(X, Y, Z)`` on one grid.

    Along an axis both of its ends must lie beside those of the other, to the same side: one that shows more at both
    ends, as with the skull, is in its place. An end that a field of view cuts says nothing.
    """
    shift = np.zeros(3)
    for axis in range(3):
        ends, others = _ends(brain, field, axis), _ends(other, other_field, axis)
        first, last = (a - b for a, b in zip(ends, others))
        if np.sign(first) == np.sign(last):  # NaN, of an end that is cut, equals nothing
            shift[axis] = min(first, last, key=abs)
    return shift


def _ends(brain: np.ndarray, field: np.ndarray, axis: int) -> tuple[float, float]:
    """The first and the last plane with brain; NaN where the field of view may end there."""
    planes = np.moveaxis(brain, axis, 0)
    seen = np.moveaxis(field, axis, 0)
    there = np.flatnonzero(planes.any((1, 2)))
    ends = []
    for plane, beyond in ((there[0], there[0] - 1), (there[-1], there[-1] + 1)):
        cut = not 0 <= beyond < len(seen) or bool((planes[plane] & ~seen[beyond]).any())
        ends.append(np.nan if cut else float(plane))
    return ends[0], ends[1]
