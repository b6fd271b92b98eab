"""ALDM as one module: available contrasts in, complete exam out, translation and sampling inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn

from bundle.networks.ms_spade import MSSPADE
from bundle.networks.sampler import add_noise, dpm_solver, timesteps
from bundle.networks.target_denoiser import TargetDenoiser
from bundle.networks.vector_quantised_autoencoder import VectorQuantisedAutoencoder

MODES = ("mean", "sample")


class ALDM(nn.Module):
    """Adaptive Latent Diffusion Model (Kim & Park, WACV 2024): whole volumes, any source contrast to any target.

    The source is encoded, MS-SPADE makes its latent target-like, and the diffusion UNet, which sees that latent,
    closes the gap to the target's. `mode` "mean" decodes the target-like latent without diffusion; "sample" adds noise
    to it up to `start_level` and removes it again in `num_steps` steps. With `start_level` 1 it starts from pure noise,
    as in the paper.

    Where several sources are available, each makes its own prediction of the target from the same noise, and the
    result is their mean, voxel by voxel: of those whose scan shows the slice, each with the same weight.

    Args:
        contrasts: names of the M contrasts, in channel order.
        autoencoder: arguments of `VectorQuantisedAutoencoder`.
        ms_spade: arguments of `MSSPADE` but for what follows from the others; None: the source's own latent takes the
            place of the target-like one (the paper's Table 3 b).
        diffusion: arguments of `TargetDenoiser`, likewise.
        num_train_timesteps: T; betas are scaled-linear from 0.0015 to 0.0195.
        mode, num_steps, start_level, seed: see above; attributes, so that a caller may change them.
    """

    latent_scale: Tensor
    alphas_cumprod: Tensor

    def __init__(
        self,
        contrasts: Sequence[str],
        autoencoder: Mapping[str, Any],
        ms_spade: Mapping[str, Any] | None,
        diffusion: Mapping[str, Any],
        num_train_timesteps: int = 1000,
        mode: str = "sample",
        num_steps: int = 20,
        start_level: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        m = len(contrasts)
        self.contrasts = tuple(contrasts)
        self.autoencoder = VectorQuantisedAutoencoder(**autoencoder)
        c = self.autoencoder.latent_channels
        self.ms_spade = None if ms_spade is None else MSSPADE(m, c, **ms_spade)
        self.diffusion = TargetDenoiser(m, c, **diffusion)
        self.register_buffer("latent_scale", torch.ones(()))
        schedule = DDPMScheduler(num_train_timesteps, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0195)
        self.register_buffer("alphas_cumprod", schedule.alphas_cumprod.float(), persistent=False)
        self.mode, self.num_steps, self.start_level, self.seed = mode, num_steps, start_level, seed
        self.targets: tuple[int, ...] | None = None

    @property
    def divisor(self) -> int:
        """The sides of a volume are multiples of this many voxels."""
        return self.autoencoder.factor * self.diffusion.divisor

    def encode(self, image: Tensor) -> Tensor:
        """Scaled latents of single-contrast volumes: (B, 1, H, W, D) -> (B, c, h, w, d), standard deviation near 1."""
        return self.autoencoder.encode(image)[0] * self.latent_scale

    def decode(self, latent: Tensor) -> Tensor:
        """Inverse of `encode`: (B, c, h, w, d) -> (B, 1, H, W, D)."""
        return self.autoencoder.decode(latent / self.latent_scale)

    def target_like(self, latent: Tensor, target: Tensor) -> Tensor:
        """z_src^tar of source latents (B, c, h, w, d) and targets (B,)."""
        return latent if self.ms_spade is None else self.ms_spade(latent, target)

    def forward(self, x: Tensor) -> Tensor:
        """Complete an exam.

        Args:
            x: (B, 2M, H, W, D): M volumes in [0, 1], then M presence maps, 1 where the contrast is there and 0 in what
                its scan does not reach or lacks. Each side is a multiple of `divisor`.

        Returns:
            (B, M, H, W, D) in [0, 1]: the available contrasts as they came, the missing ones synthesised (those in
            `targets`, where that is set; the others stay 0).

        Raises:
            ValueError: wrong number of channels, a side that is no multiple of `divisor`, an unknown mode, or a sample
                without any contrast.
        """
        m = len(self.contrasts)
        if x.ndim != 5 or x.shape[1] != 2 * m or any(side % self.divisor for side in x.shape[2:]):
            raise ValueError(
                f"x: {tuple(x.shape)}, must be (B, {2 * m}, H, W, D) with sides that are multiples of {self.divisor}."
            )
        if self.mode not in MODES:
            raise ValueError(f"mode: {self.mode!r} must be one of {MODES}.")
        presence = x[:, m:].amax((2, 3, 4)) > 0
        result = torch.where(presence[:, :, None, None, None], x[:, :m], torch.zeros_like(x[:, :m]))
        for sample in range(len(x)):
            given = presence[sample]
            sources = given.nonzero().flatten().tolist()
            if not sources:
                raise ValueError("x: a sample has no contrast at all (its presence maps are all zero).")
            wanted = [j for j in range(m) if not given[j] and (self.targets is None or j in self.targets)]
            for source, share in zip(sources, shares(x[sample, m:][sources])):
                made = self.translate(x[sample, source][None, None], wanted)
                for j, image in zip(wanted, made):
                    result[sample, j] += share * image
        return result

    def translate(self, image: Tensor, targets: Sequence[int]) -> list[Tensor]:
        """One volume (1, 1, H, W, D) in [0, 1], turned into each of the target contrasts: (H, W, D) each, in [0, 1]."""
        source = self.encode(image)
        return [self.decode(self.translate_latent(source, j))[0, 0].to(image.dtype).clamp(0, 1) for j in targets]

    def rebuild(self, x: Tensor) -> Tensor:
        """Encode and decode the available contrasts of an exam as `forward` takes it: the ceiling of every translation.

        Returns:
            (B, M, H, W, D) in [0, 1]; 0 where a contrast is missing.
        """
        m = len(self.contrasts)
        result = torch.zeros_like(x[:, :m])
        for sample, j in (x[:, m:].amax((2, 3, 4)) > 0).nonzero().tolist():
            made = self.decode(self.encode(x[sample, j][None, None]))
            result[sample, j] = made[0, 0].to(x.dtype).clamp(0, 1)
        return result

    def translate_latent(self, source: Tensor, target: int) -> Tensor:
        """Latents (B, c, h, w, d) of any contrast -> those of the target, by the current mode."""
        labels = torch.full((len(source),), target, device=source.device, dtype=torch.long)
        like = self.target_like(source, labels).float()
        if self.mode == "mean":
            return like
        start = round(self.start_level * (len(self.alphas_cumprod) - 1))
        z_t = add_noise(like, self._noise(like), self.alphas_cumprod[start])
        steps = timesteps(start, self.num_steps)
        return dpm_solver(partial(self._clean, labels, like), z_t, self.alphas_cumprod, steps)

    def _clean(self, labels: Tensor, like: Tensor, z_t: Tensor, t: int) -> Tensor:
        """The clean latent as the denoiser sees it at step t, (B, c, h, w, d) -> (B, c, h, w, d)."""
        prediction = self.diffusion(z_t, torch.full_like(labels, t), labels, like).to(z_t.dtype)
        return self.diffusion.clean(prediction, z_t, self.alphas_cumprod[t])

    def _noise(self, like: Tensor) -> Tensor:
        """Noise of the seed, the same for every sample, source and target; drawn on the CPU on every device."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(1, *like.shape[1:], generator=generator).to(like).expand_as(like)


def shares(presence: Tensor) -> Tensor:
    """The weight of each of N sources in their mean, by their presence maps: (N, H, W, D) -> (N, H, W, D), sum 1.

    Where no source is there, all have the same.
    """
    weights = torch.where(presence.any(0), presence, torch.ones_like(presence))
    return weights / weights.sum(0)
