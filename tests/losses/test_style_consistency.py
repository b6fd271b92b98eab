"""L_sc against its double sum, and a temperature that is really learned."""

from __future__ import annotations

import math

import pytest
import torch

from bundle.losses.style_consistency import StyleConsistencyLoss


def test_is_the_double_sum_over_the_available_styles() -> None:
    style, presence = torch.randn(3, 2, 5), torch.tensor([[1, 1], [0, 1], [1, 1]])
    vectors = [(j, style[b, j] / style[b, j].norm()) for b in range(3) for j in range(2) if presence[b, j]]
    total = 0.0
    for j, p in vectors:
        for k, q in vectors:
            z = 4.0 * float(p @ q)
            total -= math.log(1 / (1 + math.exp(-z if j == k else z)))
    loss = StyleConsistencyLoss(tau=4.0)
    assert loss(style, presence).item() == pytest.approx(total / len(vectors) ** 2, rel=1e-5)


def test_pulls_one_contrast_together_and_pushes_two_apart() -> None:
    loss, presence = StyleConsistencyLoss(), torch.ones(2, 2)
    apart = torch.tensor([[[1.0, 0], [0, 1]], [[1, 0], [0, 1]]])
    mixed = torch.tensor([[[1.0, 0], [1, 0]], [[0, 1], [0, 1]]])
    assert loss(apart, presence) < loss(mixed, presence)


def test_the_temperature_is_learned() -> None:
    loss = StyleConsistencyLoss(tau=1.0)
    style = torch.eye(2).repeat(4, 1, 1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    before = loss(style, torch.ones(4, 2)).item()
    for _ in range(50):
        optimizer.zero_grad()
        loss(style, torch.ones(4, 2)).backward()
        optimizer.step()
    assert loss.log_tau.exp().item() > 1.5 and loss(style, torch.ones(4, 2)).item() < before
