"""Objective of the autoencoder stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bundle.losses.structure_aware import FrequencyLoss


class AutoencoderLoss(nn.Module):
    """Mean absolute error + frequency_weight L_freq + kl_weight KL(q(z|x) || N(0, 1)).

    Args:
        kl_weight: small, as in latent diffusion: the latents are only kept from drifting apart.
        frequency_weight: weight of `FrequencyLoss`, which stands in for a perceptual loss (its weights would have to
            be downloaded).
    """

    def __init__(self, kl_weight: float = 1e-7, frequency_weight: float = 0.1) -> None:
        super().__init__()
        self.kl_weight, self.frequency_weight = kl_weight, frequency_weight
        self.frequency = FrequencyLoss()

    def forward(self, prediction: tuple[Tensor, Tensor, Tensor], truth: Tensor) -> Tensor:
        """(reconstruction, mu, sigma) as `AutoencoderKL` returns them, truth (B, 1, H, W) -> scalar."""
        reconstruction, mu, sigma = (p.float() for p in prediction)
        kl = 0.5 * (mu**2 + sigma**2 - torch.log(sigma**2) - 1).sum((1, 2, 3)).mean()
        loss = (reconstruction - truth).abs().mean() + self.kl_weight * kl
        return loss + self.frequency_weight * self.frequency(reconstruction, truth)
