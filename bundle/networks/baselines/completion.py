"""What all baselines share: the contract of network_def."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Completion(nn.Module, ABC):
    """A network that completes an exam; what is made of the missing contrasts is left to `make`.

    `mode`, `num_steps`, `start_level`, `seed` and `targets` are attributes that a caller sets; a method takes what it
    has a use for. All missing contrasts are made at once, whatever `targets` says.

    Args:
        contrasts: names of the M contrasts, in channel order.
    """

    def __init__(self, contrasts: Sequence[str]) -> None:
        super().__init__()
        self.contrasts = tuple(contrasts)
        self.mode, self.num_steps, self.start_level, self.seed = "mean", 1, 1.0, 0
        self.targets: tuple[int, ...] | None = None

    @abstractmethod
    def make(self, image: Tensor, presence: Tensor) -> Tensor:
        """Available contrasts, zeros where missing, and presence maps, both (B, M, H, W) -> all contrasts, the same."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2M, H, W) -> (B, M, H, W): the available contrasts as they came, the missing ones made, in [0, 1].

        In training the prediction is not clipped, so that the loss keeps its gradient, and no contrast passes through.
        """
        m = len(self.contrasts)
        presence = x[:, m:]
        image = torch.where(presence > 0, x[:, :m], torch.zeros_like(presence))
        made = self.make(image, presence).to(x.dtype)
        return made if self.training else torch.where(presence > 0, image, made.clamp(0, 1))


class Generator(Completion):
    """One pass of an image-to-image network (U-Net regression, pix2pix, MM-GAN, ResViT).

    Args:
        contrasts: names of the M contrasts, in channel order.
        network: (B, M or 2M, H, W) -> (B, M, H, W).
        presence_maps: give it the presence maps, too. MM-GAN has to see from the zeros which contrasts are missing.
    """

    def __init__(self, contrasts: Sequence[str], network: nn.Module, presence_maps: bool = True) -> None:
        super().__init__(contrasts)
        self.network, self.presence_maps = network, presence_maps

    def make(self, image: Tensor, presence: Tensor) -> Tensor:
        return self.network(torch.cat([image, presence], dim=1) if self.presence_maps else image)
