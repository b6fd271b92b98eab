"""MAE, NMSE, correlation, NMI and MS-SSIM against NumPy, their formulas and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import MAEMetric, MultiScaleSSIMMetric
from monai.metrics.regression import compute_ssim_and_cs
from torch.nn.functional import avg_pool2d, avg_pool3d, pad

from bundle.metrics.brain import ssim, ssim_map
from bundle.metrics.similarity import correlation, mae, ms_ssim, nmi, nmse

SHAPES = [(48, 40), (26, 30, 24)]
METRICS = [mae, nmse, nmi, ms_ssim, correlation]


def pair(shape, noise=0.1):
    generator = torch.Generator().manual_seed(1)
    truth = torch.nn.functional.avg_pool1d(torch.rand(shape, generator=generator), 3, 1, 1)
    return (truth + noise * torch.randn(shape, generator=generator)).clamp(0, 1), truth


def ball(shape, radius=0.9):
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sum(axis**2 for axis in axes) < radius**2


@pytest.mark.parametrize("shape", SHAPES)
def test_mae_is_that_of_numpy_and_monai(shape):
    pred, truth = pair(shape)
    mask = ball(shape)
    p, t = (image[mask].double().numpy() for image in (pred, truth))
    assert mae(pred, truth, mask) == pytest.approx(np.abs(p - t).mean(), rel=1e-9)
    whole = MAEMetric()(pred[None, None], truth[None, None]).item()
    assert mae(pred, truth, torch.ones(shape)) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_nmse_is_its_formula(shape):
    pred, truth = pair(shape)
    mask = ball(shape)
    p, t = (image[mask].double().numpy() for image in (pred, truth))
    expected = np.linalg.norm(p - t) ** 2 / np.linalg.norm(t) ** 2
    assert nmse(pred, truth, mask) == pytest.approx(expected, rel=1e-9)
    assert nmse(torch.zeros(shape), truth, mask) == 1
    assert nmse(3 * truth, truth, mask) == pytest.approx(4, rel=1e-6)
    with pytest.raises(ValueError, match="zero everywhere in the mask"):
        nmse(pred, truth * ~mask, mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_is_that_of_numpy(shape):
    pred, truth = pair(shape)
    mask = ball(shape)
    expected = np.corrcoef(pred[mask].numpy(), truth[mask].numpy())[0, 1]
    assert 0.5 < correlation(pred, truth, mask) < 0.95
    assert correlation(pred, truth, mask) == pytest.approx(expected, rel=1e-6)
    assert correlation(0.2 + 0.3 * pred, truth, mask) == pytest.approx(expected, rel=1e-5)  # blind to gain and offset
    assert correlation(-truth, truth, mask) == pytest.approx(-1)
    assert np.isnan(correlation(torch.full(shape, 0.5), truth, mask))


@pytest.mark.parametrize("shape", SHAPES)
def test_nmi_is_its_formula(shape):
    pred, truth = pair(shape)
    mask = ball(shape)
    joint, _, _ = np.histogram2d(pred[mask].numpy(), truth[mask].numpy(), bins=100)
    p = joint / joint.sum()
    entropies = [-(q[q > 0] * np.log(q[q > 0])).sum() for q in (p.sum(0), p.sum(1), p)]
    expected = (entropies[0] + entropies[1]) / entropies[2]
    assert nmi(pred, truth, mask) == pytest.approx(expected, rel=1e-6)
    assert 1 < expected < 2


def test_nmi_from_nothing_shared_to_everything():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 800, 800, generator=generator)
    everywhere = torch.ones(one.shape)
    assert nmi(one, other, everywhere) == pytest.approx(1, abs=5e-3)
    assert nmi(one, one, everywhere) == pytest.approx(2, abs=1e-9)
    assert nmi((one * 64).round(), 1 - (one * 64).round() / 64, everywhere) == pytest.approx(2, abs=1e-9)  # inverted
    assert nmi(torch.full_like(one, 0.5), one, everywhere) == pytest.approx(1)
    assert nmi(torch.full_like(one, 0.5), torch.ones_like(one), everywhere) == 1


def scale_factors(pred, truth, mask, scales):
    """Mean contrast-structure of all scales but the last, mean SSIM of that, by MONAI's dense filter."""
    dims = truth.ndim
    pool = avg_pool2d if dims == 2 else avg_pool3d
    x, y, share = (image.float()[None, None] for image in (pred, truth, mask))
    factors = []
    for scale in range(scales):
        edged = [pad(image, (5, 5) * dims, mode="replicate") for image in (x, y)]
        similarity, contrast = compute_ssim_and_cs(*edged, dims, [11] * dims, [1.5] * dims)
        chosen = similarity if scale == scales - 1 else contrast
        factors.append(((chosen * share).sum() / share.sum()).item())
        x, y, share = (pool(image, 2) for image in (x, y, share))
    return factors


