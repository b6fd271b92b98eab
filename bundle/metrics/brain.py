"""PSNR and SSIM inside the brain."""

from __future__ import annotations

import math

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5  # voxels: the Gaussian window of Wang et al., IEEE Trans Image Process 13:600 (2004)


def psnr(pred: Tensor, truth: Tensor, mask: Tensor, data_range: float = 1.0) -> float:
    """10 log10(data_range^2 / MSE) in dB, the squared error averaged over the mask; infinite for equal images.

    Args:
        pred, truth: images of one shape, (H, W) or (H, W, D).
        mask: of that shape, non-zero where voxels count.
        data_range: the width of the range of intensities, above 0.

    Raises:
        ValueError: shapes that differ or are not 2-D or 3-D, or an empty mask.
    """
    inside = _inside(pred, truth, mask)
    error = (pred[inside].double() - truth[inside].double()).square().mean().item()
    return 10 * math.log10(data_range**2 / error) if error else math.inf


def ssim(pred: Tensor, truth: Tensor, mask: Tensor, data_range: float = 1.0) -> float:
    """Structural similarity, its map averaged over the mask; 1 for equal images. Args and Raises as `psnr`.

    The map is that of the whole images: its window reaches beyond the mask, so that the brain's edge is compared with
    what lies around it. At the images' border the outermost voxels are repeated.
    """
    inside = _inside(pred, truth, mask)
    dims, half = truth.ndim, WINDOW // 2
    # only the mask's surroundings are convolved: a brain fills a third of its volume
    box = tuple(slice(max(0, int(i.min()) - half), int(i.max()) + half + 1) for i in torch.where(inside))
    x, y = (functional.pad(image[box][None, None].float(), [half] * 2 * dims, "replicate") for image in (pred, truth))
    similarity, _ = compute_ssim_and_cs(x, y, dims, [WINDOW] * dims, [SIGMA] * dims, data_range)
    return similarity[0, 0][inside[box]].double().mean().item()


def _inside(pred: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    if not pred.shape == truth.shape == mask.shape or truth.ndim not in (2, 3):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (pred, truth, mask))
        raise ValueError(f"prediction, truth and mask must have one 2-D or 3-D shape, got {shapes}")
    inside = mask != 0
    if not inside.any():
        raise ValueError("the mask is empty")
    return inside
