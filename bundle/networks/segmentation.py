"""Segmentation decoder D_seg: shared by all contrasts, it keeps the fused structure free of style."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn


class SegmentationDecoder(nn.Module):
    """D_seg of the paper on F_1..F_L.

    Args:
        channels: feature channels of the scales 1..L.
        regions: number of (overlapping) regions, by default whole tumour, tumour core, enhancing tumour.
        norm: normalisation of the hidden layers. The last layer has none: behind one, a region could not be empty.
    """

    def __init__(
        self, channels: Sequence[int], regions: int = 3, norm: str | tuple = ("instance", {"affine": True})
    ) -> None:
        super().__init__()
        coarse_to_fine = list(channels)[::-1]
        self.reduce = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(coarse_to_fine[:-1], coarse_to_fine[1:]))
        self.refine = nn.ModuleList(
            Convolution(2, c, c, norm=norm, act=("leakyrelu", {"negative_slope": 0.01})) for c in coarse_to_fine[1:]
        )
        self.out = nn.Conv2d(coarse_to_fine[-1], regions, 1)

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """F_1..F_L, finest first -> logits (B, regions, H, W)."""
        x = scales[-1]
        for reduce, refine, skip in zip(self.reduce, self.refine, list(scales[:-1])[::-1]):
            x = F.interpolate(reduce(x), size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = refine(x + skip)
        return self.out(x)
