"""Deterministic few-step sampling of the reverse diffusion process."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def timesteps(start: int, num_steps: int) -> list[int]:
    """`num_steps` descending time steps from `start` towards (but without) the clean end at 0.

    They are spaced quadratically (Song et al. 2021, App. D.2), since what is left of the noise at the last of them is
    lost as detail, and no step occurs twice.

    Raises:
        ValueError: more steps than there are noise levels up to `start`.
    """
    if not 1 <= num_steps <= start:
        raise ValueError(f"num_steps: {num_steps} must lie in 1..{start}, the number of noise levels up to the start.")
    return [max(round(start * (k / num_steps) ** 2), k) for k in range(num_steps, 0, -1)]


def add_noise(z_0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """q(z_t | z_0): sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) noise; alpha_bar () or (B,)."""
    a = alpha_bar.to(z_0.dtype).reshape(-1, *[1] * (z_0.ndim - 1))
    return a.sqrt() * z_0 + (1 - a).sqrt() * noise


def dpm_solver(
    predict_clean: Callable[[Tensor, int], Tensor], z: Tensor, alphas_cumprod: Tensor, steps: list[int]
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): second order, one evaluation of the network per step.

    Its steps go from each entry of `steps` exactly to the next. MONAI's DDIM scheduler places its steps on 999..0 yet
    subtracts 1000 // num_steps in `step`; the two disagree where the steps are few.

    Args:
        predict_clean: (z_t, t) -> what z_0 is thought to be, both (B, c, h, w).
        z: the latent at step `steps[0]`, (B, c, h, w).
        alphas_cumprod: alpha_bar of the T training steps, (T,).
        steps: descending time steps; from the last one the clean latent is predicted and returned.
    """
    alpha_bar = alphas_cumprod.double()[steps]  # the schedule's logarithms need float64 near the clean end
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    log_snr = (alpha / sigma).log()
    previous, previous_h = z, torch.ones(())
    for k, t in enumerate(steps):
        z_0 = predict_clean(z, t).to(z.dtype)
        if k + 1 == len(steps):
            break
        h = log_snr[k + 1] - log_snr[k]
        # Second order from the second step on: extrapolate the predicted clean latent to the middle of the step.
        d = z_0 if k == 0 else z_0 + float(h / (2 * previous_h)) * (z_0 - previous)
        z = float(sigma[k + 1] / sigma[k]) * z + float(alpha[k + 1] * -torch.expm1(-h)) * d
        previous, previous_h = z_0, h
    return z_0
