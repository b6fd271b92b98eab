"""The brightness of tissues, read back from an exam whose tissues were painted, and drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.data import real_signal
from bundle.data import simulate as simulate_module
from bundle.data.anatomy import Template
from bundle.data.real_signal import CONTRASTS, JITTER, draw_signals, read_signals
from bundle.data.simulate import TISSUES, simulate
from bundle.errors import InputError
from tests.phantom import write_exam

pytest.importorskip("nilearn", reason="the template comes with nilearn (extra 'demo')")

NAN = float("nan")
# in units of white matter, about as in a real exam of glioma; the last is the texture's
PAINT = {
    "t1": [1.0, 0.77, 0.45, 0.65, 0.90, 0.95, 0.80, 0.70, 1.2],
    "t1ce": [1.0, 0.85, 0.44, 1.90, 0.88, 1.60, 0.65, 0.73, 0.6],
    "t2": [1.0, 1.30, 2.60, 0.90, 1.80, 1.60, 2.40, 2.00, 0.0],
    "flair": [1.0, 1.10, 0.40, 0.40, 1.80, 1.45, 1.60, 1.60, 0.5],
}
PAINTED = {name: np.array(values) for name, values in PAINT.items()}


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """A tumour painted so, written as an exam."""
    subject = simulate(13, "tumour", signals=PAINTED)
    volumes = {**subject.images, "label": subject.label}
    return subject, write_exam(tmp_path_factory.mktemp("exam"), volumes, subject.affine)


@pytest.fixture(scope="module")
def found(exam):
    return read_signals(exam[1])


def test_what_is_painted_is_what_is_seen(exam):
    subject, _ = exam
    for name, image in subject.images.items():
        healthy = np.median(image[(subject.label == 0) & (image > 0)])
        for value, tissue in ((1, "necrosis"), (2, "oedema")):  # the ring of uptake is thin and mottled
            share = np.median(image[subject.label == value]) / healthy
            expected = PAINTED[name][TISSUES.index(tissue)] / np.mean(PAINTED[name][:2])  # half white, half grey
            assert share == pytest.approx(expected, rel=0.2), (name, tissue)


def test_brightness_is_read_back(found):
    assert tuple(found) == CONTRASTS
    for name, signal in found.items():
        assert signal.shape == (len(TISSUES) + 1,) and signal[0] == 1
        for tissue in ("gm", "oedema", "necrosis"):
            i = TISSUES.index(tissue)
            assert signal[i] == pytest.approx(PAINTED[name][i], rel=0.2), (name, tissue)
        assert np.isnan(signal[TISSUES.index("lesion")])  # no plaque in this exam
    fluid, blood, ring = (TISSUES.index(tissue) for tissue in ("csf", "blood", "enhancing"))
    assert [found[name][fluid] for name in CONTRASTS] == pytest.approx([0.45, 0.44, 2.6, 0.4], rel=0.12)
    assert found["t1"][-1] > found["t1ce"][-1] > found["t2"][-1]  # the texture
    # vessels and the ring are thinner than what they are told by, and look duller
    assert found["t1ce"][blood] > 1.3 and found["t1ce"][ring] > 1.2 * found["t1"][ring]


def test_an_exam_that_lacks_a_contrast_is_refused(exam):
    with pytest.raises(InputError, match="has no t2"):
        read_signals({key: value for key, value in exam[1].items() if key != "t2"})


def test_an_exam_without_grey_matter_is_refused(exam, monkeypatch):
    whole = np.ones(real_signal.SHAPE, np.float32)
    maps = np.stack([whole, *[0 * whole] * 6])
    monkeypatch.setattr(real_signal, "anatomy_of", lambda *_: Template(maps=maps, affine=np.eye(4)))
    with pytest.raises(InputError, match="t1.nii.gz: white and grey matter cannot be told apart"):
        read_signals(exam[1])


def test_a_draw_lies_between_two_exams_and_fills_what_one_lacks():
    one = {name: np.array([1.0, 0.8, 0.3, 0.5, NAN, NAN, NAN, 0.7, 1.0]) for name in CONTRASTS}
    other = {name: np.array([1.0, 0.6, 0.1, 0.7, 0.9, 0.9, 0.9, NAN, 0.0]) for name in CONTRASTS}
    draws = np.stack([draw_signals(np.random.default_rng(seed), [one, other])["t2"] for seed in range(200)])
    assert np.isfinite(draws).all()
    assert ((draws[:, 8] >= 0) & (draws[:, 8] <= 1)).all() and draws[:, 8].std() > 0.2
    between = 0.6 + 0.2 * draws[:, 8]  # the texture tells the share
    residue = np.log(draws[:, 1] / between)
    assert residue.std() == pytest.approx(JITTER, rel=0.25) and abs(residue.mean()) < 0.01
    assert np.median(draws[:, 4]) == pytest.approx(0.9, rel=0.02)
    assert np.median(draws[:, 7]) == pytest.approx(0.7, rel=0.02)


def test_what_no_exam_shows_is_left_to_the_signal_equations():
    exam = {name: np.array([1.0, 0.8, 0.3, 0.5, NAN, NAN, NAN, 0.7, 1.0]) for name in CONTRASTS}
    drawn = draw_signals(np.random.default_rng(0), [exam])["flair"]
    assert np.isnan(drawn).tolist() == [False] * 4 + [True] * 3 + [False] * 2
    usual = np.arange(2.0, 10.0)
    signal, slope = simulate_module._painted({"flair": drawn}, lambda name: (usual, 0 * usual))("flair")
    np.testing.assert_allclose(signal[4:7], usual[4:7] / usual[0])
    np.testing.assert_array_equal(signal[:4], drawn[:4])
    np.testing.assert_array_equal(slope, np.full(8, drawn[-1]))


def test_contrasts_of_a_draw_come_from_the_same_two_exams():
    one = {name: np.array([1.0] * 8 + [0.0]) for name in CONTRASTS}
    other = {name: np.array([1.0] * 8 + [1.0]) for name in CONTRASTS}
    drawn = draw_signals(np.random.default_rng(3), [one, other])
    assert len({float(signal[-1]) for signal in drawn.values()}) == 1
