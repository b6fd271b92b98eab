"""A network for tests of everything around the network: a missing contrast is the average of those that are there."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AverageNetwork(nn.Module):
    """Obeys the contract of network_def; a sample is the average plus noise that depends on its seed.

    Args:
        contrasts: names of the C contrasts.
        seconds: how long a call takes at least.
    """

    targets: tuple[int, ...] | None = None

    def __init__(self, contrasts: Sequence[str], seconds: float = 0.0) -> None:
        super().__init__()
        self.count = len(contrasts)
        self.seconds = seconds
        self.gain = nn.Parameter(torch.ones(1))
        self.mode, self.num_steps, self.start_level, self.seed = "mean", 8, 0.3, 0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        image, presence = x[:, : self.count], x[:, self.count :]
        made = self.gain * image.sum(1, keepdim=True) / presence.sum(1, keepdim=True)
        if self.mode == "sample":
            noise = torch.randn(made.shape[2:], generator=torch.Generator().manual_seed(self.seed))
            made = made + 0.05 * noise.to(made)
        chosen = torch.tensor([self.targets is None or channel in self.targets for channel in range(self.count)])
        made = made.clamp(0, 1) * chosen[:, None, None].to(made)
        return torch.where(presence > 0, image, made)
