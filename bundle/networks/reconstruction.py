"""Reconstruction decoder D_rec: structure plus style gives an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class AdaIN(nn.Module):
    """Instance normalisation whose scale and shift come from the style: (1 + gamma(s)) IN(x) + beta(s)."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.affine = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, c, H, W), (B, d) -> (B, c, H, W)."""
        gamma, beta = self.affine(style).to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * self.norm(x) + beta


class AdaINResidual(nn.Module):
    """x + conv(act(AdaIN(conv(act(AdaIN(x))))))."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = AdaIN(channels, style_dim), AdaIN(channels, style_dim)
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, c, H, W), (B, d) -> (B, c, H, W)."""
        y = self.conv1(F.leaky_relu(self.norm1(x, style), 0.01))
        return x + self.conv2(F.leaky_relu(self.norm2(y, style), 0.01))


class ReconstructionDecoder(nn.Module):
    """D_rec(F_s, S_j) of the paper, one contrast's image.

    Args:
        channels: feature channels of the scales 1..L.
        style_dim: length of the style vector.
        skips: whether the fused structure F_1..F_{L-1} joins on the way up. The paper decodes F_s alone (`false`),
            which must carry every edge of the image at 1/8 of its side; the skips are the same modality-free structure.
    """

    def __init__(self, channels: Sequence[int], style_dim: int, skips: bool = True) -> None:
        super().__init__()
        coarse_to_fine = list(channels)[::-1]
        self.skips = skips
        self.bottleneck = AdaINResidual(coarse_to_fine[0], style_dim)
        self.reduce = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(coarse_to_fine[:-1], coarse_to_fine[1:]))
        self.refine = nn.ModuleList(AdaINResidual(c, style_dim) for c in coarse_to_fine[1:])
        self.out = nn.Conv2d(coarse_to_fine[-1], 1, 3, padding=1)

    def forward(self, structure: Tensor, scales: Sequence[Tensor], style: Tensor) -> Tensor:
        """F_s (B, c_L, h, w), F_1..F_L finest first, style (B, d) -> image (B, 1, H, W), not clipped."""
        x = self.bottleneck(structure, style)
        for reduce, refine, skip in zip(self.reduce, self.refine, list(scales[:-1])[::-1]):
            x = F.interpolate(reduce(x), size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = refine(x + skip if self.skips else x, style)
        return self.out(x)