@pytest.mark.parametrize(("shape", "scales"), [((97, 90), 4), ((176, 180), 5), ((50, 46, 52), 3)])
def test_ms_ssim_is_the_product_of_the_scales_of_monai(shape, scales):
    pred, truth = pair(shape, 0.3)
    mask = ball(shape, 1.1)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    expected = np.prod(np.array(scale_factors(pred, truth, mask, scales)) ** (weights / weights.sum()))
    assert ms_ssim(pred, truth, mask) == pytest.approx(expected, abs=1e-5)
    assert 0.2 < expected < 0.95


def test_ms_ssim_agrees_with_monai_where_the_border_hardly_counts():
    pred, truth = pair((700, 640), 0.3)
    expected = MultiScaleSSIMMetric(2)(pred[None, None], truth[None, None]).item()
    assert ms_ssim(pred, truth, torch.ones(truth.shape)) == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_ms_ssim_takes_the_map_that_is_known(shape):
    pred, truth = pair(shape)
    mask = ball(shape)
    similarity = ssim_map(pred, truth, torch.ones(shape))
    assert ms_ssim(pred, truth, mask, similarity=similarity) == pytest.approx(ms_ssim(pred, truth, mask), abs=1e-6)
    assert ms_ssim(pred, truth, mask, similarity=torch.zeros(shape)) == 0


def test_ms_ssim_knows_no_black_around_the_brain():
    mask = ball((64, 64))
    pred, truth = (image * mask for image in pair((64, 64)))
    wide = [pad(image.float(), (16, 32, 48, 16)) for image in (pred, truth, mask)]
    assert ms_ssim(*wide) == pytest.approx(ms_ssim(pred, truth, mask), abs=1e-6)


def test_ms_ssim_of_a_small_or_thin_mask_is_ssim():
    pred, truth = pair((40, 40, 40))
    small = torch.zeros(truth.shape)
    small[5:40, 5:40, 10:31] = 1  # 21 voxels: half of them do not hold the window
    assert ms_ssim(pred, truth, small) == pytest.approx(ssim(pred, truth, small), abs=1e-6)
    thin = [image[..., :1] for image in (pred, truth, torch.ones(truth.shape))]
    assert ms_ssim(*thin) == pytest.approx(ssim(*thin), abs=1e-6)


def test_ms_ssim_of_equal_and_of_inverted_images():
    _, truth = pair((97, 90))
    everywhere = torch.ones(truth.shape)
    assert ms_ssim(truth, truth, everywhere) == pytest.approx(1, abs=1e-6)
    assert ms_ssim(1 - truth, truth, everywhere) == 0
    pred = (truth + 0.1).clamp(0, 1)
    assert ms_ssim(255 * pred, 255 * truth, everywhere, 255.0) == pytest.approx(
        ms_ssim(pred, truth, everywhere), abs=1e-5
    )


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_far_outside_the_mask_counts(metric):
    pred, truth = pair((60, 60))
    mask = torch.zeros(60, 60)
    mask[24:46, 24:46] = 1
    elsewhere = pred.clone()
    elsewhere[:8] = 1 - elsewhere[:8]  # further away than the window of the second scale
    assert metric(elsewhere, truth, mask) == metric(pred, truth, mask)


@pytest.mark.parametrize("metric", METRICS)
def test_faults_are_named(metric):
    image = torch.rand(12, 12)
    with pytest.raises(ValueError, match=r"one 2-D or 3-D shape, got \(12, 12\), \(12, 13\)"):
        metric(image, torch.rand(12, 13), image)
    with pytest.raises(ValueError, match="mask is empty"):
        metric(image, image, torch.zeros(12, 12))
