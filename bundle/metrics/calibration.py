"""Does the uncertainty tell the error? Bins of uncertainty against error, summed up over subjects."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

# Upper ends of the cells, of uncertainty and of error: 0, then steps of 3.7 %, fine enough that ranks within a cell and
# the exact place of a quantile do not matter; intensities are in [0, 1].
EDGES = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 256)])


class Calibration:
    """Voxel-wise uncertainty (standard deviation over samples) against absolute error, inside the brain.

    Voxels are counted in a fixed grid of cells, uncertainty by error, so that memory does not grow with subjects.
    For B bins with equal numbers of voxels, as far as the cells allow, in ascending order of uncertainty (Levi et al.,
    Sensors 22:5540 (2022), arXiv 1905.11659):

        RMV_b = sqrt(mean sigma^2), RMSE_b = sqrt(mean error^2), ENCE = 1/B sum_b |RMV_b - RMSE_b| / RMV_b

    A perfect uncertainty has RMSE_b = RMV_b in each bin and an ENCE of 0.

    Args:
        bins: B, at least 1.
    """

    def __init__(self, bins: int = 10) -> None:
        self.bins = bins
        self.counts = np.zeros((len(EDGES), len(EDGES)), np.int64)  # uncertainty by error
        self.variance = np.zeros(len(EDGES))  # sums over the cells of one uncertainty
        self.squared_error = np.zeros(len(EDGES))

    def add(self, uncertainty: Tensor, error: Tensor, brain: Tensor) -> None:
        """Take in a volume: uncertainty and absolute error, in the unit of intensities in [0, 1], and the brain.

        Raises:
            ValueError: shapes that differ.
        """
        if not uncertainty.shape == error.shape == brain.shape:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (uncertainty, error, brain))
            raise ValueError(f"uncertainty, error and brain must have one shape, got {shapes}")
        counted = brain != 0
        sigma, e = (image[counted].double().abs().cpu().numpy() for image in (uncertainty, error))
        size = len(EDGES)
        row, column = (np.searchsorted(EDGES, values).clip(max=size - 1) for values in (sigma, e))
        self.counts += np.bincount(row * size + column, minlength=size**2).reshape(size, size)
        self.variance += np.bincount(row, sigma**2, size)
        self.squared_error += np.bincount(row, e**2, size)

    def result(self) -> dict[str, Any] | None:
        """The calibration of all that was added; None where no voxel was.

        Returns:
            ``bins``: for each, in ascending order, ``uncertainty`` (RMV), ``rmse`` and ``count``; fewer than B where
            many voxels are equally uncertain. ``ence``: None where a bin has no uncertainty at all. ``spearman``: the
            rank correlation of uncertainty and absolute error over voxels, -1 to 1, None where either is the same
            everywhere. ``voxels``: their number.
        """
        count = self.counts.sum(1)
        voxels = int(count.sum())
        if not voxels:
            return None
        middle = np.cumsum(count) - count / 2
        group = np.minimum(self.bins * middle / voxels, self.bins - 1).astype(int)
        in_bin = np.bincount(group, count, self.bins)
        filled = in_bin > 0
        in_bin = in_bin[filled]
        rmv, rmse = (
            np.sqrt(np.bincount(group, sums, self.bins)[filled] / in_bin)
            for sums in (self.variance, self.squared_error)
        )
        ence = float(np.mean(np.abs(rmv - rmse) / rmv)) if rmv.all() else None
        bins = [{"uncertainty": float(u), "rmse": float(e), "count": int(n)} for u, e, n in zip(rmv, rmse, in_bin)]
        return {"bins": bins, "ence": ence, "spearman": _spearman(self.counts), "voxels": voxels}


def _spearman(counts: np.ndarray) -> float | None:
    """Rank correlation of two variables from their table of counts: Pearson's r of the cells' middle ranks."""
    total = counts.sum()
    ranks = []
    for axis in (1, 0):
        margin = counts.sum(axis)
        ranks.append((np.cumsum(margin) - margin / 2 - total / 2, margin))
    (x, in_x), (y, in_y) = ranks
    spread = np.sqrt((in_x * x**2).sum() * (in_y * y**2).sum())
    return float(x @ counts @ y / spread) if spread else None
