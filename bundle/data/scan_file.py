"""A scan that stays in its file, for those whose voxels would fill the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample, create_translate
from scipy import ndimage
from torch import Tensor

from bundle.data.background import Background
from bundle.data.checks import Header, check_header, load_nifti, mend

AT_ONCE = 2**24  # voxels that are dealt with at once: 0.07 GB as float32, and several times that to move them
SLAB = 2**22  # voxels of a slab of a larger volume


def slabs(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Where the slabs of a volume ``(X, Y, Z)`` begin and end along its last axis; a volume of `AT_ONCE` is one."""
    *sides, depth = shape
    if math.prod(shape) <= AT_ONCE:
        return [(0, depth)]
    step = max(1, SLAB // math.prod(sides))
    return [(start, min(start + step, depth)) for start in range(0, depth, step)]


def part_affine(affine: Tensor, index: Sequence[int]) -> Tensor:
    """The affine of a part of a volume that begins at a voxel."""
    return affine.double() @ torch.as_tensor(create_translate(3, index))


class ScanFile:
    """A scan in its file, read slab by slab along its last axis: memory does not grow with its size.

    Args:
        path: of a NIfTI file.
        header: what `check_header` says of it; None: it is asked.

    Attributes:
        shape, affine, meta: as of the MetaTensor ``(1, X, Y, Z)`` that the scan would be in memory.
        background: None: voxels are read as they are in the file; else those that are not finite are repaired, and the
            background is removed, see `check_image`.

    Raises:
        InputError: see `check_header`.
    """

    def __init__(self, path: str | Path, header: Header | None = None) -> None:
        header = check_header(path) if header is None else header
        self.shape = (1, *header.shape)
        self.affine = torch.as_tensor(header.affine)
        self.meta: dict[str, Any] = {"filename_or_obj": str(path)}
        self.background: Background | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.slabs()

    def slabs(self) -> Iterator[np.ndarray]:
        """One slab after the other, ``(X, Y, n)`` float32."""
        # held open: a .gz file is then inflated once, not from its beginning for every slab
        image = load_nifti(self.meta["filename_or_obj"], keep_file_open=True)
        for start, stop in slabs(self.shape[1:]):
            part = image.dataobj[:, :, start:stop]
            voxels = np.array(part, np.float32).reshape(*self.shape[1:3], stop - start)
            if self.background is not None:
                mend(voxels)
                self.background.remove(voxels)
            yield voxels

    def onto(self, affine: Tensor, shape: Sequence[int], mode: str = "bilinear", padding_mode: str = "zeros") -> Tensor:
        """The scan on another grid, ``(1, X', Y', Z')`` float32, as MONAI's `SpatialResample` has it.

        Args:
            affine: of that grid, (4, 4), voxel indices to mm in RAS.
            shape: of that grid, X', Y', Z'.
            mode, padding_mode: of `SpatialResample`.
        """
        resample = SpatialResample(mode=mode, padding_mode=padding_mode, dtype=np.float32)
        to_scan = torch.linalg.solve(self.affine, affine.double()).float().numpy()
        x, y, z = (axis.astype(np.float32) for axis in np.ogrid[tuple(map(slice, shape))])
        plane = to_scan[2, 0] * x + to_scan[2, 1] * y + (to_scan[2, 2] * z + to_scan[2, 3])
        result, last, first, kept = torch.zeros(1, *shape), self.shape[3] - 1, 0, None
        for slab in self.slabs():
            # with the last plane of the slab before, since a voxel between the two needs both
            piece = slab if kept is None else np.concatenate([kept, slab], axis=2)
            end, kept = first + piece.shape[2] - 1, slab[:, :, -1:]
            # beyond the first and the last plane of the scan their slabs decide, by padding
            owned = ((plane >= first) | (first == 0)) & ((plane < end) | (end == last))
            for box in ndimage.find_objects(owned.astype(np.uint8)):
                source = MetaTensor(torch.from_numpy(piece)[None], affine=part_affine(self.affine, (0, 0, first)))
                corner, size = [side.start for side in box], [side.stop - side.start for side in box]
                values = resample(source, part_affine(affine, corner), size)
                mine = torch.from_numpy(owned[box])
                result[0][box][mine] = cast(MetaTensor, values).as_tensor()[0][mine]
            first = end
        return result
