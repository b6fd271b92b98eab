"""MS-SPADE: turn the latent of one contrast into one that looks like that of another (ALDM, eq. 1 and Table B)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn


class SwitchableConv3d(nn.Module):
    """A bank of 3-D convolutions, one per contrast; each sample passes through that of its own target.

    All samples go through one grouped convolution, whatever their targets are.

    Args:
        num_contrasts: M.
        in_channels, out_channels: of each convolution.
        kernel_size: odd; the borders are padded with zeros.
        bias: initial value of all biases.
    """

    def __init__(
        self, num_contrasts: int, in_channels: int, out_channels: int, kernel_size: int = 3, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.padding = kernel_size // 2
        self.weight = nn.Parameter(torch.empty(num_contrasts, out_channels, in_channels, *[kernel_size] * 3))
        self.bias = nn.Parameter(torch.full((num_contrasts, out_channels), bias))
        bound = 1 / math.sqrt(in_channels * kernel_size**3)  # as torch's own convolutions begin
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """x (B, c, H, W, D), target (B,) in 0..M-1 -> (B, out_channels, H, W, D)."""
        grouped = F.conv3d(
            x.flatten(0, 1)[None],
            self.weight[target].flatten(0, 1),
            self.bias[target].flatten(),
            padding=self.padding,
            groups=len(x),
        )
        return grouped.reshape(len(x), -1, *x.shape[2:])


class MSSPADELayer(nn.Module):
    """x = gamma^tar(h) (h - mu_c) / sigma_c + beta^tar(h)  (ALDM, eq. 1).

    mu_c and sigma_c are the mean and standard deviation of channel c of each sample. gamma^tar and beta^tar are maps, a
    convolution each of hidden features of h; the three convolutions exist once per target. Neither map is normalised:
    MONAI's `SPADE` block puts an instance norm behind both, so that it cannot learn that a contrast is brighter.

    Args:
        num_contrasts: M.
        channels: of h.
        hidden_channels: of the features from which gamma and beta are made.
    """

    def __init__(self, num_contrasts: int, channels: int, hidden_channels: int = 32) -> None:
        super().__init__()
        self.hidden = SwitchableConv3d(num_contrasts, channels, hidden_channels)
        self.gamma = SwitchableConv3d(num_contrasts, hidden_channels, channels, bias=1.0)
        self.beta = SwitchableConv3d(num_contrasts, hidden_channels, channels)

    def forward(self, h: Tensor, target: Tensor) -> Tensor:
        """h (B, c, H, W, D), target (B,) -> (B, c, H, W, D)."""
        features = F.relu(self.hidden(h, target))
        return self.gamma(features, target) * F.instance_norm(h) + self.beta(features, target)


def shortcut(in_channels: int, out_channels: int) -> nn.Module:
    """The way around a block."""
    if in_channels == out_channels:
        return nn.Identity()
    return Convolution(3, in_channels, out_channels, kernel_size=1, conv_only=True, bias=False)


class ResBlock(nn.Module):
    """Twice convolution, ReLU and, where asked for, instance norm, with a way around  (ALDM, Table B)."""

    def __init__(self, in_channels: int, out_channels: int, norm: bool) -> None:
        super().__init__()
        self.shortcut = shortcut(in_channels, out_channels)
        order = "AN" if norm else "A"
        self.layers = nn.Sequential(
            *(
                Convolution(3, channels, out_channels, adn_ordering=order, act="RELU", norm="INSTANCE")
                for channels in (in_channels, out_channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.layers(x)


class MSSPADEBlock(nn.Module):
    """Twice convolution, ReLU and MS-SPADE, with a way around; only MS-SPADE depends on the target  (Table B)."""

    def __init__(self, num_contrasts: int, in_channels: int, out_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.shortcut = shortcut(in_channels, out_channels)
        sizes = (in_channels, out_channels)
        self.convs = nn.ModuleList(Convolution(3, channels, out_channels, conv_only=True) for channels in sizes)
        self.norms = nn.ModuleList(MSSPADELayer(num_contrasts, out_channels, hidden_channels) for _ in sizes)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        h = x
        for conv, norm in zip(self.convs, self.norms):
            h = norm(F.relu(conv(h)), target)
        return self.shortcut(x) + h


class MSSPADE(nn.Module):
    """Source latent -> target-like latent, for every target, by one network that is told the target only.

    Args:
        num_contrasts: M.
        latent_channels: c.
        stem_channels: of the first convolution.
        res_channels, spade_channels: output channels of the residual and of the MS-SPADE blocks, one number per block.
        hidden_channels: see `MSSPADELayer`.
        trunk_norm: instance norm in the first convolution and in the residual blocks, the paper's form. It takes the
            latent's scale away before anything has seen it; without it the same steps come nearer to the target.
        end_kernel: side of the first and of the last convolution; the paper's is 7. Of 343 weights that begin at random
            a short training makes a blur.
    """

    def __init__(
        self,
        num_contrasts: int,
        latent_channels: int,
        stem_channels: int = 32,
        res_channels: Sequence[int] = (64, 64),
        spade_channels: Sequence[int] = (64, 64, 64, 32),
        hidden_channels: int = 32,
        trunk_norm: bool = False,
        end_kernel: int = 7,
    ) -> None:
        super().__init__()
        order = "NA" if trunk_norm else "A"
        self.stem = Convolution(
            3, latent_channels, stem_channels, kernel_size=end_kernel, adn_ordering=order, act="RELU", norm="INSTANCE"
        )
        widths = [stem_channels, *res_channels, *spade_channels]
        pairs = list(zip(widths, widths[1:]))
        self.res_blocks = nn.Sequential(*(ResBlock(*pair, trunk_norm) for pair in pairs[: len(res_channels)]))
        self.spade_blocks = nn.ModuleList(
            MSSPADEBlock(num_contrasts, *pair, hidden_channels) for pair in pairs[len(res_channels) :]
        )
        self.out = Convolution(3, widths[-1], latent_channels, kernel_size=end_kernel, conv_only=True)

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """z (B, c, h, w, d) of any contrast, target (B,) in 0..M-1 -> z_src^tar (B, c, h, w, d)."""
        h = self.res_blocks(self.stem(z))
        for block in self.spade_blocks:
            h = block(h, target)
        return self.out(h)
