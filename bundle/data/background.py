"""Find a scan's background, and bring the scan to its plain form: 0 in the background, the brain above it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

IN_PLANE = ndimage.generate_binary_structure(2, 1)[..., None]  # a voxel's neighbours along the first two axes
EQUAL = 1e-5  # of the scan's range of intensities: what differs less is one constant
NOISE = 0.05  # of that range: the noise of a background stays within it
SHARE = 0.15  # of the volume's border; of a slab cut through the brain, the background has at least a fifth


@dataclass(frozen=True)
class Background:
    """What a scan shows outside the head, and how its voxels become those of its plain form.

    Attributes:
        value: intensity of the background in the file.
        offset: intensity in the file that is 0 in the plain form; below `value` where the brain is darker than that.
        equal: intensities that differ less from `value` are the background.
        noise: magnitude that the background's noise reaches in the plain form; 0 where the background is constant.
        overshoots: whether what is below 0 in the plain form is a spline's overshoot, and becomes 0.
    """

    value: float = 0.0
    offset: float = 0.0
    equal: float = 0.0
    noise: float = 0.0
    overshoots: bool = False

    def remove(self, voxels: np.ndarray) -> None:
        """Bring voxels, float32 as in the file, to the plain form, in place."""
        if self.offset != self.value:
            outside = np.abs(voxels - np.float32(self.value)) <= self.equal
            # single voxels of the brain may have that value, too; within planes, so that slabs are treated alike
            core = ndimage.binary_opening(outside, IN_PLANE)
            outside = ndimage.binary_propagation(core, IN_PLANE, mask=outside)
            voxels -= np.float32(self.offset)
            voxels[outside] = 0
        elif self.offset:
            voxels -= np.float32(self.offset)
        if self.overshoots:
            voxels[voxels < 0] = 0


class Border:
    """The voxels of the six faces of a volume that comes in slabs ``(X, Y, n)`` along its last axis; edges twice."""

    def __init__(self) -> None:
        self.faces: list[np.ndarray] = []
        self.last: np.ndarray | None = None

    def add(self, slab: np.ndarray) -> None:
        """Take the faces of the next slab; copies, so that the slab need not stay in memory."""
        faces = [slab[0], slab[-1], slab[:, 0], slab[:, -1]]
        self.faces += [face.flatten() for face in ([slab[:, :, 0], *faces] if self.last is None else faces)]
        self.last = slab[:, :, -1].flatten()

    @property
    def voxels(self) -> np.ndarray:
        """All of them, ``(n,)``; at least one slab must have been added."""
        return np.concatenate([*self.faces, *([] if self.last is None else [self.last])])


def find_background(border: np.ndarray, lowest: float, highest: float) -> tuple[Background, bool]:
    """The background by the most frequent intensity of a volume's border, and whether it is a constant.

    Where noise is all around, its lowest intensity counts, unless it lies about 0, as that of magnitude images does.
    Without such a border, as where the field of view ends inside the head, the background is 0.

    Args:
        border: the voxels of a `Border`; finite.
        lowest, highest: of the volume.
    """
    reach = highest - lowest
    border = np.sort(border.astype(np.float64))
    ends = np.searchsorted(border, border + EQUAL * reach, side="right")
    first = int(np.argmax(ends - np.arange(border.size)))
    values, counts = np.unique(border[first : ends[first]], return_counts=True)
    value = float(values[counts.argmax()])
    near = border[np.abs(border - value) <= NOISE * reach]
    if ends[first] - first >= max(SHARE * border.size, near.size / 2):
        return Background(value, value, EQUAL * reach), True
    if near.size < SHARE * border.size or value - lowest > NOISE * reach:
        return Background(), False
    start = 0.0 if abs(value) <= NOISE * reach else lowest
    return Background(start, start, noise=max(float(np.percentile(near, 99)) - start, start - lowest)), False
