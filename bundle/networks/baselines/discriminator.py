"""Discriminator of whole exams (pix2pix, MM-GAN, ResViT)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn


class ExamDiscriminator(nn.Module):
    """PatchGAN: does this exam go with what is known of it?  (Isola et al. 2017, Sec. 3.2)

    Args:
        num_contrasts: M.
        per_contrast: judge every contrast for itself, beside the true exam (Sharma & Hamarneh 2020), and
            not the exam as a whole, beside what was given of it.
        channels: of the first convolution.
    """

    def __init__(self, num_contrasts: int, per_contrast: bool = False, channels: int = 32) -> None:
        super().__init__()
        m = num_contrasts
        self.known = "image" if per_contrast else "given"
        self.network = PatchDiscriminator(
            2,
            channels,
            in_channels=2 * m if per_contrast else 3 * m,
            out_channels=m if per_contrast else 1,
            norm="instance",
        )

    def forward(self, exam: Tensor, truth: Mapping[str, Tensor]) -> Tensor:
        """Judge an exam (B, M, H, W).

        Args:
            exam: its missing contrasts true or made.
            truth: `image` (B, M, H, W), the true exam; `given` (B, 2M, H, W), the available contrasts and their maps.

        Returns:
            (B, 1 or M, h, w), trained towards 1 where the patch is real and 0 where it is made.
        """
        return self.network(torch.cat([truth[self.known], exam], dim=1))[-1]
