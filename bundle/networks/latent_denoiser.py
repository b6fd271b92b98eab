"""Latent diffusion UNet guided by the fused structure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from bundle.networks.denoiser import Denoiser


class LatentDenoiser(Denoiser):
    """The network of the reverse process given F_s  (MSG-LDM, eq. 1), for one target contrast at a time.

    The target is told by a class embedding. The condition is concatenated to the noisy latent: F_s, projected and
    brought to the latent's grid, the latents of the available contrasts (zeros where missing), the presence mask, and
    the latent of the reconstruction D_rec(F_s, mean style), from which the sample then differs in its detail.

    Args:
        num_contrasts: M.
        latent_channels: channels of one contrast's latent.
        structure_channels: c_L, channels of F_s.
        prediction: "v", or "noise" for the paper's epsilon_theta.
        mean_guidance: whether the reconstruction is part of the condition; `false` is the paper's form.
        guidance_channels: channels that F_s is projected to.
        channels, num_res_blocks, attention_levels, num_head_channels: as in MONAI's `DiffusionModelUNet`.

    Raises:
        ValueError: another prediction.
    """

    def __init__(
        self,
        num_contrasts: int,
        latent_channels: int,
        structure_channels: int,
        prediction: str = "v",
        mean_guidance: bool = True,
        guidance_channels: int = 32,
        channels: Sequence[int] = (32, 64, 96),
        num_res_blocks: int = 1,
        attention_levels: Sequence[bool] = (False, False, True),
        num_head_channels: int = 32,
        norm_num_groups: int = 16,
    ) -> None:
        super().__init__(prediction)
        self.mean_guidance = mean_guidance
        self.guidance = nn.Conv2d(structure_channels, guidance_channels, 1)
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=latent_channels * (1 + num_contrasts + mean_guidance) + guidance_channels + num_contrasts,
            out_channels=latent_channels,
            channels=channels,
            num_res_blocks=num_res_blocks,
            attention_levels=attention_levels,
            num_head_channels=num_head_channels,
            norm_num_groups=norm_num_groups,
            num_class_embeds=num_contrasts,
            use_flash_attention=True,
        )

    def condition(self, fused: Tensor, latents: Tensor, presence: Tensor, mean: Tensor) -> Tensor:
        """The part of the input that does not change between steps.

        Args:
            fused: F_s (B, c_L, h', w').
            latents: (B, M, c, h, w), latents of the available contrasts; absent ones are set to zero here.
            presence: (B, M).
            mean: (B, c, h, w), latent of the target's reconstruction.

        Returns:
            (B, guidance_channels + M c + M [+ c], h, w).
        """
        b, m, _, h, w = latents.shape
        p = presence.to(latents.dtype)[:, :, None, None]
        guidance = F.interpolate(self.guidance(fused), size=(h, w), mode="bilinear", align_corners=False)
        available = torch.where(p.unsqueeze(2) > 0, latents, torch.zeros_like(latents)).flatten(1, 2)
        parts = [guidance.to(latents.dtype), available, p.expand(b, m, h, w)]
        return torch.cat([*parts, mean.to(latents.dtype)] if self.mean_guidance else parts, dim=1)

    def forward(self, z_t: Tensor, t: Tensor, target: Tensor, condition: Tensor) -> Tensor:
        """z_t (B, c, h, w), t (B,), target contrast (B,), condition -> v, or the noise (B, c, h, w)."""
        return self.unet(torch.cat([z_t, condition], dim=1), timesteps=t, class_labels=target)
