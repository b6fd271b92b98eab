"""The floor of any synthesis: copy the contrast that correlates best, with its histogram matched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import rankdata

LEVELS = np.linspace(0, 1, 1001)  # of quantile functions that are averaged over subjects

Voxels = Mapping[str, np.ndarray]  # contrast -> its values at the N voxels of a subject's brain, (N,)


@dataclass(frozen=True)
class CopyReference:
    """What other subjects tell about which contrast to copy, and how.

    Attributes:
        correlations: (one contrast, another) -> Pearson's r inside the brain, mean over the subjects that have both.
        quantiles: contrast -> its intensities at `LEVELS`, mean over the subjects that have it.
    """

    correlations: Mapping[tuple[str, str], float]
    quantiles: Mapping[str, np.ndarray]


def reference_of(subjects: Iterable[Voxels]) -> CopyReference:
    """Correlations and histograms of subjects, each of which may lack contrasts."""
    correlated, quantiles = defaultdict(list), defaultdict(list)
    for voxels in subjects:
        for pair, r in correlations(voxels).items():
            correlated[pair].append(r)
        for name, values in voxels.items():
            quantiles[name].append(np.quantile(values, LEVELS))
    return CopyReference(
        {pair: float(np.mean(rs)) for pair, rs in correlated.items()},
        {name: np.mean(functions, axis=0) for name, functions in quantiles.items()},
    )


def correlations(voxels: Voxels) -> dict[tuple[str, str], float]:
    """Pearson's r of each two contrasts of a subject, in both orders."""
    matrix = np.atleast_2d(np.corrcoef(list(voxels.values()))) if voxels else np.zeros((0, 0))
    pairs = permutations(enumerate(voxels), 2)
    return {(one, other): float(matrix[i, j]) for (i, one), (j, other) in pairs}


def best_source(
    target: str, given: Sequence[str], correlation: Mapping[tuple[str, str], float]
) -> tuple[str, bool] | None:
    """The given contrast with the largest absolute correlation with the target, and whether it must be inverted.

    None where no correlation with a given contrast is known.
    """
    known = [name for name in given if (name, target) in correlation]
    if not known:
        return None
    source = max(known, key=lambda name: abs(correlation[name, target]))
    return source, correlation[source, target] < 0


def copy(source: np.ndarray, inverted: bool, quantiles: np.ndarray) -> np.ndarray:
    """A contrast with the histogram that a target has in other subjects.

    Args:
        source: values inside the brain, (N,).
        inverted: whether the brightest voxel becomes the darkest.
        quantiles: the target's intensities at `LEVELS`, as in `CopyReference`.
    """
    return _match(-source if inverted else source, LEVELS, quantiles)


def copy_oracle(source: np.ndarray, inverted: bool, truth: np.ndarray) -> np.ndarray:
    """A contrast with the very histogram of the truth, which nobody has who needs a synthesis; (N,) each."""
    values, counts = np.unique(truth, return_counts=True)
    return _match(-source if inverted else source, np.cumsum(counts) / truth.size, values)


def _match(source: np.ndarray, levels: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Give each voxel the intensity of its own quantile (that of the last of equal voxels, as scikit-image does)."""
    return np.interp(rankdata(source, method="max") / source.size, levels, quantiles).astype(np.float32)
