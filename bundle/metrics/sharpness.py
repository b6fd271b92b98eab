"""Is the fine detail there, and is the image as sharp as the truth? Blur, which PSNR rewards, shows here."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_laplace, generate_binary_structure
from skimage.filters import sobel
from torch import Tensor

from bundle.metrics.brain import inside, surroundings

LOG_SIGMA, LOG_RADIUS = 1.5, 7  # voxels: the 15-wide filter of Ravishankar & Bresler


def hfen(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """High-frequency error norm: ||LoG(pred) - LoG(truth)|| / ||LoG(truth)|| over the mask; 0 for equal images.

    Ravishankar & Bresler, IEEE Trans Med Imaging 30:1028 (2011), section IV, relative to the truth: 1 for a prediction
    without edges. LoG is the Laplacian of a Gaussian, sigma 1.5 voxels, here in as many dimensions as the images have,
    which are filtered as they are: the brain's edge against the black around it counts.

    Args:
        pred, truth: images of one shape, (H, W) or (H, W, D).
        mask: of that shape, non-zero where voxels count.

    Raises:
        ValueError: shapes that differ or are not 2-D or 3-D, an empty mask, or a truth without edges there.
    """
    counted = inside(pred, truth, mask)
    box = surroundings(counted, LOG_RADIUS)
    p, t = (image[box].float().cpu().numpy() for image in (pred, truth))
    error, edges = (
        np.linalg.norm(gaussian_laplace(image, LOG_SIGMA, mode="nearest", radius=LOG_RADIUS)[_array(counted[box])])
        for image in (p - t, t)
    )
    return _ratio(error, edges)


def sharpness(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Mean gradient magnitude of the prediction over the truth's: 1 is as sharp, below 1 blurred, above 1 noisier.

    Gradients by Sobel's filter, of the gradient-based focus measures that Pertuz, Puig & Garcia compare, Pattern
    Recognition 46:1415 (2013). The mean gradient magnitude is the image's total variation per voxel, which no blur can
    raise, and the scanner's noise weighs less in it than in second derivatives (the variance of the Laplacian). It
    grows in proportion to contrast, and noise counts as sharpness: read it beside PSNR. The outermost voxels of the
    mask are left out: the step from brain to black is as sharp in any prediction. Args as `hfen`.

    Raises:
        ValueError: shapes that differ or are not 2-D or 3-D, a mask of which nothing is left without its outermost
            voxels, or a truth that is constant there.
    """
    counted = inside(pred, truth, mask)
    box = surroundings(counted, 1)
    neighbours = generate_binary_structure(truth.ndim, truth.ndim)
    inner = binary_erosion(_array(counted[box]), neighbours, border_value=1)
    if not inner.any():
        raise ValueError("the mask is too thin: all of its voxels lie on its edge")
    made, real = (sobel(image[box].float().cpu().numpy())[inner].mean(dtype=np.float64) for image in (pred, truth))
    return _ratio(made, real)


def _array(mask: Tensor) -> np.ndarray:
    array: np.ndarray = mask.cpu().numpy()
    return array


def _ratio(of_prediction: np.floating, of_truth: np.floating) -> float:
    if not of_truth:
        raise ValueError("the truth is constant in the mask")
    return float(of_prediction / of_truth)
