"""Segmentation loss L_seg on overlapping lesion regions, where a truth exists."""

from __future__ import annotations

import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn


class RegionLoss(nn.Module):
    """L_seg = Dice + binary cross-entropy over the (sample, region) pairs whose truth is known.

    MONAI's `DiceCELoss` takes a softmax over the channels, but whole tumour, tumour core and enhancing tumour overlap.
    """

    def __init__(self) -> None:
        super().__init__()
        # batch=True: most slices have no lesion, and the Dice of an empty slice says nothing.
        self.dice = DiceLoss(batch=True)

    def forward(self, logits: Tensor, regions: Tensor, valid: Tensor) -> Tensor:
        """logits, regions (B, R, H, W), valid (B, R), 1 where region R of that sample has a truth -> scalar."""
        logits, truth = logits.float(), regions.float()
        known = valid[:, :, None, None]
        # what is not known is left out of both sums of the Dice as 0, over all samples and regions at once
        found, there = ((image * known).flatten(0, 1)[:, None] for image in (logits.sigmoid(), truth))
        dice = self.dice(found, there) * (valid.sum() > 0)
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((2, 3)) * valid
        return dice + entropy.sum() / valid.sum().clamp(min=1)
