"""Hide contrasts at random: every patient may lack another scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import product
from typing import Any

import torch
from monai.transforms import MapTransform, Randomizable
from torch import Tensor


def subsets(num_contrasts: int, complete: bool = True) -> list[tuple[int, ...]]:
    """The non-empty subsets of M contrasts as presence vectors, fewest first: 15 for M = 4, 14 if not complete."""
    all_of_them = [bits for bits in product((0, 1), repeat=num_contrasts) if any(bits) and (complete or not all(bits))]
    return sorted(all_of_them, key=lambda bits: (sum(bits), tuple(-b for b in bits)))


class RandHideContrastsd(MapTransform, Randomizable):
    """Draw which of a subject's contrasts the network may see.

    Every non-empty subset of the contrasts that exist is equally likely: 15 for a complete exam of four.

    Args:
        exists: key of the (M,) tensor that is 1 where the subject has the contrast.
        presence: key of the result, (M,), 1 where the contrast is shown; never more than exists.
    """

    def __init__(self, exists: str = "exists", presence: str = "presence") -> None:
        super().__init__(exists)
        self.presence = presence

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        exists: Tensor = data[self.keys[0]]
        there = exists.nonzero().flatten()
        choices = subsets(len(there))
        presence = torch.zeros_like(exists)
        presence[there] = torch.tensor(choices[self.R.randint(len(choices))], dtype=exists.dtype)
        return {**data, self.presence: presence}
