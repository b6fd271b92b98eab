"""Smooth random fields, blurring and resampling of volumes in torch, on the device of their inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional


def smooth_noise(shape: Sequence[int], sigma: float, generator: Generator, channels: int = 1) -> Tensor:
    """Gaussian random fields of mean 0 and standard deviation 1, smoothed by a Gaussian of `sigma` voxels.

    Args:
        shape: of a field (X, Y, Z).
        sigma: at least 0.8. The noise is drawn on a grid of `sigma / 2` where that is coarser than a voxel.
        generator: where the noise comes from; the fields are on its device.
        channels: number of independent fields.

    Returns:
        (channels, X, Y, Z) float32.
    """
    step = max(1.0, sigma / 2)
    coarse = [math.ceil(n / step) + 4 for n in shape]
    noise = torch.randn((channels, *coarse), generator=generator, device=generator.device)
    noise = blur(noise, sigma / step)
    noise -= noise.mean((1, 2, 3), keepdim=True)
    noise /= noise.std((1, 2, 3), keepdim=True)
    return resize(noise, shape) if step > 1 else noise[:, : shape[0], : shape[1], : shape[2]]


def resize(volumes: Tensor, shape: Sequence[int]) -> Tensor:
    """Trilinear interpolation of (C, x, y, z) to (C, *shape), corner on corner."""
    return functional.interpolate(volumes[None], tuple(shape), mode="trilinear", align_corners=True)[0]


def blur(volumes: Tensor, sigma: float | Sequence[float]) -> Tensor:
    """Gaussian blur of (..., X, Y, Z); `sigma` in voxels, one number or one for each axis. The edge is continued."""
    for axis, width in zip((-3, -2, -1), [sigma] * 3 if isinstance(sigma, int | float) else sigma):
        if width > 0:
            volumes = _blur_along(volumes, axis, width)
    return volumes


def _blur_along(volumes: Tensor, axis: int, sigma: float) -> Tensor:
    reach = max(1, math.ceil(2.5 * sigma))
    taps = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]
    size, whole = volumes.shape[axis], sum(taps)
    first, last = volumes.narrow(axis, 0, 1), volumes.narrow(axis, size - 1, 1)
    padded = torch.cat([*[first] * reach, volumes, *[last] * reach], dim=axis)
    blurred = padded.narrow(axis, 0, size) * (taps[0] / whole)
    for k, tap in enumerate(taps[1:], start=1):
        blurred.add_(padded.narrow(axis, k, size), alpha=tap / whole)
    return blurred


def sample(volumes: Tensor, places: Tensor, padding: str = "zeros") -> Tensor:
    """Trilinear interpolation of (C, X, Y, Z) at `places` (3, x, y, z) in voxels: (C, x, y, z)."""
    size = torch.tensor(volumes.shape[1:], device=places.device).view(3, 1, 1, 1)
    grid = (2 * places / (size - 1).clamp(min=1) - 1).flip(0).movedim(0, -1)
    return functional.grid_sample(volumes[None], grid[None], padding_mode=padding, align_corners=True)[0]


def positions(shape: Sequence[int], device: torch.device, step: float = 1.0) -> Tensor:
    """The place of each node of a grid of `shape`, `step` voxels apart: (3, *shape) float32."""
    axes = [step * torch.arange(n, device=device, dtype=torch.float32) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def soft_step(signed: Tensor, width: float) -> Tensor:
    """1 where `signed` is well above 0, 0 well below, over about four `width`."""
    return torch.sigmoid(signed / width)
