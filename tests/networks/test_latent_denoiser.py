"""What the denoiser predicts, and what it is told."""

from __future__ import annotations

import pytest
import torch

from bundle.networks.latent_denoiser import LatentDenoiser
from bundle.networks.sampler import add_noise

SIZE = {
    "channels": (8, 16),
    "attention_levels": (False, False),
    "norm_num_groups": 4,
    "num_head_channels": 8,
    "guidance_channels": 4,
}


def denoiser(**options: object) -> LatentDenoiser:
    return LatentDenoiser(3, 2, 5, **SIZE, **options).eval()


@pytest.mark.parametrize("prediction", ["v", "noise"])
def test_a_true_prediction_gives_back_the_clean_latent(prediction: str) -> None:
    network = denoiser(prediction=prediction)
    z_0, noise = torch.randn(2, 3, 2, 8, 8)
    alpha_bar = torch.tensor(0.3)
    truth = network.truth(z_0, noise, alpha_bar.expand(3))
    torch.testing.assert_close(network.clean(truth, add_noise(z_0, noise, alpha_bar), alpha_bar), z_0)


def test_v_is_the_noise_without_noise_and_minus_the_latent_in_pure_noise() -> None:
    z_0, noise = torch.randn(2, 2, 2, 8, 8)
    truth = denoiser().truth(z_0, noise, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(truth, torch.stack([noise[0], -z_0[1]]))


def test_the_reconstruction_guides_it_or_not() -> None:
    fused, latents, presence = torch.randn(1, 5, 4, 4), torch.randn(1, 3, 2, 8, 8), torch.tensor([[1.0, 0, 1]])
    means = torch.randn(2, 1, 2, 8, 8)
    for guided in (True, False):
        network = denoiser(mean_guidance=guided)
        one, other = (network.condition(fused, latents, presence, mean) for mean in means)
        assert one.shape == (1, 4 + 3 * 2 + 3 + 2 * guided, 8, 8)
        assert torch.equal(one, other) is not guided
        assert not one[:, 4 + 2 : 4 + 4].any()  # the latent of the absent contrast
    with pytest.raises(ValueError, match="prediction: 'x0' must be one of"):
        denoiser(prediction="x0")
