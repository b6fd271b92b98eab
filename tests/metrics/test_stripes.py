"""The through-plane gradient error against loops in NumPy, and on volumes whose stripes are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from bundle.metrics.stripes import gradient_xy, gradient_z, stripes

SHAPE = (40, 44, 36)


def truth_and_brain():
    generator = torch.Generator().manual_seed(1)
    truth = torch.from_numpy(gaussian_filter(torch.rand(SHAPE, generator=generator).numpy(), 1.5))
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return truth, sum(axis**2 for axis in axes) < 0.8


def offsets(size):
    return size * torch.randn(SHAPE[2], generator=torch.Generator().manual_seed(2))


def test_both_are_their_formulas():
    truth, brain = truth_and_brain()
    pred = truth + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)) + offsets(0.05)
    p, t, inside = (image.numpy().astype(np.float64) for image in (pred, truth, brain))
    sizes, sums, pairs = 0.0, 0.0, 0
    for z in range(1, SHAPE[2]):
        both = (inside[..., z] * inside[..., z - 1]) > 0
        step = (p[..., z] - p[..., z - 1])[both] - (t[..., z] - t[..., z - 1])[both]
        sizes, sums, pairs = sizes + np.abs(step).sum(), sums + abs(step.sum()), pairs + both.sum()
    assert gradient_z(pred, truth, brain) == pytest.approx(sizes / pairs, rel=1e-9)
    assert stripes(pred, truth, brain) == pytest.approx(sums / pairs, rel=1e-9)
    within = []
    for axis in (0, 1):
        steps, both = np.diff(p - t, axis=axis), np.diff(inside.astype(int), axis=axis) == 0
        both &= np.delete(inside, 0, axis) > 0
        within.append(np.abs(steps[both]).mean())
    assert gradient_xy(pred, truth, brain) == pytest.approx(sum(within) / 2, rel=1e-9)


def test_known_answers():
    truth, brain = truth_and_brain()
    ramp = 0.02 * torch.arange(SHAPE[2])
    halves = torch.where(torch.arange(SHAPE[0]) < SHAPE[0] // 2, 1.0, -1.0)[:, None, None]  # one up, the other down
    assert gradient_xy(truth + ramp, truth, brain) == pytest.approx(0, abs=1e-6)
    assert gradient_xy(truth + 0.02 * torch.arange(SHAPE[0])[:, None, None], truth, brain) == pytest.approx(
        0.01, rel=1e-4
    )
    for metric in (gradient_z, stripes):
        assert metric(truth, truth, brain) == 0
        assert metric(truth + 3, truth, brain) == pytest.approx(0, abs=1e-6)
        assert metric(truth + ramp, truth, brain) == pytest.approx(0.02, rel=1e-4)
    assert gradient_z(truth + halves * ramp, truth, brain) == pytest.approx(0.02, rel=1e-4)
    assert stripes(truth + halves * ramp, truth, brain) == pytest.approx(0, abs=1e-6)


def test_an_offset_per_slice_raises_both_as_much_as_it_should():
    truth, brain = truth_and_brain()
    for size in (0.01, 0.05):
        expected = 2 / math.sqrt(math.pi) * size  # the mean size of the difference of two normal numbers
        assert gradient_xy(truth + offsets(size), truth, brain) == pytest.approx(0, abs=1e-6)
        for metric in (gradient_z, stripes):
            assert metric(truth + offsets(size), truth, brain) == pytest.approx(expected, rel=0.25)
        assert stripes(truth + offsets(size), truth, brain) == gradient_z(truth + offsets(size), truth, brain)


def test_noise_and_blur_within_the_slices_are_no_stripes():
    truth, brain = truth_and_brain()
    noisy = truth + 0.05 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
    blurred = torch.from_numpy(gaussian_filter(truth.numpy(), (2, 2, 0)))
    for pred in (noisy, blurred):
        assert stripes(pred, truth, brain) < 0.06 * gradient_z(pred, truth, brain)
        striped = stripes(pred + offsets(0.01), truth, brain)
        assert striped == pytest.approx(stripes(truth + offsets(0.01), truth, brain), rel=0.1)
    assert gradient_z(noisy, truth, brain) == pytest.approx(gradient_xy(noisy, truth, brain), rel=0.02)
    assert gradient_z(noisy, truth, brain) == pytest.approx(2 / math.sqrt(math.pi) * 0.05, rel=0.02)


def test_a_pattern_that_stays_from_slice_to_slice_is_seen_within_them_alone():
    truth, brain = truth_and_brain()
    streaks = 0.05 * torch.randn(SHAPE[:2], generator=torch.Generator().manual_seed(5))[..., None]
    assert gradient_z(truth + streaks, truth, brain) == pytest.approx(0, abs=1e-6)
    assert gradient_xy(truth + streaks, truth, brain) == pytest.approx(2 / math.sqrt(math.pi) * 0.05, rel=0.05)


def test_what_lies_outside_the_mask_counts_nowhere():
    truth, brain = truth_and_brain()
    pred = truth + offsets(0.05)
    black = pred * brain
    for metric in (gradient_z, stripes):
        assert metric(black, truth * brain, brain) == pytest.approx(metric(pred, truth, brain), rel=1e-9)


def test_faults_are_named():
    truth, brain = truth_and_brain()
    for metric in (gradient_z, stripes):
        with pytest.raises(ValueError, match="one 2-D or 3-D shape"):
            metric(truth[1:], truth, brain)
        with pytest.raises(ValueError, match="the mask is empty"):
            metric(truth, truth, 0 * brain)
        with pytest.raises(ValueError, match="the images are 2-D"):
            metric(truth[20], truth[20], brain[20])
        with pytest.raises(ValueError, match="no two voxels of the mask are neighbours along Z"):
            metric(truth, truth, brain * (torch.arange(SHAPE[2]) == 18))
