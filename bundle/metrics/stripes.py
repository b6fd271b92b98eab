"""Does a synthesis jump from slice to slice? Its error's gradient through the slices, of voxels and of whole slices."""

from __future__ import annotations

from torch import Tensor

from bundle.metrics.brain import inside


def gradient_z(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Mean |d_z pred - d_z truth| over the pairs of neighbours along Z that both lie in the mask; from 0, 0 is best.

    d_z is the difference between a voxel and the one below it, in units of intensity. A prediction that is off by a
    constant has 0. Jumps between slices raise it; so do noise and blur, which `stripes` leaves out.

    Args:
        pred, truth: images of one shape, (X, Y, Z), axial slices along Z.
        mask: of that shape, non-zero where voxels count.

    Raises:
        ValueError: shapes that differ or are not 3-D, an empty mask, or one without two neighbours along Z.
    """
    difference, pairs = _through_plane(pred, truth, mask)
    return (difference.abs().sum() / pairs).item()


def stripes(pred: Tensor, truth: Tensor, mask: Tensor) -> float:
    """`gradient_z`, the differences averaged over each slice before their size is taken: sum_z |sum_xy d_z| / pairs.

    By how much a whole slice jumps against the one below it, in units of intensity, on average; from 0, 0 is best,
    never above `gradient_z`. Independent offsets of standard deviation s, one per slice, give 1.13 s. Noise and blur
    within the slices cancel out, and so does a jump of one part of a slice against that of another. The ratio of
    `gradient_z` to the same within the slices would tell less: for real scans alone it lies between 0.6 and 1.2, with
    the direction in which they were taken. Args and Raises as `gradient_z`.
    """
    difference, pairs = _through_plane(pred, truth, mask)
    return (difference.sum((0, 1)).abs().sum() / pairs).item()


def _through_plane(pred: Tensor, truth: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """d_z of the error, (X, Y, Z - 1) in float64, 0 where not both neighbours count; and how many pairs do."""
    counted = inside(pred, truth, mask)
    if truth.ndim != 3:
        raise ValueError(f"slices are compared with their neighbours, but the images are {truth.ndim}-D")
    both = counted[..., 1:] & counted[..., :-1]
    if not both.any():
        raise ValueError("no two voxels of the mask are neighbours along Z")
    return (pred.double() - truth.double()).diff(dim=2) * both, int(both.sum())
