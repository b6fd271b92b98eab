"""Tumours and plaques painted into a plain block of white matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data import lesions
from bundle.data.anatomy import SHAPE, Anatomy


@pytest.fixture(scope="module")
def block():
    """White matter with a cortex of 10 voxels and a ventricle in the middle."""
    brain = np.zeros(SHAPE, bool)
    brain[20:-20, 20:-20, 20:-20] = True
    white = np.zeros(SHAPE, np.float32)
    white[30:-30, 30:-30, 30:-30] = 1
    ventricle = np.zeros(SHAPE, np.float32)
    ventricle[80:96, 80:130, 70:90] = 1
    empty = np.zeros(SHAPE, np.float32)
    white = white * (1 - ventricle)
    grey = brain * (1 - white - ventricle)
    return Anatomy(white, grey, ventricle, empty, ventricle, empty, brain)


def test_tumour_is_core_in_ring_in_oedema(block):
    centre = np.array([55, 100, 80])
    parts = lesions.tumour(np.random.default_rng(0), block, centre, radius=16.0)
    assert min(part.min() for part in parts.values()) >= 0
    assert sum(parts.values()).max() <= 1 + 1e-5
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(SHAPE), centre, strict=True)))
    mean = {name: (distance * part).sum() / part.sum() for name, part in parts.items()}
    assert mean["necrosis"] < mean["enhancing"] < mean["oedema"]
    assert parts["oedema"][block.gm > 0.99].max() < 0.2  # it spares the cortex
    assert parts["enhancing"][block.ventricle > 0].max() == 0


def test_tumour_label_has_the_values_of_brats_2023(block):
    parts = lesions.tumour(np.random.default_rng(0), block, np.array([55, 100, 80]), radius=16.0)
    label = lesions.label_of(parts)
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 1, 2, 3}
    assert parts["necrosis"][label == 1].mean() > 0.8
    assert parts["oedema"][label == 2].mean() > 0.6
    assert parts["enhancing"][label == 3].mean() > 0.8
    # the ring closes around the core
    around = ndimage.binary_dilation(label == 1, iterations=1) & (label != 1)
    assert (label[around] == 3).mean() > 0.9


def test_plaques_are_many_small_and_near_the_ventricle(block):
    parts = lesions.plaques(np.random.default_rng(1), block, count=30)
    label = lesions.label_of(parts)
    assert set(np.unique(label)) == {0, 2}  # whole lesion, no core, even where a plaque takes up contrast agent
    assert parts["enhancing"].sum() > 0
    pieces, count = ndimage.label(label)
    assert 10 <= count <= 30
    assert np.bincount(pieces.ravel())[1:].max() < 6000  # mm^3
    assert not label[~block.brain].any()
    far = ndimage.distance_transform_edt(block.ventricle == 0)
    assert np.median(far[label > 0]) < 0.75 * np.median(far[block.wm > 0.9])


def test_no_lesion_no_label():
    assert not lesions.label_of({}).any()


def test_masses_lie_in_the_white_matter_of_either_hemisphere():
    pytest.importorskip("nilearn", reason="the template comes with nilearn (extra 'demo')")
    rng = np.random.default_rng(0)
    sides = []
    for _ in range(10):
        push, radius = lesions.draw_mass(rng)
        assert 9 <= radius <= 20
        x = push.centre[0] - 88  # of the midline
        assert 15 <= abs(x) <= 55
        sides.append(x > 0)
    assert 0 < sum(sides) < 10
