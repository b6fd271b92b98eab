"""Cut the axial slices to the size the network works on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import Crop, InvertibleTransform, MapTransform, Pad


class CropToBraind(MapTransform, InvertibleTransform):
    """Crop or zero-pad in plane to ``size`` x ``size`` voxels around the middle of the brain's box.

    The depth stays, unless it is above ``size``: then the neck, or air, is cut off alike. A box that does not fit makes
    the volume larger, to the next multiple of ``multiple``, along that axis only. One voxel beside the box has to fit.

    Args:
        keys: volumes ``(C, X, Y, Z)`` on one grid; missing ones are skipped. Each keeps what inverts it.
        mask: key of the brain mask ``(1, X, Y, Z)``.
        size: edge of a slice in voxels.
        multiple: larger sides are a multiple of this many voxels.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "brain", "label"),
        mask: str = "brain",
        size: int = 192,
        multiple: int = 16,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.mask = mask
        self.size = size
        self.multiple = multiple
        self.crop = Crop()
        self.pad = Pad()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        slices, widths = self.window(d[self.mask][0].numpy())
        for key in self.key_iterator(d):
            d[key] = self.pad(self.crop(d[key], slices=slices), to_pad=widths)
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring the volumes back to the size they had; what was cut off is 0. A slab (`slab_of`) stays as it is."""
        d = dict(data)
        for key in self.key_iterator(d):
            if d[key].applied_operations:
                d[key] = self.crop.inverse(self.pad.inverse(d[key]))
        return d

    def window(self, brain: np.ndarray) -> tuple[tuple[slice, ...], Any]:
        """What to crop, and then to pad per axis (channels first), so that the brain is in the middle."""
        slices, widths = [], [(0, 0)]
        axes = (0, 1, 2) if brain.shape[2] > self.size else (0, 1)
        for axis in axes:
            line = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
            first, last = int(line[0]), int(line[-1])
            needed = last - first + 1 + 2  # what is cut through is 0, so that it stays so beyond
            size = self.size if needed <= self.size else -(-needed // self.multiple) * self.multiple
            start = (first + last + 1 - size) // 2
            end, length = start + size, brain.shape[axis]
            slices.append(slice(max(start, 0), min(end, length)))
            widths.append((max(-start, 0), max(end - length, 0)))
        if 2 not in axes:
            slices.append(slice(None))
            widths.append((0, 0))
        return tuple(slices), tuple(widths)
