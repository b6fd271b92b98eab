"""PSNR and SSIM inside a mask, against scikit-image and MONAI on the same arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import SSIMMetric
from monai.metrics.regression import compute_ssim_and_cs
from skimage.metrics import peak_signal_noise_ratio

from bundle.metrics.brain import psnr, ssim, ssim_brasyn, ssim_map, surroundings

SHAPES = [(48, 40), (30, 34, 28)]


def pair(shape):
    generator = torch.Generator().manual_seed(1)
    truth = torch.nn.functional.avg_pool1d(torch.rand(shape, generator=generator), 3, 1, 1)
    return (truth + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1), truth


def inner(shape, margin=8):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(margin, -margin) for _ in shape)] = True
    return mask


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_psnr_is_that_of_scikit_image(shape, data_range):
    pred, truth = (data_range * image for image in pair(shape))
    mask = inner(shape)
    expected = peak_signal_noise_ratio(truth[mask].numpy(), pred[mask].numpy(), data_range=data_range)
    assert psnr(pred, truth, mask, data_range) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_is_that_of_monai(shape, data_range):
    pred, truth = (data_range * image for image in pair(shape))
    mask = inner(shape)
    window = {"kernel_size": [11] * len(shape), "kernel_sigma": [1.5] * len(shape)}
    valid, _ = compute_ssim_and_cs(pred[None, None], truth[None, None], len(shape), data_range=data_range, **window)
    expected = valid[0, 0][tuple(slice(3, -3) for _ in shape)].mean().item()  # 5 voxels are lost, the mask starts at 8
    assert ssim(pred, truth, mask, data_range) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_outside_the_mask_counts_for_psnr_nor_far_away_for_ssim(shape):
    pred, truth = pair(shape)
    mask = inner(shape, 10)
    elsewhere = pred.clone()
    elsewhere[:4] = 1 - elsewhere[:4]
    assert psnr(elsewhere, truth, mask) == psnr(pred, truth, mask)
    assert ssim(elsewhere, truth, mask) == ssim(pred, truth, mask)
    elsewhere[9] = 1 - elsewhere[9]  # the window reaches it
    assert ssim(elsewhere, truth, mask) < ssim(pred, truth, mask) - 0.005


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_images(shape):
    _, truth = pair(shape)
    mask = torch.ones(shape)
    assert psnr(truth, truth, mask) == math.inf
    assert ssim(truth, truth, mask) == pytest.approx(1, abs=1e-6)


def test_masks_of_any_kind_and_touching_the_border():
    pred, truth = pair((20, 20))
    mask = torch.zeros(20, 20)
    mask[:3, :3] = 0.5
    assert 0 < ssim(pred, truth, mask) < 1
    assert psnr(pred, truth, mask) == psnr(pred, truth, mask.bool())


def test_thin_volume_of_one_slice():
    pred, truth = (image[..., None] for image in pair((24, 24)))
    assert 0 < ssim(pred, truth, torch.ones(24, 24, 1)) < 1


def test_known_value():
    assert psnr(torch.full((4, 4), 0.6), torch.full((4, 4), 0.5), torch.ones(4, 4)) == pytest.approx(20, abs=1e-4)


def test_faults_are_named():
    image = torch.zeros(8, 8)
    with pytest.raises(ValueError, match=r"one 2-D or 3-D shape, got \(8, 8\), \(8, 9\)"):
        psnr(image, torch.zeros(8, 9), image)
    with pytest.raises(ValueError, match="mask is empty"):
        ssim(image, image, image)


def test_half_precision_images_are_scored_in_full_precision():
    pred, truth = pair((40, 40))
    mask = inner((40, 40))
    half = ssim(pred.half(), truth.half(), mask)
    assert half == pytest.approx(ssim(pred, truth, mask), abs=2e-3)
    assert np.isfinite(psnr(pred.half(), truth.half(), mask))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_map_of_ssim_serves_several_masks(shape):
    pred, truth = pair(shape)
    whole, part = torch.ones(shape, dtype=torch.bool), inner(shape, 10)
    similarity = ssim_map(pred, truth, whole)
    assert similarity.shape == truth.shape
    for mask in (whole, part):
        assert similarity[mask].mean().item() == pytest.approx(ssim(pred, truth, mask), abs=1e-5)
    assert ssim_map(pred, truth, part)[(0,) * len(shape)].isnan()  # not computed there, and not to be used


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("largest", [1.0, 0.4])
def test_ssim_of_brasyn_is_that_of_monai_on_masked_images(shape, largest):
    pred, truth = (largest * image for image in pair(shape))
    mask = inner(shape, 3)
    mask[:2, 5:15] = True  # touches the border
    data_range = max((pred * mask).max(), (truth * mask).max()).item()
    metric = SSIMMetric(len(shape), data_range=data_range)  # leaves out what its window does not fit around
    expected = metric((pred * mask)[None, None], (truth * mask)[None, None]).item()
    assert ssim_brasyn(pred, truth, mask) == pytest.approx(expected, abs=1e-5)


def test_ssim_of_brasyn_counts_what_is_outside_as_equal():
    pred, truth = pair((30, 34, 28))
    small, large = inner((30, 34, 28), 12), inner((30, 34, 28), 2)
    assert ssim(pred, truth, small) < 0.9 < 0.98 < ssim_brasyn(pred, truth, small) < 1
    assert ssim_brasyn(pred, truth, large) < 0.9
    assert ssim_brasyn(torch.zeros(20, 20), torch.zeros(20, 20), torch.ones(20, 20)) == 1
    with pytest.raises(ValueError, match="must exceed 10 voxels"):
        ssim_brasyn(pred[..., :10], truth[..., :10], large[..., :10])


def test_surroundings_end_at_the_border():
    mask = torch.zeros(20, 9, dtype=torch.bool)
    mask[4:7, 7] = True
    assert surroundings(mask, 0) == (slice(4, 7), slice(7, 8))
    assert mask[surroundings(mask, 5)].shape == (12, 7)
