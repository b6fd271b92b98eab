"""MAE, NMSE, MS-SSIM, correlation and normalised mutual information inside a mask.

All take images of one shape, (H, W) or (H, W, D), and a mask of that shape, non-zero where voxels count; they raise
ValueError for shapes that differ or are not 2-D or 3-D, and for an empty mask.
"""

from __future__ import annotations

import math

import torch
from monai.metrics.regression import compute_mean_error_metrics
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_mutual_information
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d

from bundle.metrics.brain import HALF_WINDOW, SIGMA, inside, ssim_map, surroundings

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik, Asilomar 2003, section 3.2
K1 = 0.01
BINS = 100  # per image, of the joint histogram; scikit-image's default


def mae(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Mean of |pred - truth| over the mask, in the images' unit; 0 for equal images."""
    counted = inside(pred, truth, mask)
    p, t = pred[counted].double()[None], truth[counted].double()[None]
    return compute_mean_error_metrics(p, t, torch.abs).item()


def nmse(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """||pred - truth||^2 / ||truth||^2 over the mask; 0 for equal images, 1 for a black one.

    Raises:
        ValueError: also for a truth that is zero everywhere in the mask.
    """
    counted = inside(pred, truth, mask)
    p, t = pred[counted].double(), truth[counted].double()
    energy = t.square().sum().item()
    if not energy:
        raise ValueError("the truth is zero everywhere in the mask")
    return (p - t).square().sum().item() / energy


def correlation(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Pearson's correlation of the values in the mask: -1 to 1; NaN where one of the images is constant there.

    Blind to a gain and an offset of the intensities.
    """
    counted = inside(pred, truth, mask)
    p, t = (image[counted].double() - image[counted].double().mean() for image in (pred, truth))
    norms = (p.norm() * t.norm()).item()
    return (p @ t).item() / norms if norms else math.nan


def nmi(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """(H(pred) + H(truth)) / H(pred, truth) of the values in the mask: 1 (nothing shared) to 2 (one tells the other).

    Blind to brightness, contrast and inversion. Studholme et al., Pattern Recognition 32:71 (1999), eq. 10; entropies
    of histograms with `BINS` bins over each image's own range. Two constant images share nothing: 1.
    """
    counted = inside(pred, truth, mask)
    p, t = (image[counted].float().cpu().numpy() for image in (pred, truth))
    if p.min() == p.max() and t.min() == t.max():
        return 1.0
    return float(normalized_mutual_information(p, t, bins=BINS))


def ms_ssim(
    pred: Tensor, truth: Tensor, mask: Tensor, data_range: float = 1.0, similarity: Tensor | None = None
) -> float:
    """Multi-scale SSIM: prod_(j<M) mean(cs_j)^w_j * mean(ssim_M)^w_M, 0 to 1, 1 for equal images.

    Wang, Simoncelli & Bovik, Asilomar 2003, eq. 7. Scale j + 1 is scale j averaged over blocks of 2 voxels per axis;
    cs is SSIM without its luminance term. Each mean runs over the mask: a coarse voxel counts by its share of mask, so
    that the black around a brain does not enter. A negative mean counts as 0, as in MONAI.

    M is 5, or the most scales at which the shortest side of the mask's box still holds the window of 11 voxels: 4 for
    an adult's brain at 1 mm (sides of 88 to 175 voxels). The weights are scaled to a sum of 1.

    Args:
        pred, truth, mask: as for all metrics of this file.
        data_range: the width of the range of intensities, above 0.
        similarity: `ssim_map` of these images, at least over the mask, if it is known already.
    """
    counted = inside(pred, truth, mask)
    weights = SCALE_WEIGHTS[: _scales(counted)]
    pool = avg_pool2d if truth.ndim == 2 else avg_pool3d
    x, y, share = pred.float(), truth.float(), counted.float()
    value = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            x, y, share = (pool(image[None, None], 2)[0, 0] for image in (x, y, share))
            similarity = None
        quality = ssim_map(x, y, share, data_range) if similarity is None else similarity
        if scale < len(weights) - 1:
            quality = quality / _luminance(x, y, share, data_range)
        mean = (quality[share > 0].double() * share[share > 0]).sum().item() / share.sum(dtype=torch.double).item()
        value *= max(mean, 0.0) ** (weight / math.fsum(weights))
    return value


def _scales(mask: Tensor) -> int:
    shortest = min(side.stop - side.start for side in surroundings(mask, 0))
    fitting = [m for m in range(1, len(SCALE_WEIGHTS) + 1) if shortest // 2 ** (m - 1) > 2 * HALF_WINDOW]
    return max(fitting, default=1)


def _luminance(pred: Tensor, truth: Tensor, mask: Tensor, data_range: float) -> Tensor:
    """The luminance term of SSIM, (2 mu_x mu_y + c1) / (mu_x^2 + mu_y^2 + c1), NaN far from the mask."""
    box = surroundings(mask, HALF_WINDOW)
    mu_x, mu_y = (
        torch.from_numpy(gaussian_filter(image[box].cpu().numpy(), SIGMA, mode="nearest", radius=HALF_WINDOW))
        for image in (pred, truth)
    )
    c1 = (K1 * data_range) ** 2
    result = torch.full(truth.shape, torch.nan)
    result[box] = (2 * mu_x * mu_y + c1) / (mu_x.square() + mu_y.square() + c1)
    return result.to(truth.device)
