"""PSNR and SSIM inside a mask: the brain, a lesion, or the whole volume."""

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
    counted = inside(pred, truth, mask)
    error = (pred[counted].double() - truth[counted].double()).square().mean().item()
    return 10 * math.log10(data_range**2 / error) if error else math.inf


def ssim(pred: Tensor, truth: Tensor, mask: Tensor, data_range: float = 1.0) -> float:
    """Structural similarity, its map averaged over the mask; -1 to 1, 1 for equal images. Args and Raises as `psnr`."""
    return ssim_map(pred, truth, mask, data_range)[mask != 0].double().mean().item()


def ssim_map(pred: Tensor, truth: Tensor, mask: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity at each voxel of the mask, NaN far from it; float32. Args and Raises as `psnr`.

    The map is that of the whole images: its window reaches beyond the mask, so that the brain's edge is compared with
    what lies around it. At the images' border the outermost voxels are repeated. scikit-image filters one axis after
    the other; MONAI's SSIM, whose values are the same, convolves with the whole 11^3 window and takes 13 times as long
    for a head (19.3 against 1.4 s on one core).
    """
    box = surroundings(inside(pred, truth, mask), HALF_WINDOW)
    result = torch.full(truth.shape, torch.nan)
    result[box] = _similarity(pred[box].cpu(), truth[box].cpu(), data_range)
    return result.to(truth.device)


def ssim_brasyn(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """SSIM as the BraSyn challenge has it: both images are set to 0 outside the mask, the whole volume is averaged.

    What lies outside the mask counts as equal, so the figure is near 1 for any prediction of a small lesion. The range
    of intensities is that of the masked images, the larger of the two; the outermost 5 voxels of the volume are left
    out. Both are the defaults of torchmetrics' SSIM, which the challenge uses. The figure rises with the black around
    the brain: the challenge's volumes have 240x240x155 voxels. Args and Raises as `psnr`.

    Raises:
        ValueError: also for images thinner than the window of 11 voxels.
    """
    counted = inside(pred, truth, mask).cpu()
    if min(truth.shape) <= 2 * HALF_WINDOW:
        raise ValueError(f"every side must exceed {2 * HALF_WINDOW} voxels, got {tuple(truth.shape)}")
    x, y = (torch.where(counted, image.cpu().float(), 0) for image in (pred, truth))
    data_range = max((image.max() - image.min()).item() for image in (x, y)) or 1.0  # black images have none
    similarity = torch.ones(truth.shape)  # of windows that are black in both
    box = surroundings(counted, HALF_WINDOW)
    similarity[box] = _similarity(x[box], y[box], data_range)
    return similarity[_without_border(truth.ndim)].double().mean().item()


def _similarity(pred: Tensor, truth: Tensor, data_range: float) -> Tensor:
    x, y = (np.pad(image.float().numpy(), HALF_WINDOW, "edge") for image in (pred, truth))
    _, similarity = structural_similarity(
        x, y, data_range=data_range, gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False, full=True
    )
    return torch.from_numpy(similarity[_without_border(truth.ndim)])


def _without_border(dimensions: int) -> tuple[slice, ...]:
    return (slice(HALF_WINDOW, -HALF_WINDOW),) * dimensions


def inside(pred: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """The mask as bool, after checking what `psnr` promises to check."""
    if not pred.shape == truth.shape == mask.shape or truth.ndim not in (2, 3):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (pred, truth, mask))
        raise ValueError(f"prediction, truth and mask must have one 2-D or 3-D shape, got {shapes}")
    counted = mask != 0
    if not counted.any():
        raise ValueError("the mask is empty")
    return counted


def surroundings(mask: Tensor, margin: int) -> tuple[slice, ...]:
    """The mask's bounding box and so many voxels around it: a brain fills a third of its volume."""
    filled = [mask.movedim(axis, 0).flatten(1).any(1).nonzero() for axis in range(mask.ndim)]
    return tuple(slice(max(0, int(i.min()) - margin), int(i.max()) + margin + 1) for i in filled)
