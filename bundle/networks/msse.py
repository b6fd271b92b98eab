"""Multi-Scale Structural Feature Enhancement: the coarse scale asks the finer ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import CrossAttentionBlock
from torch import Tensor, nn


class MSSE(nn.Module):
    r"""F_s = F_L + alpha Attn(F_L, sum_{l<L} Up(Proj(F_l)))   (MSG-LDM, Sec. 2.2).

    Proj is a 1x1 convolution. Up aligns scale l with scale L; since the scales 1..L-1 are the finer ones here, that is
    a reduction, done by area averaging: bilinear sampling without it would drop most of the pixels it should summarise.

    Args:
        channels: feature channels of the scales 1..L.
        num_heads: attention heads.
        alpha: initial weight of the attention term; it is learned.
    """

    def __init__(self, channels: Sequence[int], num_heads: int = 4, alpha: float = 0.5) -> None:
        super().__init__()
        last = channels[-1]
        self.proj = nn.ModuleList(nn.Conv2d(c, last, kernel_size=1) for c in channels[:-1])
        self.norm_query = nn.LayerNorm(last)
        self.norm_context = nn.LayerNorm(last)
        self.attention = CrossAttentionBlock(last, num_heads, use_flash_attention=True)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """F_1..F_L, finest first, (B, c_l, H_l, W_l) -> F_s (B, c_L, H_L, W_L)."""
        coarse = scales[-1]
        size = coarse.shape[2:]
        guidance = torch.stack(
            [proj(F.adaptive_avg_pool2d(f, (size[0], size[1]))) for proj, f in zip(self.proj, scales[:-1])]
        ).sum(0)
        tokens = self.attention(self.norm_query(_to_tokens(coarse)), context=self.norm_context(_to_tokens(guidance)))
        return coarse + self.alpha * tokens.transpose(1, 2).reshape(coarse.shape)


def _to_tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2)
