"""Latent diffusion UNet that is told the target and shown the target-like latent  (ALDM, Sec. 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor

from bundle.networks.denoiser import Denoiser

CONDITIONS = ("class", "cross_attention")


class TargetDenoiser(Denoiser):
    """epsilon_theta(z_src^tar, z_t^tar, t, y)  (ALDM, eq. 4); MONAI's `DiffusionModelUNet` in 3-D.

    The target-like latent is concatenated to the noisy latent (Palette). The target is told by a class embedding that
    is added to that of the time, or by cross-attention to its one-hot vector (eq. 3). With one token softmax is 1
    whatever the query is: cross-attention then adds W_V y, a bias per layer and target.

    Args:
        num_contrasts: M.
        latent_channels: c.
        palette: whether it sees the target-like latent; `false` is an ablation (the paper's Table 3 a).
        conditioning: "class" or "cross_attention".
        prediction: "v", or "noise" for the paper's epsilon.
        channels, num_res_blocks, attention_levels, num_head_channels, norm_num_groups: as in `DiffusionModelUNet`.

    Raises:
        ValueError: another conditioning or prediction.
    """

    def __init__(
        self,
        num_contrasts: int,
        latent_channels: int,
        palette: bool = True,
        conditioning: str = "class",
        prediction: str = "v",
        channels: Sequence[int] = (32, 64, 128),
        num_res_blocks: int = 1,
        attention_levels: Sequence[bool] = (False, False, True),
        num_head_channels: int = 32,
        norm_num_groups: int = 16,
    ) -> None:
        super().__init__(prediction)
        if conditioning not in CONDITIONS:
            raise ValueError(f"conditioning: {conditioning!r} must be one of {CONDITIONS}.")
        self.num_contrasts, self.palette = num_contrasts, palette
        self.conditioning = conditioning
        by_class = conditioning == "class"
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=latent_channels * (1 + palette),
            out_channels=latent_channels,
            channels=channels,
            num_res_blocks=num_res_blocks,
            attention_levels=attention_levels,
            num_head_channels=num_head_channels,
            norm_num_groups=norm_num_groups,
            num_class_embeds=num_contrasts if by_class else None,
            with_conditioning=not by_class,
            cross_attention_dim=None if by_class else num_contrasts,
            use_flash_attention=True,
        )
        self.divisor = 2 ** (len(channels) - 1)

    def forward(self, z_t: Tensor, t: Tensor, target: Tensor, like: Tensor) -> Tensor:
        """z_t, like (B, c, h, w, d), t, target (B,) -> v, or the noise (B, c, h, w, d)."""
        x = torch.cat([z_t, like.to(z_t.dtype)], dim=1) if self.palette else z_t
        if self.conditioning == "class":
            return self.unet(x, timesteps=t, class_labels=target)
        return self.unet(x, timesteps=t, context=F.one_hot(target, self.num_contrasts).to(x.dtype).unsqueeze(1))
