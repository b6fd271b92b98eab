import math

import pytest
import torch

from bundle.losses.autoencoder import AutoencoderLoss

TRUTH = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def latents(mu=0.0, sigma=1.0):
    return torch.full((2, 3, 8, 8), mu), torch.full((2, 3, 8, 8), sigma)


def test_a_faithful_copy_with_a_normal_posterior_costs_nothing():
    assert AutoencoderLoss(kl_weight=1.0)((TRUTH, *latents()), TRUTH).item() == pytest.approx(0, abs=1e-5)


def test_absolute_error():
    loss = AutoencoderLoss(kl_weight=0.0, frequency_weight=0.0)
    assert loss((TRUTH + 0.25, *latents(5.0, 0.1)), TRUTH).item() == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize(("mu", "sigma"), [(2.0, 1.0), (0.0, 0.5), (1.0, 0.05)])
def test_divergence_per_image(mu, sigma):
    """Summed over the 3 x 8 x 8 latents, averaged over the batch."""
    per_latent = 0.5 * (mu**2 + sigma**2 - math.log(sigma**2) - 1)
    loss = AutoencoderLoss(kl_weight=0.01, frequency_weight=0.0)
    assert loss((TRUTH, *latents(mu, sigma)), TRUTH).item() == pytest.approx(0.01 * 192 * per_latent, rel=1e-4)


def test_frequency_term_sees_a_blur():
    blurred = torch.nn.functional.avg_pool2d(TRUTH, 3, 1, 1)
    without, with_it = (AutoencoderLoss(0.0, weight)((blurred, *latents()), TRUTH) for weight in (0.0, 0.1))
    assert with_it > without + 0.01


def test_half_precision_is_computed_in_full():
    prediction = tuple(p.bfloat16() for p in (TRUTH, *latents()))
    assert AutoencoderLoss()(prediction, TRUTH).dtype == torch.float32
