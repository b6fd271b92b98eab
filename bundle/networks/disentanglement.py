"""Style-structure disentanglement: what all contrasts share (F_s) apart from how each looks (style)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from bundle.networks.mmsf import MMSF
from bundle.networks.msse import MSSE
from bundle.networks.reconstruction import ReconstructionDecoder
from bundle.networks.segmentation import SegmentationDecoder
from bundle.networks.structure_encoder import JointEncoder, StructureEncoders
from bundle.networks.style_encoder import StyleBank, StyleEncoder


@dataclass
class Structure:
    """The modality-free structure of a batch.

    Attributes:
        fused: F_s, (B, c_L, H/2^(L-1), W/2^(L-1)).
        scales: F_1..F_L, finest first, (B, c_l, H/2^(l-1), W/2^(l-1)).
        gates: w_j of each scale for the available pairs, contrast by contrast, (N, 1, H_l, W_l); none where the
            contrasts are not encoded apart.
    """

    fused: Tensor
    scales: list[Tensor]
    gates: list[Tensor]


class Disentanglement(nn.Module):
    """Structure encoders with HFIB, MMSF, MSSE, style encoders, D_rec and D_seg (MSG-LDM, Fig. 2).

    Args:
        num_contrasts: M.
        channels: structure channels of the scales 1..L, finest first.
        style_channels, style_dim: the style encoders' channels and the length of a style vector.
        shared: one structure encoder for all contrasts instead of one each (the paper's form, `false`).
        skips: D_rec also sees F_1..F_{L-1}; `false` is the paper's form.
        hfib, msse: switches for the paper's ablations.
        fusion_norm: normalise what MMSF fuses. Without it the structure keeps an unnormalised path from the given
            images to D_rec, and with it their brightness, which says how bright the missing one is.
        decoupled: `false` is the paper's ablation "w/o Decoupling+MMSF": one encoder of all contrasts at once, no gates
            and no styles (zeros everywhere; L_sc has nothing to say). `shared` and `fusion_norm` then have no effect.
        neighbours: slices on either side of a contrast that the structure encoders see, too (2.5-D).
        num_heads: attention heads of MSSE.
        regions: number of lesion regions that D_seg predicts.
        region_mask: accept a lesion mask as a further condition (the paper's experiments). Its projection is added to
            F_s and vanishes exactly where no mask is given, so one model serves both.

    Raises:
        ValueError: neighbours is no number of slices.
    """

    def __init__(
        self,
        num_contrasts: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        style_channels: Sequence[int] = (16, 32, 64),
        style_dim: int = 8,
        shared: bool = False,
        skips: bool = True,
        hfib: bool = True,
        msse: bool = True,
        num_heads: int = 4,
        regions: int = 3,
        region_mask: bool = False,
        fusion_norm: bool = False,
        decoupled: bool = True,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(neighbours, int) or neighbours < 0:
            raise ValueError(f"neighbours: {neighbours!r} must be a whole number of slices, 0 or more.")
        self.num_contrasts = num_contrasts
        self.divisor = 2 ** (len(channels) - 1)
        self.regions = regions
        self.neighbours = neighbours
        self.encoders: JointEncoder | StructureEncoders
        if decoupled:
            self.encoders = StructureEncoders(num_contrasts, channels, shared, hfib=hfib, neighbours=neighbours)
        else:
            self.encoders = JointEncoder(num_contrasts, channels, hfib, neighbours)
        norm = ("instance", {"affine": True}) if fusion_norm else None
        self.mmsf = nn.ModuleList(MMSF(c, norm) for c in channels) if decoupled else None
        self.msse = MSSE(channels, num_heads) if msse else None
        self.region_projection = nn.Conv2d(regions, channels[-1], 3, padding=1, bias=False) if region_mask else None
        styles = num_contrasts if decoupled else 0
        self.style_encoders = nn.ModuleList(StyleEncoder(style_channels, style_dim) for _ in range(styles))
        self.style_bank = StyleBank(num_contrasts, style_dim)
        self.decoders = nn.ModuleList(ReconstructionDecoder(channels, style_dim, skips) for _ in range(num_contrasts))
        self.segmentation = SegmentationDecoder(channels, regions)

    def encode_structure(self, image: Tensor, presence: Tensor, region: Tensor | None = None) -> Structure:
        """What the available contrasts say about the anatomy.

        Args:
            image: (B, (1 + 2 neighbours) M, H, W) in [0, 1]: the M contrasts of the slice itself, then those of its
                neighbours, nearest first, below before above. Values of absent contrasts are never read.
            presence: (B, M), 1 where a contrast is there; at least one per sample.
            region: (B, regions + 1, H, W): the region mask, then a map that is 1 where the mask is given.

        Raises:
            ValueError: H or W is not a multiple of 2^(L-1), or a mask is given to a model made without one.
        """
        h, w = image.shape[2:]
        if h % self.divisor or w % self.divisor:
            times = self.divisor.bit_length() - 1
            raise ValueError(
                f"image: {h}x{w} cannot be halved {times} times; pad both sides to multiples of {self.divisor}."
            )
        fused, gates = self._fuse(image, presence)
        f_s = self.msse(fused) if self.msse is not None else fused[-1]
        if region is not None:
            if self.region_projection is None:
                raise ValueError("region: this model was made without a region mask (region_mask: false).")
            mask, given = region[:, : self.regions], region[:, self.regions :]
            h, w = f_s.shape[2:]
            f_s = f_s + self.region_projection(F.adaptive_avg_pool2d(mask * given, (h, w)).to(f_s.dtype))
        return Structure(f_s, fused, gates)

    def _fuse(self, image: Tensor, presence: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """F_1..F_L and the gates of each scale."""
        if self.mmsf is None:
            return self.encoders(image, presence), []
        encoded, sample = self.encoders(image, presence)
        fused, gates = zip(*(mmsf(s, sample, presence) for mmsf, s in zip(self.mmsf, encoded)))
        return list(fused), list(gates)

    def encode_style(self, image: Tensor, presence: Tensor) -> Tensor:
        """Styles (B, M, d) of the available contrasts, zeros elsewhere; absent images and neighbours are never read."""
        style = image.new_zeros(*presence.shape, self.style_bank.mean.shape[1])
        for j, encoder in enumerate(self.style_encoders):
            rows = presence[:, j].nonzero().flatten()
            if rows.numel():
                style[rows, j] = encoder(image[rows, j : j + 1]).to(style.dtype)
        return style

    def reconstruct(self, structure: Structure, style: Tensor, wanted: Tensor) -> Tensor:
        """D_rec_j(F_s, S_j) for the wanted (sample, contrast) pairs: style (B, M, d), wanted (B, M) -> (B, M, H, W).

        Images that are not wanted are not computed; they are zero in the result.
        """
        b, m = wanted.shape
        image = style.new_zeros(b, m, *structure.scales[0].shape[2:])
        for j, decoder in enumerate(self.decoders):
            rows = wanted[:, j].nonzero().flatten()
            if rows.numel():
                scales = [f[rows] for f in structure.scales]
                image[rows, j] = decoder(structure.fused[rows], scales, style[rows, j]).to(image.dtype).squeeze(1)
        return image

    def reconstruct_unseen(self, structure: Structure, wanted: Tensor) -> Tensor:
        """`reconstruct` for contrasts nobody has seen: their style is the running mean."""
        return self.reconstruct(structure, self.style_bank.mean.expand(len(wanted), -1, -1), wanted)

    def segment(self, structure: Structure, wanted: Tensor) -> Tensor:
        """D_seg(F_1..F_L) of the wanted samples, (B,): logits (B, regions, H, W), zero and not computed elsewhere."""
        rows = wanted.nonzero().flatten()
        nothing = 0 * structure.fused.sum()  # with a gradient, zero: a batch may ask for nothing at all
        logits = nothing.expand(len(wanted), self.regions, *structure.scales[0].shape[2:]).clone()
        if rows.numel():
            logits[rows] = self.segmentation([f[rows] for f in structure.scales]).to(logits.dtype)
        return logits

    def forward(
        self,
        image: Tensor,
        presence: Tensor,
        wanted: Tensor,
        region: Tensor | None = None,
        labelled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One training pass.

        Args:
            image, presence, region: see `encode_structure`.
            wanted: (B, M), which contrasts to reconstruct.
            labelled: (B,), which samples to segment; None: all.

        Returns:
            `reconstruction` (B, M, H, W), zero where not wanted; `segmentation` logits (B, regions, H, W), zero where
            not labelled; `style` (B, M, d), zero where absent.
        """
        structure = self.encode_structure(image, presence, region)
        style = self.encode_style(image, presence)
        if self.training:
            self.style_bank.update(style.detach(), presence)
        return {
            "reconstruction": self.reconstruct(structure, self.style_bank(style, presence), wanted),
            "segmentation": self.segment(structure, presence.new_ones(len(image)) if labelled is None else labelled),
            "style": style,
        }
