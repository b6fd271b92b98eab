"""MSG-LDM as one module: available contrasts in, complete exam out, the sampling loop inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from monai.networks.nets import AutoencoderKL
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn

from bundle.networks.disentanglement import Disentanglement, Structure
from bundle.networks.latent_denoiser import LatentDenoiser
from bundle.networks.sampler import add_noise, dpm_solver, timesteps

MODES = ("mean", "sample")


class MSGLDM(nn.Module):
    """Multiscale Structure-Guided Latent Diffusion Model (network_def of this bundle).

    `mode` chooses what a missing contrast becomes: "mean" is the reconstruction D_rec(F_s, mean style); "sample"
    encodes that reconstruction, adds noise up to `start_level` and lets the structure-guided diffusion remove it again
    in `num_steps` steps. With `start_level` 1 the process starts from pure noise, as in the paper. The noise of a slice
    follows from `seed` and the slice's number alone. `noise_depth` is the number of slices within which the noise
    becomes another: 1, the paper's form, is a noise of its own for each slice; 0 is one for all.

    Args:
        contrasts: names of the M contrasts, in channel order.
        autoencoder: arguments of MONAI's `AutoencoderKL`; one for all contrasts, 1 channel in and out.
        disentanglement: arguments of `Disentanglement` but for num_contrasts.
        diffusion: arguments of `LatentDenoiser` but for the channel counts that follow from the other two.
        num_train_timesteps: T; betas are scaled-linear from 0.0015 to 0.0195.
        mode, num_steps, start_level, seed, noise_depth: see above; attributes, which a caller may change.
    """

    latent_scale: Tensor
    alphas_cumprod: Tensor

    def __init__(
        self,
        contrasts: Sequence[str],
        autoencoder: Mapping[str, Any],
        disentanglement: Mapping[str, Any],
        diffusion: Mapping[str, Any],
        num_train_timesteps: int = 1000,
        mode: str = "mean",
        num_steps: int = 8,
        start_level: float = 0.02,
        seed: int = 0,
        noise_depth: int = 0,
    ) -> None:
        super().__init__()
        m = len(contrasts)
        self.contrasts = tuple(contrasts)
        self.autoencoder = AutoencoderKL(spatial_dims=2, in_channels=1, out_channels=1, **autoencoder)
        # The posterior starts narrow (sigma = 0.05): from MONAI's sigma near 1 the decoder first sees little but noise.
        nn.init.constant_(self.autoencoder.quant_conv_log_sigma.get_parameter("conv.bias"), -6.0)
        self.disentanglement = Disentanglement(m, **disentanglement)
        self.diffusion = LatentDenoiser(
            m, self.autoencoder.latent_channels, self.disentanglement.encoders.channels[-1], **diffusion
        )
        self.register_buffer("latent_scale", torch.ones(()))
        schedule = DDPMScheduler(num_train_timesteps, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0195)
        self.register_buffer("alphas_cumprod", schedule.alphas_cumprod.float(), persistent=False)
        self.mode, self.num_steps, self.start_level, self.seed = mode, num_steps, start_level, seed
        self.noise_depth = noise_depth
        self.targets: tuple[int, ...] | None = None

    @property
    def region_mask(self) -> bool:
        """Whether the input carries a region mask: then it has regions + 1 more channels."""
        return self.disentanglement.region_projection is not None

    @property
    def region_channels(self) -> int:
        """Number of input channels of the region mask, 0 without one."""
        return (self.disentanglement.regions + 1) * self.region_mask

    @property
    def in_channels(self) -> int:
        """Number of input channels: M images, M presence maps, the region mask, and M images for each neighbour."""
        return 2 * (1 + self.disentanglement.neighbours) * len(self.contrasts) + self.region_channels

    @property
    def reduction(self) -> int:
        """By how much the autoencoder reduces the sides of an image."""
        return 2 ** (len(cast(Sequence[int], self.autoencoder.encoder.channels)) - 1)

    def encode(self, image: Tensor) -> Tensor:
        """Scaled latents of single-contrast images: (B, 1, H, W) -> (B, c, H/f, W/f), standard deviation near 1.

        The posterior's mean, not a sample: its noise would only be a part of the latents' variance to unlearn.
        """
        return self.autoencoder.encode(image)[0] * self.latent_scale

    def decode(self, latent: Tensor) -> Tensor:
        """Inverse of `encode`: (B, c, H/f, W/f) -> (B, 1, H, W)."""
        return self.autoencoder.decode(latent / self.latent_scale)

    def encode_available(self, image: Tensor, presence: Tensor) -> Tensor:
        """Latents of the available contrasts, (B, M [+ more], H, W) -> (B, M, c, h, w), zeros where absent."""
        rows = presence.bool()
        encoded = self.encode(image[:, : rows.shape[1]][rows].unsqueeze(1))
        latents = encoded.new_zeros(*presence.shape, *encoded.shape[1:])
        latents[rows] = encoded
        return latents

    def forward(self, x: Tensor, positions: Tensor | None = None, made: Tensor | None = None) -> Tensor:
        """Complete an exam.

        Args:
            x: (B, 2M, H, W): M images in [0, 1], then M presence maps (1 where the contrast is there, constant over the
                slice); with a region mask also its regions and a map that is 1 where it is given; with neighbours
                also the M images of each of them, nearest first, below before above. H and W are multiples of 8.
            positions: (B,), numbers of the slices, for their noise; None: their places in the batch.
            made: (B, M, H, W) in [0, 1], a reconstruction of the missing contrasts that a sample starts from, where the
                caller has a better one than that of the slice alone.

        Returns:
            (B, M, H, W) in [0, 1]: the available contrasts as they came, the missing ones synthesised (those in
            `targets`, where that is set; the others stay 0).

        Raises:
            ValueError: wrong number of channels, a side that is no multiple of 8, or a sample without any contrast.
        """
        m = len(self.contrasts)
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"x: {x.shape[1]} channels, but {self.contrasts} make {self.in_channels} (images, then presence maps)."
            )
        if self.mode not in MODES:
            raise ValueError(f"mode: {self.mode!r} must be one of {MODES}.")
        image, presence, region = read_exam(x, m, self.region_channels)
        if not presence.any(1).all():
            raise ValueError("x: a sample has no contrast at all (its presence maps are all zero).")
        wanted = 1 - presence
        if self.targets is not None:
            chosen = torch.tensor([j in self.targets for j in range(m)], device=x.device)
            wanted = wanted * chosen
        structure = self.disentanglement.encode_structure(image, presence, region)
        if made is None:
            made = self.reconstruct(structure, wanted).to(image.dtype)
        if self.mode == "sample":
            made = self.sample(image, presence, wanted, structure, made, positions)
        return torch.where(presence.bool()[:, :, None, None], image[:, :m], made.clamp(0, 1))

    def reconstruct(self, structure: Structure, wanted: Tensor) -> Tensor:
        """D_rec(F_s, mean style) of the wanted contrasts, (B, M, H, W) in [0, 1]."""
        return self.disentanglement.reconstruct_unseen(structure, wanted).clamp(0, 1)

    def sample(
        self,
        image: Tensor,
        presence: Tensor,
        wanted: Tensor,
        structure: Structure,
        made: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Diffusion sample of the wanted contrasts, started from their reconstruction `made` (B, M, H, W)."""
        available = self.encode_available(image, presence)
        start = round(self.start_level * (len(self.alphas_cumprod) - 1))
        steps = timesteps(start, self.num_steps)
        result = torch.zeros_like(made)
        noise = self._noise(available[:, 0].float(), positions)
        for j in range(len(self.contrasts)):
            rows = wanted[:, j].nonzero().flatten()
            if not rows.numel():
                continue
            mean = self.encode(made[rows, j : j + 1]).float()
            z_t = add_noise(mean, noise[rows], self.alphas_cumprod[start])
            condition = self.diffusion.condition(structure.fused[rows], available[rows], presence[rows], mean)
            z_0 = dpm_solver(partial(self._clean, j, condition), z_t, self.alphas_cumprod, steps)
            result[rows, j] = self.decode(z_0).to(made.dtype).squeeze(1)
        return result

    def _clean(self, target: int, condition: Tensor, z_t: Tensor, t: int) -> Tensor:
        """The clean latent of contrast `target` as the denoiser sees it at step t, (B, c, h, w) -> (B, c, h, w)."""
        step, contrast = (torch.full((len(z_t),), n, device=z_t.device, dtype=torch.long) for n in (t, target))
        prediction = self.diffusion(z_t, step, contrast, condition).to(z_t.dtype)
        return self.diffusion.clean(prediction, z_t, self.alphas_cumprod[t])

    def _noise(self, like: Tensor, positions: Tensor | None) -> Tensor:
        """Noise for the slices of latents (B, c, h, w), drawn on the CPU so that it does not depend on the device.

        Every `noise_depth` slices another draw n_i is reached, cos(u) n_i + sin(u) n_(i+1) with u from 0 to pi / 2: the
        variance stays 1 in between.
        """
        numbers = torch.arange(len(like)) if positions is None else positions.cpu()
        place = numbers / self.noise_depth if self.noise_depth else torch.zeros(len(like))
        i = place.long()
        u = (place - i).view(-1, 1, 1, 1) * torch.pi / 2
        generator = torch.Generator().manual_seed(self.seed)
        draws = torch.stack([torch.randn(like.shape[1:], generator=generator) for _ in range(int(i.max()) + 2)])
        return (u.cos() * draws[i] + u.sin() * draws[i + 1]).to(like)


def read_exam(x: Tensor, m: int, region_channels: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The parts of the input of `MSGLDM`.

    Args:
        x: (B, 2m + region_channels + 2 neighbours m, H, W).
        m: number of contrasts.
        region_channels: of the region mask, 0 without one.

    Returns:
        Images (B, (1 + 2 neighbours) m, H, W), zero where absent; presence (B, m), 0 or 1; the region mask, or None.
    """
    around = 2 * m + region_channels
    presence = (x[:, m : 2 * m].amax((2, 3)) > 0).to(x.dtype)
    image = torch.cat([x[:, :m], x[:, around:]], dim=1) if x.shape[1] > around else x[:, :m]
    there = presence.bool().repeat(1, image.shape[1] // m)[:, :, None, None]
    region = x[:, 2 * m : around] if region_channels else None
    return torch.where(there, image, torch.zeros_like(image)), presence, region
