import math
from collections import Counter

import pytest
import torch

from bundle.transforms.hide import RandHideContrastsd, subsets


def draw(exists, times, seed=0):
    hide = RandHideContrastsd()
    hide.set_random_state(seed)
    item = {"exists": torch.tensor(exists, dtype=torch.float32)}
    return Counter(tuple(hide(item)["presence"].int().tolist()) for _ in range(times))


@pytest.mark.parametrize(
    ("contrasts", "complete", "count"), [(4, True, 15), (4, False, 14), (2, True, 3), (1, False, 0)]
)
def test_subsets(contrasts, complete, count):
    found = subsets(contrasts, complete)
    assert len(found) == len(set(found)) == count
    assert all(1 <= sum(bits) <= contrasts - (not complete) for bits in found)
    assert [sum(bits) for bits in found] == sorted(sum(bits) for bits in found)


def test_all_fifteen_subsets_come_equally_often():
    times = 6000
    counts = draw([1, 1, 1, 1], times)
    expected = times / 15
    assert len(counts) == 15
    # five standard deviations of a binomial
    assert max(abs(n - expected) for n in counts.values()) < 5 * math.sqrt(expected * 14 / 15)


def test_never_more_than_exists():
    assert set(draw([1, 0, 1, 0], 200)) == {(1, 0, 0, 0), (0, 0, 1, 0), (1, 0, 1, 0)}
    assert set(draw([0, 0, 1, 0], 20)) == {(0, 0, 1, 0)}


def test_what_exists_is_kept_and_the_seed_decides():
    item = {"exists": torch.tensor([1.0, 1, 0, 1]), "other": 3}
    result = RandHideContrastsd()(item)
    assert result["exists"].tolist() == [1, 1, 0, 1] and result["other"] == 3 and "presence" not in item
    assert result["presence"].dtype == torch.float32
    assert draw([1, 1, 1, 1], 50, seed=4) == draw([1, 1, 1, 1], 50, seed=4) != draw([1, 1, 1, 1], 50, seed=5)
