"""Multi-Modal Structural Feature Fusion: a gated sum over the contrasts that are there."""

from __future__ import annotations

from typing import cast

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn


class MMSF(nn.Module):
    r"""F_l = Fusion(sum_j w_j S_j),  w_j = sigmoid(g(S_j, mean_k S_k, n))   (MSG-LDM, Sec. 2.2).

    Sum and mean run over the available contrasts alone, so an absent one contributes exactly nothing; n is the fraction
    that is available. The gate g is the same function for every contrast: the block has no order among them and as many
    parameters for two as for six, and it can close (w_j -> 0).

    Args:
        channels: feature channels c of this scale.
        norm: normalisation after the fusing convolution, as MONAI names it; None: none.
    """

    def __init__(self, channels: int, norm: str | tuple | None = ("instance", {"affine": True})) -> None:
        super().__init__()
        self.gate_own = nn.Conv2d(channels, 1, kernel_size=1)
        self.gate_context = nn.Conv2d(channels + 1, 1, kernel_size=1)
        self.fusion = Convolution(2, channels, channels, act=("leakyrelu", {"negative_slope": 0.01}), norm=norm)

    def gates(self, structure: Tensor, sample: Tensor, presence: Tensor) -> Tensor:
        """w_j of the available contrasts, in [0, 1]: (N, 1, H, W); arguments as in `forward`."""
        b, (h, w) = presence.shape[0], structure.shape[2:]
        count = presence.sum(1).clamp(min=1).to(structure.dtype).view(b, 1, 1, 1)
        mean = _sum_per_sample(structure, sample, b) / count
        fraction = (count / presence.shape[1]).expand(b, 1, h, w)
        context = _project(self.gate_context, torch.cat([mean, fraction], dim=1))
        return (_project(self.gate_own, structure) + context[sample]).sigmoid()

    def forward(self, structure: Tensor, sample: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse one scale.

        Args:
            structure: S_j of this scale for the N available (sample, contrast) pairs, (N, c, H, W).
            sample: (N,), the sample in 0..B-1 that each of them belongs to.
            presence: (B, M), 1 where a contrast is there; N ones.

        Returns:
            F_l (B, c, H, W) and the gates (N, 1, H, W).
        """
        w = self.gates(structure, sample, presence)
        return self.fusion(_sum_per_sample(w * structure, sample, presence.shape[0])), w


def _project(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product: to a single channel, CPUs take a quarter of the time for that."""
    bias = cast(Tensor, layer.bias)
    return (layer.weight.flatten(1) @ features.flatten(2) + bias[:, None]).unflatten(2, features.shape[2:])


def _sum_per_sample(features: Tensor, sample: Tensor, num_samples: int) -> Tensor:
    return features.new_zeros(num_samples, *features.shape[1:]).index_add(0, sample, features)
