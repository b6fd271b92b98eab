"""Augmentation of whole batches of slices on their device: an affine map, and the look of another scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def affine_grid(
    count: int,
    side: int,
    window: int,
    shift: float,
    generator: torch.Generator,
    device: torch.device,
    mirrored: Tensor | None = None,
    rotate: float = 0.2,
    shear: float = 0.1,
    scale: float = 0.12,
    prob: float = 0.7,
) -> Tensor:
    """Where to sample slices (B, c, side, side) for augmented windows, for `grid_sample` without aligned corners.

    Each window is moved by up to `shift` pixels; with `prob` it is turned, sheared and scaled, too.

    Args:
        count: B.
        side, window: sides of the slices and of the windows in pixels.
        shift: largest distance between the middles of window and slice, along each axis, in pixels.
        generator, device: of the draw.
        mirrored: (B,), 1 where the first axis is reversed; None: nowhere.
        rotate: largest angle in radians.
        shear: largest shear, without unit.
        scale: largest relative change of size.
        prob: of turning, shearing and scaling.

    Returns:
        (B, window, window, 2), x (the second axis) first.
    """

    def draw(n: int) -> Tensor:
        return 2 * torch.rand(count, n, generator=generator, device=device) - 1

    changed = (torch.rand(count, 1, generator=generator, device=device) < prob).float()
    angle, sheared, size = (
        limit * changed * part for limit, part in zip((rotate, shear, scale), (draw(1), draw(2), draw(2)))
    )
    cos, sin, identity = angle.cos()[..., None], angle.sin()[..., None], torch.eye(2, device=device)
    turn = torch.cat([torch.cat([cos, -sin], 2), torch.cat([sin, cos], 2)], 1)
    matrix = turn @ (identity + sheared[:, :, None] * (1 - identity)) @ torch.diag_embed(1 + size)
    if mirrored is not None:
        sign = 1 - 2 * mirrored.float()
        matrix = matrix * torch.stack([torch.ones_like(sign), sign], dim=1)[:, None]  # the first axis is y
    theta = torch.cat([matrix * (window / side), (draw(2) * 2 * shift / side)[:, :, None]], dim=2)
    return F.affine_grid(theta, [count, 1, window, window], align_corners=False)


@dataclass(frozen=True)
class Appearance:
    """Change gamma, gain, bias field, sharpness and noise of each contrast of each sample independently.

    Zeros (background) stay zero and the result is clipped to [0, 1]. The changed copy is what the network sees; the
    truth stays as it was, since nothing in the input tells how that scanner would differ.

    Attributes:
        gamma: range of the exponent.
        gain: largest relative change of the scale.
        bias: largest logarithm of the bias field, a polynomial of degree 2.
        noise: largest standard deviation of the Gaussian noise.
        prob: probability of each change, per contrast; of smoothing a quarter of it.
    """

    gamma: tuple[float, float] = (0.7, 1.5)
    gain: float = 0.1
    bias: float = 0.2
    noise: float = 0.03
    prob: float = 0.5

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """image (B, M, H, W) in [0, 1] -> the changed copy."""
        b, m, h, w = image.shape

        def draw(*shape: int) -> Tensor:
            return torch.rand(b, m, *shape, generator=generator, device=image.device)

        def one_in(prob: float) -> Tensor:
            return (draw(1, 1) < prob).float()

        low, high = (math.log(limit) for limit in self.gamma)
        exponent = torch.exp(one_in(self.prob) * (low + (high - low) * draw(1, 1)))
        x = image.clamp(min=1e-6) ** exponent
        x = x * (1 + one_in(self.prob) * self.gain * (2 * draw(1, 1) - 1))
        x = x * torch.exp(one_in(self.prob) * self.bias * self.field(2 * draw(5) - 1, h, w))
        weight = one_in(self.prob / 4) * 0.3 * draw(1, 1)  # of the neighbours on either side, along both axes
        kernel = torch.cat([weight, 1 - 2 * weight, weight], dim=3).flatten(0, 1)
        flat = x.flatten(0, 1)[None]
        for shape in ((b * m, 1, 3, 1), (b * m, 1, 1, 3)):
            padding = (shape[2] // 2, shape[3] // 2)
            flat = F.conv2d(flat, kernel.reshape(shape), padding=padding, groups=b * m)
        x = flat[0].unflatten(0, (b, m))
        deviation = one_in(self.prob) * self.noise * draw(1, 1)
        x = x + deviation * torch.randn(x.shape, generator=generator, device=x.device)
        return x.clamp(0, 1) * (image > 0)

    @staticmethod
    def field(coefficients: Tensor, h: int, w: int) -> Tensor:
        """A polynomial of degree 2 without constant over the slice, (B, M, 5) in [-1, 1] -> (B, M, h, w)."""
        y, x = (torch.linspace(-1, 1, n, device=coefficients.device) for n in (h, w))
        y, x = y[:, None].expand(h, w), x[None, :].expand(h, w)
        terms = torch.stack([x, y, x * y, x**2 - 1 / 3, y**2 - 1 / 3])
        return torch.einsum("bmk,khw->bmhw", coefficients, terms) / 2
