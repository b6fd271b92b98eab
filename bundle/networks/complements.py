"""The training pass of MSG-LDM with complementary subsets: shapes that do not depend on the data, few kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bundle.networks.disentanglement import Disentanglement
from bundle.networks.mmsf import MMSF
from bundle.networks.structure_encoder import StructureEncoders


@dataclass
class Question:
    """Which contrasts are shown to the network, and which it is asked for.

    Every sample is used twice: with a subset of its contrasts, and with the rest of them. Each contrast is then encoded
    once and asked for once, whatever the subsets are. Row b of 2B holds sample b with its subset, row B + b with the
    rest.

    Attributes:
        presence: (2B, M), 1 where a contrast is shown.
        row: (B, M) bool, whether a contrast is asked for from the rest (row B + b) instead of the subset (row b).
        counted: (B, M), 1 where there is a truth, and something is shown.
    """

    presence: Tensor
    row: Tensor
    counted: Tensor


def ask(exists: Tensor, shown: Tensor, own: Tensor) -> Question:
    """The question of a batch.

    Args:
        exists: (B, M), 1 where a sample has a contrast.
        shown: (B, M), a subset of it, which is not all of it where several exist.
        own: (B, M), 1 where a contrast is to be reconstructed from the subset that shows it, with its own style.
    """
    rest = exists - shown
    several = rest.any(1, keepdim=True).to(exists.dtype)
    return Question(torch.cat([shown, rest]), shown.bool() ^ own.bool(), exists * several)


def complete_both(
    network: Disentanglement, image: Tensor, exists: Tensor, shown: Tensor, own: Tensor
) -> dict[str, Tensor]:
    """What `Disentanglement.forward` makes of a batch whose samples are all used twice, see `Question`.

    The encoders of the contrasts, and their decoders, run side by side as one batched computation: a quarter of the
    kernels. On a GPU, windows are small enough that the number of kernels is what a step takes its time for.

    Args:
        network: in training mode; decoupled, with MSSE, and without region mask and neighbouring slices.
        image: (B, M, H, W) in [0, 1], zeros where a contrast does not exist.
        exists, shown, own: see `ask`.

    Returns:
        `reconstruction` (B, M, H, W), each contrast from the row that it is asked from; `counted` (B, M);
        `segmentation` logits (B, R, H, W) of the samples with their subset; `style` (B, M, d), zeros where absent.
    """
    question = ask(exists, shown, own)
    scales, fused = structure(network, image, question.presence)
    each = image.transpose(0, 1)[:, :, None]  # (M, B, 1, H, W)
    style = side_by_side(network.style_encoders, each).transpose(0, 1).float() * exists[..., None]
    network.style_bank.update(style.detach(), exists)
    styles = torch.where(own.bool()[..., None], style, network.style_bank.mean)
    return {
        "reconstruction": decode(network, fused, scales, styles, question.row),
        "counted": question.counted,
        "segmentation": network.segmentation([scale[: len(image)] for scale in scales]).float(),
        "style": style,
    }


def structure(network: Disentanglement, image: Tensor, presence: Tensor) -> tuple[list[Tensor], Tensor]:
    """F_1..F_L and F_s of both rows of every sample: image (B, M, H, W), presence (2B, M) -> (2B, c_l, H_l, W_l)."""
    if network.mmsf is None or network.msse is None:
        raise ValueError("network: complementary subsets need MMSF and MSSE (decoupled and msse: true).")
    encoders = cast(StructureEncoders, network.encoders).encoders
    encoded = side_by_side(encoders, image.transpose(0, 1)[:, :, None])
    scales = [
        torch.cat([fuse(cast(MMSF, mmsf), scale, part) for part in presence.chunk(2)])
        for mmsf, scale in zip(network.mmsf, encoded)
    ]
    return scales, network.msse(scales)


def fuse(mmsf: MMSF, structure: Tensor, presence: Tensor) -> Tensor:
    """`MMSF.forward` of all contrasts, absent ones times 0: (M, B, c, H, W), presence (B, M) -> (B, c, H, W)."""
    m, b = structure.shape[:2]
    there = presence.T[:, :, None, None, None].to(structure.dtype)
    count = presence.sum(1).clamp(min=1).to(structure.dtype).view(b, 1, 1, 1)
    mean = (there * structure).sum(0) / count
    context = mmsf.gate_context(torch.cat([mean, (count / m).expand(b, 1, *mean.shape[2:])], dim=1))
    own = mmsf.gate_own(structure.flatten(0, 1)).unflatten(0, (m, b))
    return mmsf.fusion((there * (own + context).sigmoid() * structure).sum(0))


def decode(network: Disentanglement, fused: Tensor, scales: Sequence[Tensor], style: Tensor, row: Tensor) -> Tensor:
    """D_rec of every contrast from one of a sample's two rows: style (B, M, d), row (B, M) -> (B, M, H, W)."""
    features = [pick(part, row) for part in (fused, *scales)]
    image = side_by_side(network.decoders, features[0], features[1:], style.transpose(0, 1))
    return image.squeeze(2).transpose(0, 1).float()


def pick(both: Tensor, row: Tensor) -> Tensor:
    """One of two rows per contrast: (2B, c, h, w), (B, M) bool -> (M, B, c, h, w)."""
    first, second = both.chunk(2)
    return torch.where(row.T[:, :, None, None, None], second, first)


def side_by_side(modules: Iterable[nn.Module], *inputs: Any) -> Any:
    """Modules of one architecture, each on its own input, as one batched computation.

    Args:
        modules: M modules whose parameters have the same names and shapes.
        inputs: tensors, or lists of them, whose first axis is M.
    """
    first, *others = modules
    own = [dict(module.named_parameters()) for module in (first, *others)]
    stacked = {name: torch.stack([parameters[name] for parameters in own]) for name in own[0]}
    return vmap(lambda parameters, *parts: functional_call(first, parameters, parts))(stacked, *inputs)
