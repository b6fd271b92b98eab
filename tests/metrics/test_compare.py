"""Paired comparison: against scipy called by hand, and cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bundle.errors import InputError
from bundle.metrics.compare import Pair, bootstrap_interval, by_subject, changed_scans, compare, pair, t_interval

A = np.array([18.2, 21.4, 19.9, 17.3, 20.8, 22.1, 18.8])
B = A + np.array([0.9, -0.3, 1.4, 0.6, 1.1, 0.2, 2.0])


def rows(values, given=("t1",), target="t2", method="network", measure="psnr"):
    """A row per subject s0, s1, ..."""
    return [
        {"subject": f"s{number}", "given": list(given), "target": target, "method": method, measure: value}
        for number, value in enumerate(values)
    ]


def pairs(a, b, target="t2"):
    return [Pair(f"s{number}", target, *values) for number, values in enumerate(zip(a, b, strict=True))]


def test_rows_are_joined_by_subject_given_and_target():
    a = rows([1, 2], ["t1", "flair"]) + rows([3], ["t1"]) + rows([50], method="copy") + rows([4], target="flair")
    b = rows([10], target="t1") + rows([30], ["t1"]) + rows([20, 40], ["flair", "t1"]) + rows([60], method="copy")
    found, alone = pair(a, b, "psnr")
    assert found == [Pair("s0", "t2", 1, 20), Pair("s1", "t2", 2, 40), Pair("s0", "t2", 3, 30)]
    assert alone == 2  # FLAIR in A, T1 in B


def test_rows_without_the_measure_are_passed_over():
    assert pair(rows([1, 2]), rows([1, 2], measure="ssim"), "psnr") == ([], 2)
    assert pair(rows([1, None]), rows([2, 3]), "psnr") == ([Pair("s0", "t2", 1, 2)], 1)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_value_without_a_mean_is_refused(value):
    with pytest.raises(InputError, match=rf"psnr of s1, t2 from flair, t1, is 2\.0 and {value}\. Compare another"):
        pair(rows([1, 2], ["t1", "flair"]), rows([1, value], ["t1", "flair"]), "psnr")


def test_a_subject_counts_once_however_many_rows_it_has():
    many = [Pair("x", "t1", 10, 11), *[Pair("x", "t2", 20, 24)] * 3, Pair("y", "t1", 0, 1), Pair("x", "t1", 14, 17)]
    # x: T1 12 and 14, T2 20 and 24, so 16 and 19: neither of the three targets' weights nor of the six rows'
    assert by_subject(many).tolist() == [[16, 19], [0, 1]]
    found = compare(many)
    assert (found.subjects, found.pairs, found.mean_a, found.mean_b, found.difference) == (2, 6, 8, 10, 2)


def test_against_scipy():
    found = compare(pairs(A, B))
    by_t = stats.ttest_rel(B, A).confidence_interval(0.95)
    assert found.interval == pytest.approx((by_t.low, by_t.high), abs=1e-12)
    assert found.p == pytest.approx(stats.wilcoxon(B, A, method="exact").pvalue, abs=1e-12)
    again = stats.bootstrap(
        (A, B), lambda a, b: np.mean(b - a), paired=True, vectorized=False, n_resamples=9999, method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert found.bootstrap == pytest.approx((again.low, again.high), abs=0.03)  # other resamples
    assert found.mean_a == pytest.approx(A.mean()) and found.mean_b == pytest.approx(B.mean())
    assert found.difference == pytest.approx(5.9 / 7)
    assert (found.subjects_won, found.pairs_won, found.pairs) == (6, 6, 7)


def test_known_interval_and_p():
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt 3, t of 2 degrees of freedom at 97.5 % is 4.302653
    assert t_interval(np.array([1.0, 2, 3])) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    # six of six positive: 2 of 2^6 sign patterns are as extreme; one negative of the least rank: 4 of 2^6
    assert compare(pairs(np.zeros(6), [1, 2, 3, 4, 5, 6])).p == pytest.approx(2 / 64)
    assert compare(pairs(np.zeros(6), [-1, 2, 3, 4, 5, 6])).p == pytest.approx(4 / 64)


def test_swapping_the_files_turns_the_sign():
    there, back = compare(pairs(A, B)), compare(pairs(B, A))
    assert back.difference == -there.difference and back.p == there.p
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert (there.subjects_won, back.subjects_won) == (6, 1)


def test_lower_is_better_turns_who_wins_only():
    lower = compare(pairs(A, B), higher_is_better=False)
    assert (lower.subjects_won, lower.pairs_won) == (1, 1)
    assert lower.difference == compare(pairs(A, B)).difference


def test_too_few_subjects():
    one = compare(pairs([1], [2]))
    assert (one.difference, one.interval, one.bootstrap, one.p) == (1, None, None, None)
    four, five, six = (compare(pairs(A[:n], B[:n])) for n in (4, 5, 6))
    assert four.interval is not None and four.bootstrap is None
    assert five.bootstrap is not None and five.p is None
    assert six.p is not None


def test_equal_values():
    same = compare(pairs(A, A))
    assert (same.difference, same.interval, same.bootstrap, same.p, same.differing) == (0, (0, 0), None, None, 0)
    assert same.subjects_won == same.pairs_won == 0
    # a subject without a difference takes no part in the test, and may leave too few
    assert compare(pairs(A, np.where(np.arange(7) < 2, A, B))).p is None
    assert compare(pairs([*A, 1], [*B, 1])).p == compare(pairs(A, B)).p


def test_bootstrap_is_the_same_in_every_call():
    assert bootstrap_interval(B - A) == bootstrap_interval(B - A)
    low, high = bootstrap_interval(B - A)
    assert (B - A).min() < low < (B - A).mean() < high < (B - A).max()


def test_changed_scans():
    a = {"x": {"t1": "1", "t2": "2"}, "y": {"t1": "3"}, "z": {"t1": "4"}}
    b = {"x": {"t1": "1", "t2": "2"}, "y": {"t1": "9"}, "z": {"t2": "5"}}
    assert changed_scans(a, b, ["x", "y", "z", "w"]) == ["y", "z", "w"]
    assert changed_scans(a, {"x": {"t1": "1"}}, ["x"]) == []  # T2 was not read there
