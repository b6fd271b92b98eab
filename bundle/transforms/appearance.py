"""Vary how the scans look, as scanners and protocols do, without touching the anatomy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrast,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    Randomizable,
    RandScaleIntensity,
)


class RandAppearanced(MapTransform, Randomizable):
    """Change gamma, gain, bias field, noise and sharpness of each contrast independently.

    Zeros (background) stay zero and the result is clipped to [0, 1]. The changed copy is what the network sees; what
    it is to make of a hidden contrast stays as it was, since nothing in the input tells how that scanner would differ.

    Args:
        key: image ((1 + 2 neighbours) M, H, W) in [0, 1]; the slices of a contrast are changed alike but for the noise.
        result: key of the changed copy.
        gamma: range of the exponent.
        gain: largest relative change of the scale.
        bias: largest coefficient of the polynomial bias field.
        noise: largest standard deviation of the Gaussian noise.
        prob: probability of each change, per contrast.
        neighbours: slices on either side that follow the M contrasts as further channels, see `slice_of`.
    """

    def __init__(
        self,
        key: str = "image",
        result: str = "seen",
        gamma: tuple[float, float] = (0.7, 1.5),
        gain: float = 0.1,
        bias: float = 0.1,
        noise: float = 0.03,
        prob: float = 0.5,
        neighbours: int = 0,
    ) -> None:
        super().__init__(key)
        self.result, self.slices = result, 1 + 2 * neighbours
        self.change = Compose(
            [
                RandAdjustContrast(prob=prob, gamma=gamma),
                RandScaleIntensity(factors=gain, prob=prob),
                RandBiasField(degree=2, coeff_range=(0.0, bias), prob=prob),
                RandGaussianSmooth(sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), prob=prob / 4),
                RandGaussianNoise(std=noise, prob=prob),
            ]
        )

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandAppearanced:
        self.change.set_random_state(seed, state)
        super().set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = torch.as_tensor(data[self.keys[0]])
        contrasts = image.unflatten(0, (self.slices, -1)).unbind(1)
        changed = [self.change(one).clamp(0, 1) * (one > 0) if one.any() else one for one in contrasts]
        return {**data, self.result: torch.stack([torch.as_tensor(one) for one in changed], dim=1).flatten(0, 1)}
