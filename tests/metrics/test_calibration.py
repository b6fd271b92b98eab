"""Calibration against NumPy and SciPy on all voxels at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bundle.metrics.calibration import Calibration

SHAPE = (40, 40, 40)


def volumes(factor=1.0, seed=0):
    """Uncertainty, the error of which it is the standard deviation but for a factor, and a brain."""
    generator = torch.Generator().manual_seed(seed)
    sigma = 0.01 + 0.09 * torch.rand(SHAPE, generator=generator) ** 2
    error = (sigma * torch.randn(SHAPE, generator=generator)).abs()
    return factor * sigma, error, torch.rand(SHAPE, generator=generator) > 0.3


def calibrated(*parts, bins=10):
    calibration = Calibration(bins)
    for part in parts:
        calibration.add(*part)
    return calibration.result()


def test_bins_are_those_of_sorted_voxels():
    sigma, error, brain = volumes()
    result = calibrated((sigma, error, brain), bins=8)
    s, e = sigma[brain].double().numpy(), error[brain].double().numpy()
    groups = np.array_split(np.argsort(s), 8)
    assert len(result["bins"]) == 8
    assert sum(row["count"] for row in result["bins"]) == result["voxels"] == s.size
    for row, group in zip(result["bins"], groups):
        assert row["count"] == pytest.approx(group.size, rel=0.1)  # a quantile lies within a cell
        assert row["uncertainty"] == pytest.approx(np.sqrt(np.mean(s[group] ** 2)), rel=0.03)
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean(e[group] ** 2)), rel=0.05)


def test_one_bin_is_exact():
    sigma, error, brain = volumes()
    (row,) = calibrated((sigma, error, brain), bins=1)["bins"]
    assert row["uncertainty"] == pytest.approx(sigma[brain].double().square().mean().sqrt().item(), rel=1e-9)
    assert row["rmse"] == pytest.approx(error[brain].double().square().mean().sqrt().item(), rel=1e-9)
    assert row["count"] == int(brain.sum())


@pytest.mark.parametrize(("factor", "expected", "tolerance"), [(1, 0, 0.03), (2, 0.5, 0.02), (0.5, 1, 0.05)])
def test_ence_of_a_known_miscalibration(factor, expected, tolerance):
    assert calibrated(volumes(factor))["ence"] == pytest.approx(expected, abs=tolerance)


def test_spearman_is_that_of_all_voxels():
    sigma, error, brain = volumes()
    expected = spearmanr(sigma[brain].numpy(), error[brain].numpy()).statistic
    assert 0.3 < expected < 0.7
    assert calibrated((sigma, error, brain))["spearman"] == pytest.approx(expected, abs=2e-3)
    assert calibrated((sigma, sigma, brain))["spearman"] == pytest.approx(1, abs=1e-9)
    assert calibrated((sigma, 0.2 - sigma, brain))["spearman"] < -0.99


def test_subjects_add_up_in_any_order():
    one, other = volumes(seed=1), volumes(2.0, seed=2)
    together = tuple(torch.cat(images) for images in zip(one, other))
    expected = calibrated(together)
    for parts in ((one, other), (other, one)):
        result = calibrated(*parts)
        assert result["bins"] == [pytest.approx(row) for row in expected["bins"]]
        assert result["ence"] == pytest.approx(expected["ence"])
        assert result["spearman"] == pytest.approx(expected["spearman"])


def test_nothing_outside_the_brain_counts():
    sigma, error, brain = volumes()
    assert calibrated((torch.where(brain, sigma, 0.4), error * brain, brain)) == calibrated((sigma, error, brain))


def test_voxels_without_any_uncertainty():
    sigma, error, brain = volumes()
    sigma[:30] = 0
    result = calibrated((sigma, error, brain))
    assert result["bins"][0]["uncertainty"] == 0
    assert len(result["bins"]) < 10
    assert result["ence"] is None
    nowhere = calibrated((0 * sigma, error, brain))
    assert nowhere["spearman"] is None
    assert len(nowhere["bins"]) == 1


def test_values_beyond_the_grid_are_counted():
    large = torch.full((4, 4), 2.0)
    (row,) = calibrated((large, 3 * large, torch.ones(4, 4)))["bins"]
    assert row == {"uncertainty": 2, "rmse": 6, "count": 16}


def test_nothing_added_is_none_and_the_rest_goes_into_json():
    assert Calibration().result() is None
    assert calibrated((torch.rand(4), torch.rand(4), torch.zeros(4))) is None
    result = calibrated(volumes())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"must have one shape, got \(4,\), \(5,\), \(4,\)"):
        Calibration().add(torch.rand(4), torch.rand(5), torch.ones(4))
