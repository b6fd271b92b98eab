"""Whole generated subjects: what a radiologist would expect of each contrast."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bundle.data import anatomy, simulate

pytest.importorskip("nilearn", reason="the template comes with nilearn (extra 'demo')")


@pytest.fixture(scope="module")
def tumour():
    return simulate.simulate(11, "tumour")


@pytest.fixture(scope="module")
def plaques():
    return simulate.simulate(12, "plaques")


@pytest.fixture(scope="module")
def healthy():
    """An anatomy without lesion and its images."""
    rng = np.random.default_rng(5)
    brain = anatomy.individual(rng)
    return brain, simulate._scan(rng, simulate._mix(brain, {}), brain)


def median(image, fraction, least=0.95):
    return float(np.median(image[fraction > least]))


def test_subject_is_complete(tumour):
    assert tuple(tumour.images) == ("t1", "t1ce", "t2", "flair")
    brain = tumour.images["t1"] > 0
    for image in tumour.images.values():
        assert image.shape == anatomy.SHAPE and image.dtype == np.float32
        assert np.isfinite(image).all()
        np.testing.assert_array_equal(image > 0, brain)
        assert image.min() == 0
    assert 1.0e6 < brain.sum() < 1.9e6
    np.testing.assert_array_equal(tumour.affine[:3, :3], np.eye(3))
    assert not tumour.label[~brain].any()


def test_same_seed_same_bytes(tumour):
    def digest(subject):
        arrays = [*subject.images.values(), subject.label, subject.affine]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    assert digest(simulate.simulate(11, "tumour")) == digest(tumour)


def test_missing_slices(tumour):
    lacking = simulate.simulate(11, "tumour", missing_slices=1.0)
    filled = (tumour.images["t1"] > 0).any((0, 1))
    lost = {}
    for name, image in lacking.images.items():
        there = image.any((0, 1))
        np.testing.assert_array_equal(image[..., there], tumour.images[name][..., there])
        lost[name] = np.flatnonzero(filled & ~there)
        assert 1 <= len(lost[name]) <= filled.sum() / 3
    assert len({tuple(slices) for slices in lost.values()}) > 1  # each scan lacks its own


def test_slices_are_lost_at_an_end_or_within():
    brain = np.zeros((2, 2, 155), bool)
    brain[..., 20:140] = True
    draws = [simulate.lost_slices(np.random.default_rng(seed), brain) for seed in range(200)]
    assert all(np.array_equal(lost, np.arange(lost[0], lost[-1] + 1)) for lost in draws)
    assert min(lost[0] for lost in draws) == 20 and max(lost[-1] for lost in draws) == 139
    ends = [lost for lost in draws if len(lost) > 4]
    assert 70 < len(ends) < 130 and all(12 <= len(lost) < 40 for lost in ends)
    assert all((lost[0] == 20) != (lost[-1] == 139) for lost in ends)


def test_tissues_have_the_order_of_each_contrast(healthy):
    brain, images = healthy
    fluid = brain.csf * brain.ventricle
    wm, gm, csf = (
        {name: median(image, part, least) for name, image in images.items()}
        for part, least in ((brain.wm, 0.97), (brain.gm, 0.95), (fluid, 0.9))
    )
    assert wm["t1"] > 1.05 * gm["t1"] > 1.3 * csf["t1"]
    assert wm["t1ce"] > gm["t1ce"] > 1.3 * csf["t1ce"]
    assert csf["t2"] > 1.8 * gm["t2"] and gm["t2"] > 1.15 * wm["t2"]
    assert csf["flair"] < 0.25 * wm["flair"]  # nulled
    assert 0.9 < gm["flair"] / wm["flair"] < 1.5


def test_vessels_light_up_after_contrast_agent_only(healthy):
    brain, images = healthy
    ratio = {name: median(images[name], brain.blood, 0.9) / median(images[name], brain.wm) for name in images}
    assert ratio["t1ce"] > 1.5
    assert ratio["t1"] < 1
    assert ratio["flair"] < 0.8


def test_tumour_enhances_and_its_oedema_is_bright_on_flair(tumour):
    t1, t1ce, flair = (
        tumour.images[name] / np.median(tumour.images[name][tumour.images[name] > 0])
        for name in ("t1", "t1ce", "flair")
    )
    ring, core, oedema = (tumour.label == value for value in (3, 1, 2))
    assert np.median(t1ce[ring]) > 1.25
    assert np.median(t1[ring]) < 1
    assert np.median(t1ce[ring]) > 1.5 * np.median(t1ce[core])
    assert np.median(flair[oedema]) > 1.2


def test_plaques_are_bright_on_flair_and_t2_and_not_on_t1(plaques):
    lesion = plaques.label == 2
    assert set(np.unique(plaques.label)) == {0, 2}
    assert 300 < lesion.sum() < 30_000
    medians = {name: np.median(image[image > 0]) for name, image in plaques.images.items()}
    assert np.median(plaques.images["flair"][lesion]) > 1.15 * medians["flair"]
    assert np.median(plaques.images["t2"][lesion]) > 1.1 * medians["t2"]
    assert np.median(plaques.images["t1"][lesion]) < 1.05 * medians["t1"]


# Four real skull-stripped exams (two of multiple sclerosis, two of glioma) have such medians of 0.61 to 0.75 in T1,
# 0.29 to 0.50 in T1CE, 0.20 to 0.31 in T2 and 0.36 to 0.72 in FLAIR; the ranges here are wider.
@pytest.mark.parametrize(
    ("contrast", "low", "high"), [("t1", 0.45, 0.9), ("t1ce", 0.2, 0.75), ("t2", 0.13, 0.45), ("flair", 0.25, 0.9)]
)
def test_scaled_intensities_are_spread_like_those_of_real_scans(tumour, plaques, contrast, low, high):
    for subject in (tumour, plaques):
        values = subject.images[contrast][subject.images[contrast] > 0]
        dark, bright = np.percentile(values, [0.5, 99.5])
        assert low < (np.median(values) - dark) / (bright - dark) < high
