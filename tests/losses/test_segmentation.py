"""L_seg on overlapping regions."""

from __future__ import annotations

import pytest
import torch

from bundle.losses.segmentation import RegionLoss


def test_the_truth_costs_nothing_and_its_opposite_much() -> None:
    regions = torch.zeros(2, 3, 16, 16)
    regions[:, 0, 2:12, 2:12] = regions[:, 1, 4:10, 4:10] = regions[:, 2, 5:8, 5:8] = 1
    logits, valid = (2 * regions - 1) * 20, torch.ones(2, 3)
    assert RegionLoss()(logits, regions, valid).item() == pytest.approx(0, abs=1e-3)
    assert RegionLoss()(-logits, regions, valid).item() > 5


def test_a_region_without_truth_does_not_count() -> None:
    regions, valid = torch.zeros(1, 3, 16, 16), torch.tensor([[1.0, 0, 0]])
    regions[:, 0, 4:8, 4:8] = 1
    logits = torch.randn(1, 3, 16, 16, requires_grad=True)
    RegionLoss()(logits, regions, valid).backward()
    assert logits.grad is not None and logits.grad[:, 1:].abs().max() == 0 < logits.grad[:, 0].abs().max()
    assert RegionLoss()(logits, regions, torch.zeros(1, 3)).item() == 0
