"""Does a synthesis jump from slice to slice? Its error's gradient through the slices, in them, and of whole slices."""

from __future__ import annotations

from torch import Tensor

from bundle.metrics.brain import inside


def gradient_z(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Mean |d_z pred - d_z truth| over the pairs of neighbours along Z that both lie in the mask; from 0, 0 is best.

    d_z is the difference between a voxel and the one below it, in units of intensity. A prediction that is off by a
    constant has 0. Jumps between slices raise it, and so do noise and blur, which raise `gradient_xy` alike.

    Args:
        pred, truth: images of one shape, (X, Y, Z), axial slices along Z.
        mask: of that shape, non-zero where voxels count.

    Raises:
        ValueError: shapes that differ or are not 3-D, an empty mask, or one without two neighbours along Z.
    """
    return _size(*_differences(pred, truth, mask, 2))


def gradient_xy(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """The same within the slices, the mean of X and Y. A pattern that stays from slice to slice raises it alone.

    The ratio of the two says little by itself: that of scans of one subject lies between 0.6 and 1.2, with the
    direction in which they were taken. Compare two predictions of the same subjects. Args and Raises as `gradient_z`.
    """
    return sum(_size(*_differences(pred, truth, mask, axis)) for axis in (0, 1)) / 2


def stripes(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """`gradient_z`, the differences averaged over each slice before their size is taken: sum_z |sum_xy d_z| / pairs.

    By how much a whole slice jumps against the one below it, in units of intensity, on average; from 0, 0 is best,
    never above `gradient_z`. Independent offsets of standard deviation s, one per slice, give 1.13 s. Noise and blur
    within the slices cancel out, and so does a jump of one part of a slice against that of another. Args and Raises as
    `gradient_z`.
    """
    difference, pairs = _differences(pred, truth, mask, 2)
    return (difference.sum((0, 1)).abs().sum() / pairs).item()


def _size(difference: Tensor, pairs: int) -> float:
    return (difference.abs().sum() / pairs).item()


def _differences(pred: Tensor, truth: Tensor, mask: Tensor, axis: int) -> tuple[Tensor, int]:
    """Steps of the error along an axis, one less than voxels, 0 where not both count; and how many pairs do."""
    counted = inside(pred, truth, mask)
    if truth.ndim != 3:
        raise ValueError(f"slices are compared with their neighbours, but the images are {truth.ndim}-D")
    length = truth.shape[axis] - 1
    both = counted.narrow(axis, 1, length) & counted.narrow(axis, 0, length)
    if not both.any():
        raise ValueError(f"no two voxels of the mask are neighbours along {'XYZ'[axis]}")
    return (pred.double() - truth.double()).diff(dim=axis) * both, int(both.sum())
