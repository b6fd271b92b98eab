"""HFEN and the sharpness ratio against dense filters written from their formulas."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from bundle.metrics.sharpness import hfen, sharpness

SHAPES = [(48, 40), (30, 34, 28)]


def pair(shape):
    generator = torch.Generator().manual_seed(1)
    truth = torch.nn.functional.avg_pool1d(torch.rand(shape, generator=generator), 3, 1, 1)
    return (truth + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1), truth


def inner(shape, margin=8):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(margin, -margin) for _ in shape)] = True
    return mask


def filtered(image, kernel):
    edged = np.pad(image.double().numpy(), kernel.shape[0] // 2, mode="edge")
    return torch.from_numpy(fftconvolve(edged, kernel, mode="valid"))


def laplacian_of_gaussian(dims):
    places = np.stack(np.meshgrid(*[np.arange(-7.0, 8)] * dims, indexing="ij"))
    r2, variance = (places**2).sum(0), 1.5**2
    gaussian = np.exp(-r2 / (2 * variance))
    return (r2 / variance**2 - dims / variance) * gaussian / gaussian.sum()


def sobel_magnitude(image):
    total = 0
    for axis in range(image.ndim):
        kernel = np.zeros((3,) * image.ndim)
        for place in product(range(3), repeat=image.ndim):
            smooth = np.prod([(1, 2, 1)[i] for other, i in enumerate(place) if other != axis])
            kernel[place] = (-1, 0, 1)[place[axis]] * smooth
        total = total + filtered(image, kernel) ** 2
    return total.sqrt()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("margin", [2, 8])
def test_hfen_is_its_formula(shape, margin):
    pred, truth = pair(shape)
    mask, kernel = inner(shape, margin), laplacian_of_gaussian(len(shape))
    edges = [filtered(image, kernel)[mask] for image in (pred, truth)]
    expected = ((edges[0] - edges[1]).norm() / edges[1].norm()).item()
    assert hfen(pred, truth, mask) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("margin", [2, 8])
def test_sharpness_is_its_formula(shape, margin):
    pred, truth = pair(shape)
    made, real = (sobel_magnitude(image)[inner(shape, margin + 1)].mean() for image in (pred, truth))
    assert sharpness(pred, truth, inner(shape, margin)) == pytest.approx((made / real).item(), rel=1e-4)


def test_known_answers():
    _, truth = pair((30, 34, 28))
    mask = inner(truth.shape)
    assert hfen(truth, truth, mask) == 0
    assert hfen(torch.full_like(truth, 0.4), truth, mask) == pytest.approx(1, rel=1e-4)
    assert hfen(1.25 * truth + 0.1, truth, mask) == pytest.approx(0.25, rel=1e-4)
    assert sharpness(truth, truth, mask) == 1
    assert sharpness(1 - truth, truth, mask) == pytest.approx(1, rel=1e-5)
    assert sharpness(1.25 * truth + 0.1, truth, mask) == pytest.approx(1.25, rel=1e-5)
    assert sharpness(torch.full_like(truth, 0.4), truth, mask) == pytest.approx(0, abs=1e-5)


def test_blur_lowers_sharpness_and_raises_hfen():
    _, truth = pair((30, 34, 28))
    mask = inner(truth.shape, 4)
    blurred = [torch.from_numpy(gaussian_filter(truth.numpy(), sigma)) for sigma in (0.5, 1.0, 2.0)]
    ratios = [sharpness(image, truth, mask) for image in blurred]
    assert 1 > ratios[0] > ratios[1] > ratios[2] > 0
    errors = [hfen(image, truth, mask) for image in blurred]
    assert 0 < errors[0] < errors[1] < errors[2] < 1.05


def test_the_step_from_brain_to_black_is_not_sharpness():
    _, truth = pair((30, 34, 28))
    mask = inner(truth.shape)
    dark, bright = truth * mask, (truth + 5) * mask
    assert sharpness(bright, dark, mask) == pytest.approx(1, rel=1e-4)
    assert hfen(bright, dark, mask) > 1


def test_images_of_one_slice_and_masks_that_touch_the_border():
    pred, truth = (image[..., None] for image in pair((24, 24)))
    mask = torch.ones(24, 24, 1)
    assert sharpness(pred, truth, mask) == pytest.approx(sharpness(pred[..., 0], truth[..., 0], mask[..., 0]), rel=1e-5)
    assert hfen(pred, truth, mask) == pytest.approx(hfen(pred[..., 0], truth[..., 0], mask[..., 0]), rel=1e-4)


def test_faults_are_named():
    image, mask = torch.rand(12, 12), torch.ones(12, 12)
    for metric in (hfen, sharpness):
        with pytest.raises(ValueError, match="one 2-D or 3-D shape"):
            metric(image, torch.rand(12, 13), mask)
        with pytest.raises(ValueError, match="mask is empty"):
            metric(image, image, 0 * mask)
        with pytest.raises(ValueError, match="truth is constant in the mask"):
            metric(image, 0 * image, mask)
    line = torch.zeros(12, 12)
    line[4:8, 5:7] = 1
    with pytest.raises(ValueError, match="too thin"):
        sharpness(image, image, line)
