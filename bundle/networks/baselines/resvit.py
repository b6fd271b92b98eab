"""ResViT: convolutions, with residual and transformer blocks in the bottleneck (Dalmaz et al. 2022)."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor, nn


class AggregatedResidualTransformer(nn.Module):
    """ART block: what a transformer makes of the features is joined to them  (Dalmaz et al. 2022).

    The features are halved in size, each position becomes a token, the tokens are brought back to the features' size
    and concatenated to them, and a residual unit compresses the channels.

    Args:
        channels: of the features, in and out.
        transformer: (B, N, hidden) -> (B, N, hidden); the blocks of a network share one, as in the paper.
        hidden_size: channels of a token; a multiple of 4.
    """

    def __init__(self, channels: int, transformer: nn.Module, hidden_size: int) -> None:
        super().__init__()
        self.transformer, self.hidden_size = transformer, hidden_size
        self.down = Convolution(2, channels, hidden_size, strides=2)
        self.up = Convolution(2, hidden_size, channels, strides=2, is_transposed=True)
        self.compress = ResidualUnit(2, 2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> the same; h and w are even."""
        grid = self.down(x)
        size = list(grid.shape[2:])
        # Sines and cosines: the authors learn an embedding of one size, but the windows of the training have another.
        where = build_sincos_position_embedding(size, self.hidden_size, spatial_dims=2).to(grid)
        tokens = self.transformer(grid.flatten(2).transpose(1, 2) + where)
        return self.compress(torch.cat([x, self.up(tokens.transpose(1, 2).unflatten(2, size))], dim=1))


class ResViT(nn.Module):
    """The generator of ResViT; two of its nine bottleneck blocks, the first and the sixth, hold a transformer.

    Normalisation and activation are MONAI's defaults (instance norm, PReLU).

    Args:
        in_channels, out_channels: of the images.
        channels: after the first convolution; twice and four times as many where the image is halved.
        hidden_size, mlp_dim, num_heads, num_layers: of the transformer.
        num_blocks: bottleneck blocks.
        transformer_blocks: those with a transformer, from 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int = 16,
        hidden_size: int = 128,
        mlp_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 4,
        num_blocks: int = 9,
        transformer_blocks: tuple[int, ...] = (0, 5),
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            Convolution(2, in_channels, channels, kernel_size=7),
            Convolution(2, channels, 2 * channels, strides=2),
            Convolution(2, 2 * channels, 4 * channels, strides=2),
        )
        layers = [
            TransformerBlock(hidden_size, mlp_dim, num_heads, use_flash_attention=True) for _ in range(num_layers)
        ]
        transformer = nn.Sequential(*layers, nn.LayerNorm(hidden_size))
        self.bottleneck = nn.Sequential()
        for k in range(num_blocks):
            if k in transformer_blocks:
                self.bottleneck.append(AggregatedResidualTransformer(4 * channels, transformer, hidden_size))
            self.bottleneck.append(ResidualUnit(2, 4 * channels, 4 * channels))
        self.decoder = nn.Sequential(
            Convolution(2, 4 * channels, 2 * channels, strides=2, is_transposed=True),
            Convolution(2, 2 * channels, channels, strides=2, is_transposed=True),
            Convolution(2, channels, out_channels, kernel_size=7, conv_only=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W), unbounded; H and W are multiples of 8."""
        return self.decoder(self.bottleneck(self.encoder(x)))
