"""Palette: conditional diffusion in pixel space (Saharia et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn

from bundle.networks.baselines.completion import Completion
from bundle.networks.sampler import dpm_solver, timesteps


class ConditionalUNet(nn.Module):
    """MONAI's `DiffusionModelUNet` on the noisy contrasts, the given ones and the presence maps, concatenated.

    Args:
        num_contrasts: M.
        channels, num_res_blocks, num_head_channels, norm_num_groups: as in `DiffusionModelUNet`; it attends on the
            last level only, since attention between all pixels of a slice is out of reach.
    """

    def __init__(
        self,
        num_contrasts: int,
        channels: Sequence[int] = (16, 32, 64, 96),
        num_res_blocks: int = 1,
        num_head_channels: int = 32,
        norm_num_groups: int = 8,
    ) -> None:
        super().__init__()
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=3 * num_contrasts,
            out_channels=num_contrasts,
            channels=channels,
            num_res_blocks=num_res_blocks,
            attention_levels=[False] * (len(channels) - 1) + [True],
            num_head_channels=num_head_channels,
            norm_num_groups=norm_num_groups,
            use_flash_attention=True,
        )

    def forward(self, x_t: Tensor, t: Tensor, given: Tensor) -> Tensor:
        """x_t (B, M, H, W), 0 where nothing is to be made; t (B,); given (B, 2M, H, W) -> (B, M, H, W)."""
        return self.unet(torch.cat([x_t, given], dim=1), timesteps=t)


def noise_of_volume(generator: torch.Generator, like: Tensor) -> Tensor:
    """The same noise for every slice, (B, M, H, W), drawn on the CPU so that it does not depend on the device."""
    return torch.randn(1, *like.shape[1:], generator=generator).to(like).expand_as(like)


class PixelDiffusion(Completion):
    """DDPM of all missing contrasts together, conditioned by concatenation on the available ones.

    It always starts from pure noise (`start_level` is not used); `num_steps` and `seed` are.

    Args:
        contrasts: names of the M contrasts, in channel order.
        denoiser: arguments of `ConditionalUNet` but for num_contrasts.
        num_train_timesteps: T; betas are linear from 0.0001 to 0.02 (Ho et al. 2020).
        num_steps, seed: of the sampling.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        contrasts: Sequence[str],
        denoiser: dict[str, object],
        num_train_timesteps: int = 1000,
        num_steps: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(contrasts)
        self.denoiser = ConditionalUNet(len(self.contrasts), **denoiser)  # type: ignore[arg-type]
        schedule = DDPMScheduler(num_train_timesteps, "linear_beta", beta_start=1e-4, beta_end=0.02)
        self.register_buffer("alphas_cumprod", schedule.alphas_cumprod.float(), persistent=False)
        self.num_steps, self.seed = num_steps, seed

    def make(self, image: Tensor, presence: Tensor) -> Tensor:
        """A sample of the missing contrasts, all (B, M, H, W)."""
        given, missing = torch.cat([image, presence], dim=1), 1 - presence

        def predict_clean(x_t: Tensor, step: int) -> Tensor:
            t = torch.full((len(x_t),), step, device=x_t.device)
            noise = self.denoiser(x_t * missing, t, given).to(x_t.dtype)
            alpha_bar = self.alphas_cumprod[step]
            # At the noisy end a small error of the noise leads far out of [-1, 1], in which the clean image lies.
            return ((x_t - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()).clamp(-1, 1)

        x_T = noise_of_volume(torch.Generator().manual_seed(self.seed), image)  # noqa: N806
        steps = timesteps(len(self.alphas_cumprod) - 1, self.num_steps)
        return (dpm_solver(predict_clean, x_T, self.alphas_cumprod, steps) + 1) / 2
