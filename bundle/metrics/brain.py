"""PSNR and SSIM inside the brain."""

from __future__ import annotations

import math

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

HALF_WINDOW, SIGMA = 5, 1.5  # voxels: the Gaussian window of Wang et al., IEEE Trans Image Process 13:600 (2004)


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
    what lies around it. At the images' border the outermost voxels are repeated. scikit-image filters one axis after
    the other; MONAI's SSIM, whose values are the same, convolves with the whole 11^3 window and takes 13 times as long
    for a head (19.3 against 1.4 s on one core).
    """
    inside = _inside(pred, truth, mask)
    # only the mask's surroundings are filtered: a brain fills a third of its volume
    box = tuple(slice(max(0, int(i.min()) - HALF_WINDOW), int(i.max()) + HALF_WINDOW + 1) for i in torch.where(inside))
    x, y = (np.pad(image[box].float().cpu().numpy(), HALF_WINDOW, "edge") for image in (pred, truth))
    _, similarity = structural_similarity(
        x, y, data_range=data_range, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False, full=True
    )
    middle = (slice(HALF_WINDOW, -HALF_WINDOW),) * truth.ndim
    return float(similarity[middle][inside[box].cpu().numpy()].mean(dtype=np.float64))


def _inside(pred: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    if not pred.shape == truth.shape == mask.shape or truth.ndim not in (2, 3):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (pred, truth, mask))
        raise ValueError(f"prediction, truth and mask must have one 2-D or 3-D shape, got {shapes}")
    inside = mask != 0
    if not inside.any():
        raise ValueError("the mask is empty")
    return inside
