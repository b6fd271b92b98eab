"""The voxel-wise perceptron: what the intensities of a voxel tell about its missing contrasts, without context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from bundle.networks.baselines.completion import Completion

SCALES = (1.5, 4.0)  # pixels of 1 mm: standard deviations of the Gaussians beside the image itself
DEEPEST = 40  # pixels: where the distance to the boundary is no longer counted
WIDEST_HOLE = 9  # pixels, odd: dark fluid inside the brain that is narrower is filled, it is no boundary


class VoxelMLP(Completion):
    """One small perceptron per contrast, the same at every pixel of the brain; outside it is 0.

    It sees, of one pixel of an axial slice: the given contrasts as they are and under Gaussians of 1.5 and 4 mm *in the
    slice* (the network gets axial slices, so nothing reaches across them), which contrasts are given, and where the
    pixel lies (`place_in_brain`). A missing contrast is 0 at all scales. One network serves all subsets.

    Args:
        contrasts: names of the M contrasts, in channel order.
        units: of each of the two hidden layers of a perceptron.
    """

    def __init__(self, contrasts: Sequence[str], units: int = 96) -> None:
        super().__init__(contrasts)
        m = len(self.contrasts)
        features = m * (len(SCALES) + 2) + 3
        self.perceptrons = nn.ModuleList(
            nn.Sequential(
                nn.Linear(features, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1)
            )
            for _ in self.contrasts
        )

    def make(self, image: Tensor, presence: Tensor) -> Tensor:
        brain = filled((image != 0).any(1, keepdim=True).to(image.dtype))
        scales = [image, *(smoothed(image, sigma) for sigma in SCALES)]
        features = torch.cat([*scales, presence, place_in_brain(brain)], dim=1).movedim(1, -1)
        inside = brain[:, 0] > 0
        pixels = features[inside]
        result = features.new_zeros(*inside.shape, len(self.contrasts))
        result[inside] = torch.cat([perceptron(pixels) for perceptron in self.perceptrons], dim=1).to(result.dtype)
        return result.movedim(-1, 1)


def smoothed(image: Tensor, sigma: float) -> Tensor:
    """Images (B, M, H, W) under a Gaussian of so many pixels, with zeros around them."""
    return separable_filtering(image, [gaussian_1d(torch.tensor(sigma), approx="sampled", normalize=True)] * 2)


def place_in_brain(brain: Tensor) -> Tensor:
    """Where each pixel lies in the brain of its slice: mask (B, 1, H, W), 0 or 1 -> (B, 3, H, W).

    The channels are the distance to the brain's boundary, 0 outside it and 1 from 40 pixels on, and the row and the
    column in the brain's box, -1 to 1 from edge to edge, and beyond that outside it. Without a brain all are 0.
    """
    return torch.cat([distance_to_boundary(brain), position_in_box(brain)], dim=1)


def filled(mask: Tensor) -> Tensor:
    """A mask (B, 1, H, W), 0 or 1, with its holes closed: fluid that is exactly 0 counts where it is at most 8 wide."""
    size, reach = WIDEST_HOLE, WIDEST_HOLE // 2
    wide = max_pool2d(pad(mask, [reach] * 4), size, 1, reach)  # padded, so that no gap to the image's edge is closed
    return -max_pool2d(-wide, size, 1)


def distance_to_boundary(mask: Tensor) -> Tensor:
    """Share of `DEEPEST` erosions, by a square and a cross in turn, that each pixel (B, 1, H, W) survives: 0 to 1.

    Along rows and columns an erosion is one pixel; diagonally two of them are 2.1. The image's edge is no boundary: a
    window cuts through the brain there.
    """
    depth = torch.zeros_like(mask)
    for step in range(DEEPEST):
        depth += mask
        square = step % 2 == 0
        mask = -max_pool2d(-mask, 3, 1, 1) if square else -torch.maximum(_along(-mask, 0), _along(-mask, 1))
    return depth / DEEPEST


def _along(image: Tensor, axis: int) -> Tensor:
    size, padding = ((3, 1), (1, 0)) if axis == 0 else ((1, 3), (0, 1))
    return max_pool2d(image, size, 1, padding)


def position_in_box(mask: Tensor) -> Tensor:
    """Row and column of each pixel in the box of its mask (B, 1, H, W), -1 to 1 inside: (B, 2, H, W)."""
    maps = []
    for axis in (2, 3):
        line = mask.amax(5 - axis)[:, 0] > 0  # (B, length)
        at = torch.arange(line.shape[1], device=mask.device, dtype=mask.dtype)
        low = torch.where(line, at, torch.inf).amin(1, keepdim=True)
        high = torch.where(line, at, -torch.inf).amax(1, keepdim=True)
        place = 2 * (at - low) / (high - low).clamp(min=1) - 1
        place = torch.where(line.any(1, keepdim=True), place, torch.zeros_like(place))
        maps.append((place[:, None, :, None] if axis == 2 else place[:, None, None, :]).expand(mask.shape))
    return torch.cat(maps, dim=1)
