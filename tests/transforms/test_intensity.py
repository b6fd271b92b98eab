"""Intensities become [0, 1] by the numbers that are kept."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.errors import InputError
from bundle.transforms.intensity import LevelSynthesisd, ScaleIntensityd

SHAPE = (20, 20, 20)


def item(scan, name="t1"):
    brain = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    brain[0, 5:15, 5:15, 5:15] = 1
    return {
        name: MetaTensor(torch.as_tensor(scan, dtype=torch.float32)[None]),
        "brain": MetaTensor(brain),
        "warnings": [],
    }


def test_percentiles_inside_the_brain():
    scan = np.full(SHAPE, 9999.0)  # outside, where it must not count
    values = np.random.default_rng(0).gamma(3, 100, (10, 10, 10)) + 1
    scan[5:15, 5:15, 5:15] = values
    data = ScaleIntensityd(["t1", "t2"])(item(scan))
    low, high = np.percentile(values.astype(np.float32), [0.5, 99.5])
    assert data["intensity"] == {"t1": {"low": pytest.approx(low), "high": pytest.approx(high)}}
    inside = data["t1"][0, 5:15, 5:15, 5:15].numpy()
    np.testing.assert_allclose(inside, np.clip((values - low) / (high - low), 0, 1), atol=1e-6)
    assert data["t1"].sum().item() == pytest.approx(inside.sum(), rel=1e-5)
    assert inside.min() == 0 and inside.max() == 1
    assert data["warnings"] == []


def test_the_median_becomes_a_level_whatever_the_lesion():
    scan = np.random.default_rng(0).gamma(3, 100, SHAPE) + 1
    registry = {"flair": {"intensity": {"percentiles": [0.5, 50], "level": 0.4}}}
    data = ScaleIntensityd(["flair"], registry)(item(scan, "flair"))
    inside = (0, *[slice(5, 15)] * 3)
    assert data["flair"][inside].median().item() == pytest.approx(0.4, abs=1e-3)
    scale = data["intensity"]["flair"]
    assert scale["high"] - scale["low"] == pytest.approx((np.median(scan[inside[1:]]) - scale["low"]) / 0.4, rel=1e-3)
    scan[5:15, 5:15, 5:7] *= 10  # brighter than the median were already half of these
    lesion = ScaleIntensityd(["flair"], registry)(item(scan, "flair"))["flair"][inside]
    assert lesion.max() == 1
    torch.testing.assert_close(lesion[..., 2:].median(), data["flair"][inside][..., 2:].median(), atol=0.08, rtol=0)


def test_affine_changes_of_brightness_do_not_matter():
    scan = np.random.default_rng(0).gamma(3, 100, SHAPE) + 1
    one, other = (ScaleIntensityd(["t1"])(item(s))["t1"] for s in (scan, 7 * scan + 30))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_fixed_window():
    scan = np.linspace(-1000, 1000, 8000).reshape(SHAPE)
    registry = {"ct": {"patterns": ["ct"], "intensity": {"window": [0, 80]}, "role": "input"}}
    data = ScaleIntensityd(["ct"], registry)(item(scan, "ct"))
    assert data["intensity"] == {"ct": {"low": 0, "high": 80}}
    inside = (slice(5, 15),) * 3
    np.testing.assert_allclose(data["ct"][0][inside], np.clip(scan / 80, 0, 1)[inside], atol=1e-6)


def test_field_of_view_that_ends_in_the_brain():
    scan = np.random.default_rng(0).gamma(3, 100, SHAPE) + 50
    whole = ScaleIntensityd(["t1"])(item(scan))["intensity"]["t1"]
    scan[:, :, :8] = 0
    data = ScaleIntensityd(["t1"])(item(scan))
    assert data["warnings"] == ["t1: covers only 70% of the brain"]
    assert data["intensity"]["t1"]["low"] == pytest.approx(whole["low"], abs=10)


def test_a_hole_stays_black_where_intensities_are_negative():
    scan = np.random.default_rng(0).normal(size=SHAPE)  # z-scored
    scan[:, :, :8] = 0
    t1 = ScaleIntensityd(["t1"])(item(scan))["t1"]
    assert not t1[..., :8].any() and 0.4 < t1[t1 > 0].median() < 0.6


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant(value):
    with pytest.raises(InputError, match="t1 is constant inside the brain"):
        ScaleIntensityd(["t1"])(item(np.full(SHAPE, value)))


MEDIAN = {"flair": {"intensity": {"percentiles": [0.5, 50], "level": 0.38}}}


def made(scale):
    """A stack of T1, given, and FLAIR, made `scale` times as bright as the median's level, and its deviation."""
    scan = np.random.default_rng(1).gamma(3, 100, SHAPE) + 1
    data = ScaleIntensityd(["t1", "flair"], MEDIAN)({**item(scan), **item(scan + 50, "flair")})
    images = torch.cat([data["t1"], data["flair"]]).as_tensor()
    presence = torch.stack([torch.ones(SHAPE), torch.zeros(SHAPE)])
    stack = torch.cat([images[:1], torch.zeros(1, *SHAPE), presence])
    pred = torch.cat([images[:1], (scale * images[1:]).clamp(0, 1), torch.full((1, *SHAPE), 0.25)])
    return {"pred": pred, "uncertainty": 0.1 * pred[:2], "image": stack, "brain": data["brain"]}, images[1]


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.2])
def test_a_synthesis_gets_the_level_of_every_scan(scale):
    data, truth = made(scale)
    result = LevelSynthesisd(["t1", "flair"], MEDIAN)(data)
    brain = data["brain"][0].as_tensor() > 0
    assert result["pred"][1][brain].median().item() == pytest.approx(0.38, abs=2e-3)
    kept = data["pred"][1] < 1
    torch.testing.assert_close(result["pred"][1][kept], truth[kept], atol=3e-3, rtol=0)
    torch.testing.assert_close(result["uncertainty"][1][kept], 0.1 * truth[kept], atol=3e-3, rtol=0)
    for channel in (0, 2):  # T1, which was given, and what is no contrast
        torch.testing.assert_close(result["pred"][channel], data["pred"][channel], atol=0, rtol=0)


def test_an_upper_percentile_that_is_white_asks_nothing_of_a_synthesis():
    data, _ = made(0.7)
    result = LevelSynthesisd(["t1", "flair"], {"flair": {"intensity": {"percentiles": [0.5, 99.5]}}})(data)
    torch.testing.assert_close(result["pred"], data["pred"], atol=0, rtol=0)


def test_a_synthesis_that_is_dark_in_half_of_the_brain_stays_as_it_is():
    data, _ = made(0.0)
    result = LevelSynthesisd(["t1", "flair"], MEDIAN)(data)
    assert not result["pred"][1].any() and torch.isfinite(result["pred"]).all()
