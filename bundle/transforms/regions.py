"""Lesion regions of a label volume, and which of them the label can tell."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform

from bundle.data.labels import regions


class RegionsOfLabeld(MapTransform):
    """Make `regions` (3, X, Y, Z), uint8: whole tumour, tumour core, enhancing tumour, and `valid` (3,), 1 where known.

    A subject without a label has empty regions of which none is valid.

    Args:
        label: key of the label volume (1, X, Y, Z), may be missing; removed.
        like: key of a volume that gives the shape.
    """

    def __init__(self, label: str = "label", like: str = "image") -> None:
        super().__init__(label, allow_missing_keys=True)
        self.like = like

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        label = d.pop(self.keys[0], None)
        if label is None:
            return {**d, "regions": torch.zeros(3, *d[self.like].shape[1:], dtype=torch.uint8), "valid": torch.zeros(3)}
        found, valid = regions(torch.as_tensor(label)[0], d.get("label_convention", "auto"))
        return {**d, "regions": found, "valid": valid.float()}
