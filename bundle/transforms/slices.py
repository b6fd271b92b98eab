"""From prepared volumes to the slices that training and validation see."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor

from bundle.transforms.hide import subsets


class SplitPresenced(MapTransform):
    """Undo half of `StackContrastsd`: image (2M, ...) -> image (M, ...), float16, and `exists` (M,), 0 or 1.

    Half precision halves the cache on the disk; its step below 1 is 1/2048, finer than the 12 bits of a scanner.
    """

    def __init__(self, key: str = "image", exists: str = "exists") -> None:
        super().__init__(key)
        self.exists = exists

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image, presence = torch.as_tensor(data[self.keys[0]]).chunk(2)
        # A plain tensor: a MetaTensor comes back from the cache as one, and a batch cannot hold some of both.
        exists = convert_to_tensor(presence.flatten(1).amax(1), dtype=torch.float32, track_meta=False)
        return {**data, self.keys[0]: image.half(), self.exists: exists}


class MiddleSliced(MapTransform):
    """Of volumes of 1 + 2N slices the one in the middle, (c, H, W, 1 + 2N) -> (c, H, W).

    Args:
        keys: volumes.
        image: the one of them whose neighbours follow as further channels, see `slice_of`.
        exists: key of the contrasts that are there, (M,), of which those are kept that the slice shows.
        neighbours: N.
    """

    def __init__(self, keys: KeysCollection, image: str = "image", exists: str = "exists", neighbours: int = 0) -> None:
        super().__init__(keys)
        self.image, self.exists, self.neighbours = image, exists, neighbours

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        n = self.neighbours
        cut = {key: slice_of(data[key], n, n if key == self.image else 0) for key in self.keys}
        return {**data, **cut, self.exists: shown_in(cut[self.image], data[self.exists])}


def slice_of(volume: Tensor, z: int, neighbours: int) -> Tensor:
    """Slice z of a volume (c, H, W, D), then its neighbours as further channels: ((1 + 2 neighbours) c, H, W).

    The nearest come first, of two equally near the one below. Beyond the volume's ends its outermost slice is repeated.
    """
    places = [z, *(z + side * step for step in range(1, neighbours + 1) for side in (-1, 1))]
    return torch.cat([torch.as_tensor(volume)[..., min(max(k, 0), volume.shape[-1] - 1)] for k in places])


def shown_in(image: Tensor, exists: Tensor) -> Tensor:
    """Which of the contrasts that exist a slice shows: image (M [+ more], H, W), exists (M,) -> (M,), 0 or 1.

    A scan is 0 in slices that it does not reach or lacks: no truth and nothing to learn from. Where all are 0, in a
    window of air, nothing can be told, and all count that exist.
    """
    # plain: fresh volumes are MetaTensors, those from the cache are not, and a batch cannot hold some of both
    shown = exists * convert_to_tensor(image, track_meta=False)[: len(exists)].flatten(1).any(1)
    return shown if shown.any() else exists


class FixedSlicesd(MapTransform):
    """Cut a volume into evenly spaced axial slices, each with a fixed set of contrasts to see.

    Slice k sees the k-th of the subsets that leave something to synthesise, so that every validation asks the same
    questions. Slices that show a single contrast leave none and are left out; a subject with no others gives an empty
    list.

    Args:
        keys: volumes (c, H, W, D) to be cut.
        num_slices: slices per volume; a multiple of 14 asks each subset of four contrasts equally often.
        exists, presence: keys of the contrasts that are there and of those that are shown, (M,).
        image, neighbours: see `MiddleSliced`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_slices: int,
        exists: str = "exists",
        presence: str = "presence",
        image: str = "image",
        neighbours: int = 0,
    ) -> None:
        super().__init__(keys)
        self.num_slices, self.exists, self.presence = num_slices, exists, presence
        self.image, self.neighbours = image, neighbours

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        depth = data[self.first_key(dict(data))].shape[-1]
        # The outermost tenths of the brain hold little more than its rim.
        positions = np.linspace(0.1 * depth, 0.9 * (depth - 1), self.num_slices).round().astype(int)
        items = []
        for k, z in enumerate(positions):
            cut = {
                key: slice_of(data[key], int(z), self.neighbours if key == self.image else 0)
                for key in self.key_iterator(dict(data))
            }
            exists = shown_in(cut[self.image], data[self.exists])
            there = exists.nonzero().flatten()
            if choices := subsets(len(there), complete=False):
                presence = torch.zeros_like(exists)
                presence[there] = torch.tensor(choices[k % len(choices)], dtype=presence.dtype)
                items.append({**data, **cut, self.exists: exists, self.presence: presence})
        return items
