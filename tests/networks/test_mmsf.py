"""MMSF against its equation in a loop, and what an absent contrast does to it."""

from __future__ import annotations

import torch

from bundle.networks.mmsf import MMSF


def packed(features: torch.Tensor, presence: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, M, c, H, W) -> the available ones (N, c, H, W), contrast by contrast, and their samples."""
    contrast, sample = presence.T.nonzero(as_tuple=True)
    return features[sample, contrast], sample


def test_is_the_fusion_of_the_gated_sum() -> None:
    block = MMSF(3)
    features = torch.rand(2, 4, 3, 8, 8)
    presence = torch.tensor([[1.0, 0, 1, 1], [0, 1, 0, 0]])
    fused, gates = block(*packed(features, presence), presence)
    for b in range(2):
        there = presence[b].nonzero().flatten()
        mean = features[b, there].mean(0)
        context = block.gate_context(torch.cat([mean, torch.full((1, 8, 8), len(there) / 4)])[None])
        total = sum(torch.sigmoid(block.gate_own(features[b, j][None]) + context) * features[b, j][None] for j in there)
        torch.testing.assert_close(fused[b], block.fusion(total)[0], atol=1e-5, rtol=1e-4)
    assert gates.shape == (4, 1, 8, 8)


def test_the_gate_can_close_and_open() -> None:
    block = MMSF(3)
    features, presence = torch.rand(1, 2, 3, 8, 8), torch.ones(1, 2)
    with torch.no_grad():
        block.gate_own.bias.fill_(-30)
        assert block(*packed(features, presence), presence)[1].max() < 1e-6
        block.gate_own.bias.fill_(30)
        assert block(*packed(features, presence), presence)[1].min() > 1 - 1e-6


def test_the_order_of_the_contrasts_does_not_matter() -> None:
    block = MMSF(3)
    features, order = torch.rand(1, 4, 3, 8, 8), [2, 0, 3, 1]
    presence = torch.tensor([[1.0, 1, 0, 1]])
    one, _ = block(*packed(features, presence), presence)
    other, _ = block(*packed(features[:, order], presence[:, order]), presence[:, order])
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_its_size_does_not_grow_with_the_contrasts() -> None:
    presence = torch.ones(1, 6)
    assert MMSF(3)(*packed(torch.rand(1, 6, 3, 8, 8), presence), presence)[0].shape == (1, 3, 8, 8)
