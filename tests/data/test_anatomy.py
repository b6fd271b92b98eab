"""The template's completed maps and the brains drawn from it."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.data import anatomy

pytest.importorskip("nilearn", reason="the template comes with nilearn (extra 'demo')")


@pytest.fixture(scope="module")
def brain():
    return anatomy.individual(np.random.default_rng(3))


def test_template_fills_the_ventricles_with_csf():
    template = anatomy.load_template()
    wm, gm, csf, ventricle = template.maps[:4]
    to_voxel = np.linalg.inv(template.affine)
    for place in ((-9, 14, 8), (9, 14, 8), (-26, -44, 6)):  # frontal horns and left atrium, in MNI space
        x, y, z = np.round((to_voxel @ [*place, 1])[:3]).astype(int)
        near = np.s_[x - 3 : x + 4, y - 3 : y + 4, z - 3 : z + 4]
        assert csf[near].max() > 0.95 and ventricle[near].max() > 0.95
        assert (wm + gm)[near].min() < 0.1
    assert 10_000 < ventricle.sum() < 60_000  # mm^3


def test_smooth_noise_has_unit_variance_and_its_smoothness():
    noise = anatomy.smooth_noise(np.random.default_rng(0), 4.0, (80, 80, 80))[0]
    assert noise.shape == (80, 80, 80)
    assert 0.8 < noise.std() < 1.1
    # a Gaussian of sigma gives the autocorrelation exp(-d^2 / 4 sigma^2)
    centred = noise - noise.mean()
    correlation = (centred[8:] * centred[:-8]).mean() / centred.var()
    assert correlation == pytest.approx(np.exp(-(8**2) / (4 * 4**2)), abs=0.2)


def test_deformation_folds_nowhere():
    push = anatomy.Push(centre=np.array([50.0, 110.0, 90.0]), reach=30.0, strength=5.0)
    displacement = anatomy.deformation(np.random.default_rng(7), push, anatomy.load_template())
    assert displacement.shape == (3, *anatomy.SHAPE)
    gradient = np.stack([np.stack(np.gradient(d[::2, ::2, ::2], 2.0)) for d in displacement])
    jacobian = np.linalg.det(gradient.transpose(2, 3, 4, 0, 1) + np.eye(3))
    assert jacobian.min() > 0.1
    assert 1 < np.abs(displacement).max() < 40


def test_mass_pushes_tissue_away_from_its_centre():
    centre = np.array([50.0, 110.0, 90.0])
    push = anatomy.Push(centre=centre, reach=25.0, strength=5.0)
    with_push, without = (
        anatomy.deformation(np.random.default_rng(7), p, anatomy.load_template()) for p in (push, None)
    )
    difference = with_push - without
    # 25 mm to the right of the centre stands tissue that the template has nearer to the centre
    assert difference[0, 75, 110, 90] < -2
    assert difference[0, 25, 110, 90] > 2
    assert np.abs(difference[:, 160, 110, 90]).max() < 1


def test_fractions_fill_the_brain(brain):
    tissues = np.stack([brain.wm, brain.gm, brain.csf, brain.blood])
    assert tissues.min() > -1e-5
    total = tissues.sum(0)
    np.testing.assert_allclose(total, brain.cover, atol=1e-5)
    assert total.max() <= 1 + 1e-4
    assert not total[~brain.brain].any()
    assert (total[brain.brain] > 0.99).mean() > 0.8  # the rest is the rim
    assert total[brain.brain].min() > 0


def test_volumes_are_those_of_a_human_brain(brain):
    litres = {name: getattr(brain, name).sum() / 1e6 for name in ("wm", "gm", "csf", "blood")}
    assert 1.0 < brain.brain.sum() / 1e6 < 1.9
    assert 0.3 < litres["wm"] < 0.75
    assert 0.45 < litres["gm"] < 0.95
    assert 0.05 < litres["csf"] < 0.35
    assert 0.004 < litres["blood"] < 0.06


def test_the_ribbon_is_sharper_than_the_average_of_152_people(brain):
    def blurred(maps):
        wm, gm = maps
        return ((wm > 0.2) & (wm < 0.8) & (gm > 0.2)).sum() / (wm > 0.2).sum()

    template = anatomy.load_template().maps
    assert blurred((brain.wm, brain.gm)) < blurred(template[:2])


def test_two_seeds_are_two_people(brain):
    other = anatomy.individual(np.random.default_rng(4))
    both = brain.brain & other.brain
    assert np.abs(brain.wm - other.wm)[both].mean() > 0.08
