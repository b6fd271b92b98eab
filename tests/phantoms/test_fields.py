import pytest
import torch

from bundle.phantoms.fields import blur, positions, sample, smooth_noise


@pytest.mark.parametrize("sigma", [1.2, 3, 8])
def test_noise_has_unit_variance_and_its_smoothness(sigma):
    noise = smooth_noise((96, 80, 88), sigma, torch.Generator().manual_seed(0), 2)
    assert noise.shape == (2, 96, 80, 88)
    assert float(noise.std()) == pytest.approx(1, abs=0.25)
    # the correlation of a Gaussian-smoothed field at a distance d is exp(-d^2 / (4 sigma^2))
    step = round(sigma)
    correlation = torch.corrcoef(torch.stack([noise[:, :-step].flatten(), noise[:, step:].flatten()]))[0, 1]
    assert float(correlation) == pytest.approx(2.71828 ** -(step**2 / (4 * sigma**2)), abs=0.15)


def test_blur_spreads_a_point_by_sigma():
    point = torch.zeros(1, 31, 31, 31)
    point[0, 15, 15, 15] = 1
    spread = blur(point, (2.0, 0, 1.0))
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    offset = positions((31, 31, 31), point.device) - 15
    widths = [float((spread[0] * axis**2).sum()) ** 0.5 for axis in offset]
    assert widths == pytest.approx([2.0, 0, 1.0], abs=0.12)


def test_blur_keeps_a_constant_at_the_edge():
    torch.testing.assert_close(blur(torch.ones(2, 9, 8, 7), 2.0), torch.ones(2, 9, 8, 7))


def test_sample_at_half_voxels_averages():
    volume = torch.arange(24.0).view(1, 2, 3, 4)
    places = positions((1, 2, 3), volume.device) + 0.5
    expected = volume.unfold(1, 2, 1).unfold(2, 2, 1).unfold(3, 2, 1).mean((-1, -2, -3))
    torch.testing.assert_close(sample(volume, places), expected)
