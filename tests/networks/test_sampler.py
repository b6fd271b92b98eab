"""The few-step sampler on a Gaussian, whose noise is known."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from bundle.networks.sampler import add_noise, dpm_solver, timesteps

ALPHAS = DDPMScheduler(1000, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0195).alphas_cumprod


def exact_noise(std: float):
    """epsilon(z_t) of data from N(0, std^2): sqrt(1 - a) z / (a std^2 + 1 - a)."""

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        a = ALPHAS[t]
        return (1 - a).sqrt() * z / (a * std**2 + 1 - a)

    return predict


def exact_clean(std: float):
    """E[z_0 | z_t] of data from N(0, std^2): sqrt(a) std^2 z / (a std^2 + 1 - a)."""

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        a = ALPHAS[t]
        return a.sqrt() * std**2 * z / (a * std**2 + 1 - a)

    return predict


@pytest.mark.parametrize(("num_steps", "tolerance"), [(10, 0.1), (20, 0.02), (100, 0.004)])
def test_from_pure_noise_it_reaches_the_width_of_the_data(num_steps: int, tolerance: float) -> None:
    z = torch.randn(4, 3, 64, 64)
    out = dpm_solver(exact_clean(0.5), z, ALPHAS, timesteps(999, num_steps))
    assert out.std().item() == pytest.approx(0.5, abs=tolerance)


def test_a_perfect_prediction_gives_back_the_clean_latent() -> None:
    z_0, noise = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    z_t = add_noise(z_0, noise, ALPHAS[300])
    out = dpm_solver(lambda z, t: z_0, z_t, ALPHAS, timesteps(300, 4))
    torch.testing.assert_close(out, z_0, atol=1e-4, rtol=0)


def test_with_many_steps_it_agrees_with_the_scheduler_of_monai() -> None:
    scheduler = DDIMScheduler(1000, "scaled_linear_beta", beta_start=0.0015, beta_end=0.0195, clip_sample=False)
    scheduler.set_timesteps(1000)
    z = torch.randn(2, 3, 8, 8)
    reference = z.clone()
    for t in scheduler.timesteps:
        reference, _ = scheduler.step(exact_noise(0.5)(reference, int(t)), int(t), reference)
    out = dpm_solver(exact_clean(0.5), z, ALPHAS, list(range(999, 0, -1)))
    torch.testing.assert_close(out, reference, atol=2e-2, rtol=0)


def test_more_steps_than_noise_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_steps: 11 must lie in 1\.\.10"):
        timesteps(10, 11)
    assert timesteps(10, 10) == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert timesteps(300, 4) == [300, 169, 75, 19]
    assert all(len(set(timesteps(300, n))) == n for n in range(1, 301))
