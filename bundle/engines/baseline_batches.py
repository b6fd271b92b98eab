"""What the baselines make of a batch of slices: MONAI `prepare_batch` functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bundle.engines.batches import Batch, RegressionBatch
from bundle.networks.baselines.adversarial_diffusion import AdversarialDiffusion
from bundle.networks.baselines.pixel_diffusion import PixelDiffusion
from bundle.networks.sampler import add_noise


class ExamBatch(RegressionBatch):
    """The U-Net's input and truth, and with the truth what a discriminator is to see (pix2pix, MM-GAN, ResViT).

    Args:
        curriculum: hide few contrasts first: one at most in the beginning, any number from the middle of the training
            on (Sharma & Hamarneh 2020).
    """

    def __init__(self, curriculum: bool = False) -> None:
        self.curriculum = curriculum

    def __call__(
        self, batch: Batch, device: Any = None, non_blocking: bool = False, progress: float = 1.0, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.curriculum:
            most = 1 + int(2 * progress * max(batch["presence"].shape[1] - 2, 0))
            batch = {**batch, "presence": show_again(batch["exists"], batch["presence"], most)}
        given, truth = super().__call__(batch, device, non_blocking)
        return given, {**truth, "given": given, "presence": given[:, given.shape[1] // 2 :].amax((2, 3))}


def show_again(exists: Tensor, presence: Tensor, most: int) -> Tensor:
    """Show hidden contrasts, drawn at random, until at most `most` are hidden: (B, M), (B, M) -> (B, M)."""
    hidden = exists * (1 - presence)
    place = (hidden * (1 - torch.rand_like(hidden))).argsort(1, descending=True).argsort(1)
    return presence + hidden * (place >= most)


class NoisyBatch(ExamBatch):
    """Noisy contrasts in the place of the hidden ones; from them and the given ones the noise is to be predicted
    (Palette) or the clean contrasts (SynDiff).

    Args:
        model: its noise schedule is used.
        predict_noise: what is to be predicted.
    """

    def __init__(self, model: PixelDiffusion | AdversarialDiffusion, predict_noise: bool) -> None:
        super().__init__()
        self.model, self.predict_noise = model, predict_noise

    def __call__(  # type: ignore[override]
        self, batch: Batch, device: Any = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, ...], dict[str, Any]]:
        given, truth = super().__call__(batch, device, non_blocking)
        x_0 = 2 * truth["image"] - 1
        noise = torch.randn_like(x_0)
        t = torch.randint(len(self.model.alphas_cumprod), (len(x_0),), device=x_0.device)
        x_t = add_noise(x_0, noise, self.model.alphas_cumprod[t]) * truth["counted"][:, :, None, None]
        wanted = noise if self.predict_noise else truth["image"]
        return x_t, {**truth, "image": wanted, "x_t": x_t, "t": t}, (t, given), {}
