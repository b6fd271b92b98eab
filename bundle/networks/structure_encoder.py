"""Structure encoders E_str: every available contrast becomes features at several scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.convolutions import ResidualUnit
from torch import Tensor, nn

from bundle.networks.hfib import HFIB


class StructureEncoder(nn.Module):
    """E_str of the paper: L scales, each a residual unit followed by HFIB.

    Args:
        channels: feature channels of the scales 1..L; scale l has 1/2^(l-1) of the image's side.
        num_contrasts: with a value above 1 the encoder is shared by that many contrasts, each of which scales and
            shifts the features of every scale in its own way (it starts as the identity).
        norm: normalisation, as MONAI names it.
        hfib: whether the high frequencies are injected (the paper's ablation "w/o HFIB" turns it off).
        in_channels: channels of the image.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_contrasts: int = 1,
        norm: str | tuple = ("instance", {"affine": True}),
        hfib: bool = True,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        inputs = [in_channels, *channels[:-1]]
        self.units = nn.ModuleList(
            ResidualUnit(2, i, o, strides=2 if k else 1, norm=norm, act=("leakyrelu", {"negative_slope": 0.01}))
            for k, (i, o) in enumerate(zip(inputs, channels))
        )
        self.hfib = nn.ModuleList(HFIB(c) if hfib else nn.Identity() for c in channels)
        self.film = (
            nn.ParameterList(nn.Parameter(torch.zeros(num_contrasts, 2 * c)) for c in channels)
            if num_contrasts > 1
            else None
        )

    def forward(self, image: Tensor, contrast: Tensor | None = None) -> list[Tensor]:
        """(B, C, H, W) -> S^(1)..S^(L), (B, c_l, H/2^(l-1), W/2^(l-1)); a shared encoder needs `contrast`, (B,)."""
        scales, x = [], image
        for level, (unit, hfib) in enumerate(zip(self.units, self.hfib)):
            x = unit(x)
            if self.film is not None:
                scale, shift = self.film[level][contrast].to(x.dtype)[:, :, None, None].chunk(2, dim=1)
                x = x * (1 + scale) + shift
            x = hfib(x)
            scales.append(x)
        return scales


class StructureEncoders(nn.Module):
    """The structure encoders of M contrasts: one each, as in the paper, or one for all of them.

    Args:
        num_contrasts: M.
        channels: feature channels of the scales 1..L.
        shared: one encoder conditioned on the contrast; its size does not grow with M but for 2 sum(c_l) numbers each.
        norm, hfib: see `StructureEncoder`.
        neighbours: N further slices of a contrast on either side that its encoder sees, too (2.5-D).
    """

    def __init__(
        self,
        num_contrasts: int,
        channels: Sequence[int],
        shared: bool = False,
        norm: str | tuple = ("instance", {"affine": True}),
        hfib: bool = True,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.shared = shared
        self.encoders = nn.ModuleList(
            StructureEncoder(channels, num_contrasts if shared else 1, norm, hfib, 1 + 2 * neighbours)
            for _ in range(1 if shared else num_contrasts)
        )

    def forward(self, image: Tensor, presence: Tensor) -> tuple[list[Tensor], Tensor]:
        """Encode what is there.

        Args:
            image: (B, (1 + 2 neighbours) M, H, W): the M contrasts of the slice itself, then those of its neighbours.
                Where `presence` is 0 the values are never read.
            presence: (B, M), 1 where a contrast is there; P ones, at least one.

        Returns:
            S_j of the scales 1..L for the P available (sample, contrast) pairs, each (P, c_l, H_l, W_l), contrast by
            contrast; and the sample in 0..B-1 that each pair belongs to, (P,).
        """
        contrast, sample = presence.T.nonzero(as_tuple=True)
        if not len(sample):
            raise ValueError("presence: no contrast is available in the whole batch, so there is nothing to encode.")
        x = image.unflatten(1, (-1, presence.shape[1]))[sample, :, contrast]
        if self.shared:
            return self.encoders[0](x, contrast), sample
        counts = presence.bool().sum(0).tolist()
        encoded = [encoder(part) for encoder, part in zip(self.encoders, x.split(counts)) if len(part)]
        return [torch.cat(scale) for scale in zip(*encoded)], sample


class JointEncoder(nn.Module):
    """One structure encoder of all contrasts at once: the paper's ablation "w/o Decoupling+MMSF".

    It sees the M images, absent ones as zeros, and M presence maps; nothing is left to fuse.

    Args:
        num_contrasts: M.
        channels, hfib: see `StructureEncoder`.
        neighbours: see `StructureEncoders`.
    """

    def __init__(self, num_contrasts: int, channels: Sequence[int], hfib: bool = True, neighbours: int = 0) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.encoder = StructureEncoder(channels, hfib=hfib, in_channels=(2 + 2 * neighbours) * num_contrasts)

    def forward(self, image: Tensor, presence: Tensor) -> list[Tensor]:
        """image and presence as `StructureEncoders` has them -> F_1..F_L, (B, c_l, H_l, W_l)."""
        m = presence.shape[1]
        there = presence.bool()[:, :, None, None].expand(-1, -1, *image.shape[2:])
        shown = torch.where(there.repeat(1, image.shape[1] // m, 1, 1), image, torch.zeros_like(image))
        return self.encoder(torch.cat([shown, there.to(image.dtype)], dim=1))
