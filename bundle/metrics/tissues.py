"""What a reader looks at first: how bright the deep CSF is, and how far a lesion stands out from white matter.

Images are (X, Y, Z) in [0, 1] as `ScaleIntensityd` makes them, with voxels of 1 mm; masks have the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

CSF_DEPTH = 15  # mm below the brain's boundary: deeper than the sulci, so that the ventricles are left
WHITE_MATTER_DEPTH = 5  # mm: deeper than the cortex of the convexity
FEWEST_CSF = 200  # voxels: below that a mean is not trusted
DARK = {"t1": 0.6, "t1ce": 0.5, "flair": 0.5}  # times the brain's median: CSF is below
BRIGHT_T2 = 0.35  # of the way from the brain's median to 1: CSF is above
BRIGHT_WHITE_MATTER, DARK_WHITE_MATTER = (55, 95), (5, 45)  # percentiles of the brain between which it lies
AROUND_LESION = 3  # mm that are left out of white matter
SMALLEST_CONTRAST = 0.05  # of the truth, below which a share of it means nothing


def deep_csf(images: Mapping[str, Tensor], brain: Tensor, lesion: Tensor | None, target: str) -> Tensor:
    """Where the ventricles are, by the subject's true contrasts: a mask (X, Y, Z), empty where they are not found.

    Voxels deeper than 15 mm, outside the lesion, that are dark in T1, T1CE and FLAIR and bright in T2, as far as those
    are there; of them the largest connected part, eroded by a voxel against partial volume. The target is not asked
    where there is another contrast: a region chosen by the truth's own intensities would favour the truth.

    Args:
        images: the subject's contrasts by name.
        brain: mask of the brain.
        lesion: mask of the whole lesion; None where it is not known.
        target: the contrast whose intensity is to be compared.
    """
    asked = _without(target, [name for name in images if name in DARK or name == "t2"])
    box, depth = _depth(brain)
    found = depth > CSF_DEPTH
    if lesion is not None:
        found &= ~lesion.numpy()[box]
    for name in asked:
        image, median = images[name].numpy()[box], float(images[name][brain].median())
        found &= image > median + BRIGHT_T2 * (1 - median) if name == "t2" else image < DARK[name] * median
    found = ndimage.binary_erosion(_largest(found)) if asked else np.zeros_like(found)
    return _whole(found if found.sum() >= FEWEST_CSF else np.zeros_like(found), box, brain)


def white_matter(images: Mapping[str, Tensor], brain: Tensor, lesion: Tensor | None, target: str) -> Tensor:
    """Where white matter is, by the subject's true T1, else T1CE, else T2: a mask (X, Y, Z), empty without any of them.

    Voxels deeper than 5 mm and more than 3 mm from the lesion between the 55th and 95th percentile of the brain in T1
    or T1CE, or between the 5th and 45th in T2. The target is asked last. Args as `deep_csf`.
    """
    asked = _without(target, [name for name in ("t1", "t1ce", "t2") if name in images])
    if not asked:
        return torch.zeros_like(brain)
    box, depth = _depth(brain)
    found = depth > WHITE_MATTER_DEPTH
    if lesion is not None:
        found &= ~ndimage.binary_dilation(lesion.numpy()[box], iterations=AROUND_LESION)
    image = images[asked[0]]
    limits = DARK_WHITE_MATTER if asked[0] == "t2" else BRIGHT_WHITE_MATTER
    low, high = np.percentile(image[brain].numpy(), limits)
    return _whole(found & (image.numpy()[box] >= low) & (image.numpy()[box] <= high), box, brain)


def mean_difference(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Mean of pred - truth over the mask, in the images' unit: below 0 where the prediction is too dark."""
    counted = mask != 0
    return (pred[counted].double() - truth[counted].double()).mean().item()


def contrast_kept(pred: Tensor, truth: Tensor, lesion: Tensor, white_matter: Tensor) -> float:
    """(median of the lesion - median of white matter) of the prediction over that of the truth.

    1 is the whole contrast, 0 none, below 0 its reverse. NaN where the truth has less than 0.05: a lesion that hardly
    shows.
    """
    own, true = (float(image[lesion].median() - image[white_matter].median()) for image in (pred, truth))
    return own / true if abs(true) >= SMALLEST_CONTRAST else math.nan


def _without(target: str, names: list[str]) -> list[str]:
    """The names without the target, unless it is the only one."""
    return [name for name in names if name != target] or names


def _depth(brain: Tensor) -> tuple[tuple[slice, ...], np.ndarray]:
    """The brain's box, and within it the distance of each voxel to the brain's boundary in voxels."""
    (box,) = ndimage.find_objects(brain.numpy().astype(np.uint8))
    inside = np.pad(brain.numpy()[box], 1)  # the box's sides are a boundary
    return box, ndimage.distance_transform_edt(inside)[1:-1, 1:-1, 1:-1]


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected part of a mask."""
    parts, count = ndimage.label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask


def _whole(mask: np.ndarray, box: tuple[slice, ...], brain: Tensor) -> Tensor:
    """A mask of the whole volume from that of a box."""
    whole = torch.zeros_like(brain)
    whole[box] = torch.from_numpy(mask)
    return whole
