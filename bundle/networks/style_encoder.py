"""Style encoders E_sty and the mean style that stands in for a contrast that is missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StyleEncoder(nn.Sequential):
    """E_sty of the paper: (B, 1, H, W) -> a short vector (B, style_dim).

    Without any normalisation layer: it would remove the statistics that are the style.

    Args:
        channels: channels of the strided convolutions.
        style_dim: length of the style vector.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64), style_dim: int = 8) -> None:
        layers: list[nn.Module] = []
        for i, o in zip([1, *channels[:-1]], channels):
            layers += [nn.Conv2d(i, o, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.01)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], style_dim))


class StyleBank(nn.Module):
    """Running mean of each contrast's style: the style of an image nobody has seen.

    Args:
        num_contrasts: M.
        style_dim: length of a style vector.
        momentum: weight of the newest batch in the running mean.
    """

    mean: Tensor

    def __init__(self, num_contrasts: int, style_dim: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_contrasts, style_dim))

    @torch.no_grad()
    def update(self, style: Tensor, presence: Tensor) -> None:
        """Move the means towards a batch: style (B, M, d), presence (B, M); absent contrasts do not count."""
        p = presence.to(style.dtype).unsqueeze(-1)
        count = p.sum(0)
        batch_mean = (p * style).sum(0) / count.clamp(min=1)
        self.mean += self.momentum * (count > 0) * (batch_mean - self.mean)

    def forward(self, style: Tensor, presence: Tensor) -> Tensor:
        """A style for every contrast, (B, M, d): its own where present, the running mean where not."""
        return torch.where(presence.bool().unsqueeze(-1), style, self.mean.to(style.dtype))
