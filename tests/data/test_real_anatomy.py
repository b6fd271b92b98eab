"""The tissue classes of an exam, read back from one whose tissues are known."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bundle.data.anatomy import SHAPE, individual
from bundle.data.real_anatomy import read_anatomy
from bundle.data.simulate import simulate
from bundle.errors import InputError
from tests.phantom import write_exam

pytest.importorskip("nilearn", reason="the template comes with nilearn (extra 'demo')")


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """A generated tumour written as an exam, and what it is made of."""
    subject = simulate(13, "tumour")
    volumes = {"t1": subject.images["t1"], "t1ce": subject.images["t1ce"], "label": subject.label}
    return subject, write_exam(tmp_path_factory.mktemp("exam"), volumes, subject.affine)


@pytest.fixture(scope="module")
def found(exam):
    return read_anatomy(exam[1])


def box(mask):
    lines = [np.flatnonzero(mask.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(line[0], line[-1] + 1) for line in lines)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_tissues_are_those_that_were_imaged(exam, found):
    subject, _ = exam
    wm, gm, csf = found.maps[:3]
    brain = subject.images["t1"] > 0
    inside = wm + gm + csf > 0.5
    ours, theirs = box(inside), box(brain)  # the middle of the brain's box is that of the grid
    assert [s.stop - s.start for s in ours] == pytest.approx([s.stop - s.start for s in theirs], abs=2)
    np.testing.assert_allclose((wm + gm + csf)[inside], 1, atol=1e-4)
    t1 = subject.images["t1"][theirs]
    size = np.minimum(t1.shape, [s.stop - s.start for s in ours])
    wm, gm, csf = (part[ours][: size[0], : size[1], : size[2]] for part in (wm, gm, csf))
    t1 = t1[: size[0], : size[1], : size[2]]
    assert np.median(t1[wm > 0.9]) > 1.05 * np.median(t1[gm > 0.9]) > 1.2 * np.median(t1[csf > 0.9])


def test_lesions_are_kept_and_lie_in_white_matter(exam, found):
    subject, _ = exam
    assert set(found.lesions) == {"necrosis", "enhancing", "oedema"}
    for name, value in (("necrosis", 1), ("oedema", 2), ("enhancing", 3)):
        assert found.lesions[name].sum() == pytest.approx((subject.label == value).sum(), rel=0.02)
    ill = sum(found.lesions.values()) > 0.9
    assert found.maps[0][ill].mean() > 0.95


def test_vessels_and_ventricles_are_found(found):
    ventricle, vessels = found.maps[3], found.maps[4]
    assert 3_000 < ventricle.sum() < 90_000  # mm^3
    assert 3_000 < vessels.sum() < 120_000


def test_a_person_of_that_anatomy_is_another_with_the_same_lesions(found):
    rng = np.random.default_rng(2)
    person = individual(rng, None, found)
    assert set(person.lesions) == set(found.lesions)
    for name, part in person.lesions.items():
        assert 0.4 < part.sum() / found.lesions[name].sum() < 2.5
    assert dice(person.wm > 0.5, found.maps[0] > 0.5) < 0.9  # in another shape
    subject = simulate(3, "none", found)
    assert set(np.unique(subject.label)) == {0, 1, 2, 3}
    ring = subject.label == 3
    healthy = (subject.images["t1ce"] > 0) & (subject.label == 0)
    assert np.median(subject.images["t1ce"][ring]) > 1.2 * np.median(subject.images["t1ce"][healthy])


def test_an_exam_without_t1_is_refused(exam):
    with pytest.raises(InputError, match="no T1"):
        read_anatomy({key: value for key, value in exam[1].items() if key != "t1"})


def test_an_exam_with_its_skull_is_refused(exam, tmp_path):
    rng = np.random.default_rng(0)
    head = rng.uniform(50, 100, SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(head, np.eye(4)), tmp_path / "t1.nii.gz")
    with pytest.raises(InputError, match="skull"):
        read_anatomy({"subject": "head", "t1": str(tmp_path / "t1.nii.gz")})
