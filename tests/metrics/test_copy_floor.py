"""The floors copy what they should, with the histogram they should, and see no more than they may."""

import numpy as np
import pytest
from skimage.exposure import match_histograms

from bundle.metrics.copy_floor import LEVELS, best_source, copy, copy_oracle, correlations, reference_of


@pytest.fixture
def voxels():
    rng = np.random.default_rng(0)
    t1 = rng.normal(size=5000).clip(-1, 2)
    t2 = -t1 + 0.3 * rng.normal(size=5000)
    flair = t2 + rng.normal(size=5000)
    return {name: values.astype(np.float32) for name, values in (("t1", t1), ("t2", t2), ("flair", flair))}


def test_oracle_is_histogram_matching(voxels):
    rounded = np.round(voxels["flair"], 1)  # with ties
    for source, truth in ((voxels["t1"], voxels["flair"]), (rounded, voxels["t2"]), (voxels["t2"], rounded)):
        np.testing.assert_allclose(copy_oracle(source, False, truth), match_histograms(source, truth), atol=1e-6)
    np.testing.assert_allclose(
        copy_oracle(rounded, True, voxels["t2"]), match_histograms(-rounded, voxels["t2"]), atol=1e-6
    )


def test_oracle_undoes_any_monotone_change(voxels):
    assert np.array_equal(copy_oracle(voxels["t1"] ** 3, False, voxels["t1"]), voxels["t1"])
    assert np.array_equal(copy_oracle(5 - 2 * voxels["t1"], True, voxels["t1"]), voxels["t1"])


def test_best_source(voxels):
    own = correlations(voxels)
    assert len(own) == 6 and own["t1", "t2"] == pytest.approx(-0.937, abs=0.02)
    assert own["t2", "t1"] == pytest.approx(own["t1", "t2"], rel=1e-12)  # some processors round the two apart
    assert best_source("t1", ["flair", "t2"], own) == ("t2", True)
    assert best_source("t1", ["flair"], own) == ("flair", True)
    assert best_source("flair", ["t1", "t2"], own) == ("t2", False)
    assert best_source("flair", ["t1ce"], own) is None
    assert correlations({"t1": voxels["t1"]}) == {} and correlations({}) == {}


def test_reference_is_the_mean_over_those_that_have_it():
    even = np.linspace(0, 1, 4001)
    subjects = [{"t1": even, "t2": even}, {"t1": even**2, "t2": -(even**2)}, {"t1": even, "flair": 1 - even}]
    reference = reference_of(subjects)
    np.testing.assert_allclose(reference.quantiles["t1"], (2 * LEVELS + LEVELS**2) / 3, atol=1e-6)
    np.testing.assert_allclose(reference.quantiles["flair"], LEVELS, atol=1e-6)
    assert reference.correlations["t1", "t2"] == pytest.approx(0)  # +1 and -1
    assert reference.correlations["flair", "t1"] == pytest.approx(-1)
    assert ("flair", "t2") not in reference.correlations
    assert not reference_of([]).correlations


def test_copy_has_the_reference_histogram():
    even = np.linspace(0, 1, 4001)
    quantiles = reference_of([{"t2": even**2}]).quantiles["t2"]
    shuffled = np.random.default_rng(0).permutation(even)
    made = copy(shuffled, False, quantiles)
    np.testing.assert_allclose(made, shuffled**2, atol=1e-3)
    np.testing.assert_allclose(copy(shuffled, True, quantiles), (1 - shuffled) ** 2, atol=1e-3)
    # whatever the scale of what is copied
    np.testing.assert_array_equal(copy(7 * shuffled + 3, False, quantiles), made)
