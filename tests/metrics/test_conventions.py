"""Conventions of intensity on known images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.errors import InputError
from bundle.metrics.brain import psnr
from bundle.metrics.conventions import CONVENTIONS, apply

SHAPE = (12, 10, 8)


def images():
    generator = torch.Generator().manual_seed(3)
    brain = torch.zeros(SHAPE)
    brain[2:-2, 2:-2, 1:-1] = 1
    truth, pred = (0.1 + 0.8 * torch.rand(2, *SHAPE, generator=generator)) * brain
    return pred, truth, brain


def test_truth_scales_both_by_the_percentiles_of_the_truth_in_the_brain():
    pred, truth, brain = images()
    low, high = np.percentile(truth[brain > 0].numpy(), [0.5, 99.5])
    for image, result in zip((1.5 * pred, truth), apply("truth", 1.5 * pred, truth, brain)):
        expected = (image - low) / (high - low) * brain
        torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def test_truth_that_is_constant():
    pred, _, brain = images()
    with pytest.raises(ValueError, match="constant inside the brain"):
        apply("truth", pred, 0.3 * brain, brain)


def test_truth_does_not_depend_on_the_scale_of_the_network():
    pred, truth, brain = images()
    one = psnr(*apply("truth", pred, truth, brain), brain)
    other = psnr(*apply("truth", 0.4 * pred + 0.1, 0.4 * truth + 0.1, brain), brain)
    assert other == pytest.approx(one, abs=1e-4)


def test_own_scales_each_by_its_percentiles_in_the_brain():
    pred, truth, brain = images()
    for image, result in zip((pred, truth), apply("own", pred, truth, brain)):
        low, high = np.percentile(image[brain > 0].numpy(), [0.5, 99.5])
        expected = np.clip((image.numpy() - low) / (high - low), 0, 1)
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
        assert result.min() == 0
        assert result.max() == 1
        assert not result[brain == 0].any()


def test_what_each_convention_forgives():
    _, truth, brain = images()
    brighter, shifted = 0.5 * truth, 0.5 * truth + 0.2 * brain
    scores = {
        name: [psnr(*apply(name, pred, truth, brain), brain) for pred in (brighter, shifted)] for name in CONVENTIONS
    }
    assert max(scores["truth"]) < 20
    assert min(scores["own"]) > 100
    assert scores["max"][0] > 100 > 20 > scores["max"][1]


def test_max_divides_each_by_its_maximum_in_the_brain():
    pred, truth, brain = images()
    pred[0, 0, 0] = 7.0  # outside
    made, real = apply("max", pred, truth, brain)
    assert made[brain > 0].max() == real.max() == 1
    torch.testing.assert_close(made * pred[brain > 0].max(), pred)


@pytest.mark.parametrize("name", ["own", "max"])
def test_an_empty_prediction_stays_finite(name):
    _, truth, brain = images()
    made, real = apply(name, torch.zeros(SHAPE), truth, brain)
    assert not made.any()
    assert real.max() == 1


def test_inputs_are_left_alone():
    pred, truth, brain = images()
    before = pred.clone(), truth.clone()
    for name in CONVENTIONS:
        apply(name, pred, truth, brain)
    assert pred.equal(before[0])
    assert truth.equal(before[1])


def test_an_unknown_convention_is_one_line():
    with pytest.raises(InputError) as fault:
        apply("zscore", *images())
    assert str(fault.value) == "convention: there is no 'zscore'. Choose from truth, own, max"
