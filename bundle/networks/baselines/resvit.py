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
        hidden_size: channels of a token; a multiple of 4.
    """

    def __init__(self, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.down = Convolution(2, channels, hidden_size, strides=2)
        self.up = Convolution(2, hidden_size, channels, strides=2, is_transposed=True)
        self.compress = ResidualUnit(2, 2 * channels, channels)

    def forward(self, x: Tensor, transformer: nn.Module) -> Tensor:
        """x (B, channels, h, w), h and w even; transformer (B, N, hidden) -> the same -> (B, channels, h, w)."""
        grid = self.down(x)
        size = list(grid.shape[2:])
        # Sines and cosines: the authors learn an embedding of one size, but the windows of the training have another.
        where = build_sincos_position_embedding(size, self.hidden_size, spatial_dims=2).to(grid)
        tokens = transformer(grid.flatten(2).transpose(1, 2) + where)
        return self.compress(torch.cat([x, self.up(tokens.transpose(1, 2).unflatten(2, size))], dim=1))


class ResViT(nn.Module):
    """The generator of ResViT: nine residual blocks, the first and the sixth after an ART block; those share weights.

    Normalisation and activation are MONAI's defaults (instance norm, PReLU).

    Args:
        in_channels, out_channels: of the images.
        channels: after the first convolution; twice and four times as many where the image is halved.
        hidden_size, mlp_dim, num_heads, num_layers: of the transformer, one for all ART blocks.
        num_blocks: residual blocks.
        transformed: those with an ART block before them, from 0.
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
        transformed: tuple[int, ...] = (0, 5),
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            Convolution(2, in_channels, channels, kernel_size=7),
            Convolution(2, channels, 2 * channels, strides=2),
            Convolution(2, 2 * channels, 4 * channels, strides=2),
        )
        layers = [TransformerBlock(hidden_size, mlp_dim, num_heads) for _ in range(num_layers)]
        self.transformer = nn.Sequential(*layers, nn.LayerNorm(hidden_size))
        self.art = nn.ModuleDict(
            {str(k): AggregatedResidualTransformer(4 * channels, hidden_size) for k in transformed}
        )
        self.residual = nn.ModuleList(ResidualUnit(2, 4 * channels, 4 * channels) for _ in range(num_blocks))
        self.decoder = nn.Sequential(
            Convolution(2, 4 * channels, 2 * channels, strides=2, is_transposed=True),
            Convolution(2, 2 * channels, channels, strides=2, is_transposed=True),
            Convolution(2, channels, out_channels, kernel_size=7, conv_only=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W), unbounded; H and W are multiples of 8."""
        x = self.encoder(x)
        for k, residual in enumerate(self.residual):
            if str(k) in self.art:
                x = self.art[str(k)](x, self.transformer)
            x = residual(x)
        return self.decoder(x)
