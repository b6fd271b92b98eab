"""Plain U-Net regression: the baseline that any synthesis method has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn


class UNetRegression(nn.Module):
    """MONAI's `BasicUNet` on the stacked contrasts and presence maps; it obeys the contract of network_def.

    Args:
        contrasts: names of the M contrasts, in channel order.
        features: channels of the U-Net.
    """

    def __init__(self, contrasts: Sequence[str], features: Sequence[int] = (16, 32, 64, 128, 256, 16)) -> None:
        super().__init__()
        self.contrasts = tuple(contrasts)
        m = len(self.contrasts)
        self.unet = BasicUNet(spatial_dims=2, in_channels=2 * m, out_channels=m, features=tuple(features))
        # Part of the contract; a regression has one mode only and makes all contrasts at once.
        self.mode, self.num_steps, self.start_level, self.seed = "mean", 1, 1.0, 0
        self.targets: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2M, H, W) -> (B, M, H, W): the available contrasts as they came, the missing ones predicted.

        In training the prediction is not clipped, so that the loss keeps its gradient, and no contrast passes through.
        """
        m = len(self.contrasts)
        image, presence = x[:, :m] * x[:, m:], x[:, m:]
        made = self.unet(torch.cat([image, presence], dim=1)).to(x.dtype)
        return made if self.training else torch.where(presence > 0, image, made.clamp(0, 1))
