"""Two networks on the same subjects: is the difference of their scores more than chance?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bundle.errors import InputError

LEVEL = 0.95  # of the confidence intervals
BOOTSTRAP_FROM = 5  # subjects; resamples of fewer hold too few different means
WILCOXON_FROM = 6  # subjects that differ; the smallest two-sided p of n is 2 / 2^n, above 0.05 for fewer
SEED = 0


class Pair(NamedTuple):
    """What two networks made of the same task: a target from the same given contrasts of a subject."""

    subject: str
    target: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """B against A over n subjects.

    Attributes:
        subjects: n.
        mean_a, mean_b: means over subjects.
        difference: mean of B - A.
        interval: confidence interval of the mean difference, by Student's t; None for one subject.
        bootstrap: the same by bootstrap (BCa) over subjects; None for fewer than `BOOTSTRAP_FROM`, or no spread.
        p: two-sided Wilcoxon signed-rank p; None where fewer than `WILCOXON_FROM` subjects differ.
        differing: how many subjects do.
        subjects_won: in how many subjects B is better.
        pairs, pairs_won: the same, of single tasks.
    """

    subjects: int
    mean_a: float
    mean_b: float
    difference: float
    interval: tuple[float, float] | None
    bootstrap: tuple[float, float] | None
    p: float | None
    differing: int
    subjects_won: int
    pairs: int
    pairs_won: int


def pair(
    rows_a: Iterable[Mapping[str, Any]], rows_b: Iterable[Mapping[str, Any]], measure: str
) -> tuple[list[Pair], int]:
    """Join the rows of method "network" of two evaluations by subject, given contrasts (in any order) and target.

    Args:
        rows_a, rows_b: rows of a `results.json`; those without the measure are passed over.
        measure: name of the measure.

    Returns:
        The pairs in the order of A, and how many rows of either have no partner.

    Raises:
        InputError: a value is infinite or not a number, so that there is no mean.
    """
    a, b = (
        {
            (row["subject"], row["target"], frozenset(row["given"])): float(row[measure])
            for row in rows
            if row["method"] == "network" and row.get(measure) is not None
        }
        for rows in (rows_a, rows_b)
    )
    common = [key for key in a if key in b]
    for subject, target, given in common:
        values = a[subject, target, given], b[subject, target, given]
        if not all(map(isfinite, values)):
            fault = f"{measure} of {subject}, {target} from {', '.join(sorted(given))}, is {values[0]} and {values[1]}"
            raise InputError(fault, "Compare another measure")
    return [Pair(*key[:2], a[key], b[key]) for key in common], len(a.keys() ^ b.keys())


def by_subject(pairs: Iterable[Pair]) -> np.ndarray:
    """A's and B's mean of each subject ``(n, 2)``: over the given contrasts of each target, then over targets.

    Rows of one subject are not independent of each other; subjects are.
    """
    values: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for subject, target, a, b in pairs:
        values[subject][target].append((a, b))
    return np.array([np.mean([np.mean(v, axis=0) for v in targets.values()], axis=0) for targets in values.values()])


def compare(pairs: Sequence[Pair], higher_is_better: bool = True) -> Comparison:
    """Mean difference over subjects, its confidence intervals, and the signed-rank test.

    Args:
        pairs: at least one.
        higher_is_better: of the measure.
    """
    means = by_subject(pairs)
    differences = means[:, 1] - means[:, 0]
    differing = differences[differences != 0]
    sign = 1 if higher_is_better else -1
    return Comparison(
        subjects=len(means),
        mean_a=float(means[:, 0].mean()),
        mean_b=float(means[:, 1].mean()),
        difference=float(differences.mean()),
        interval=t_interval(differences),
        bootstrap=bootstrap_interval(differences),
        # subjects without a difference carry no sign and are left out (Wilcoxon's own rule)
        p=float(stats.wilcoxon(differing).pvalue) if len(differing) >= WILCOXON_FROM else None,
        differing=len(differing),
        subjects_won=int((sign * differences > 0).sum()),
        pairs=len(pairs),
        pairs_won=sum(sign * (b - a) > 0 for *_, a, b in pairs),
    )


def t_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Confidence interval of the mean of n >= 2 values, for normally distributed values; None for one."""
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Confidence interval of the mean by bootstrap (BCa), the same in every call; None for too few values, or equal."""
    if len(values) < BOOTSTRAP_FROM or np.ptp(values) == 0:
        return None
    generator = np.random.default_rng(SEED)
    found = stats.bootstrap((values,), np.mean, confidence_level=LEVEL, random_state=generator).confidence_interval
    return float(found.low), float(found.high)


def changed_scans(
    checksums_a: Mapping[str, Mapping[str, str]],
    checksums_b: Mapping[str, Mapping[str, str]],
    subjects: Iterable[str],
) -> list[str]:
    """The subjects of which it is not known that both evaluations read the same scans.

    Args:
        checksums_a, checksums_b: subject -> contrast -> checksum; what only one of them knows is not compared.
        subjects: those asked about.
    """

    def same(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
        common = a.keys() & b.keys()
        return bool(common) and all(a[name] == b[name] for name in common)

    return [name for name in subjects if not same(checksums_a.get(name, {}), checksums_b.get(name, {}))]
