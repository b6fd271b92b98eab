"""The table of measures, and scores by it against the metrics called directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.errors import InputError
from bundle.metrics import brain, measures, sharpness, similarity, stripes, tissues
from bundle.metrics.conventions import CONVENTIONS, apply
from bundle.metrics.measures import DEFAULTS, MEASURES, METRICS, score, select

SHAPE = (28, 30, 26)


def case():
    generator = torch.Generator().manual_seed(5)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.8
    lesion = sum((axis - 0.5) ** 2 for axis in axes) < 0.2  # a part lies outside the brain
    noise, pattern = torch.rand(2, *SHAPE, generator=generator)
    truth = torch.nn.functional.avg_pool1d(pattern, 3, 1, 1) * inside
    pred = (0.8 * truth + 0.2 * noise) * inside
    csf = sum(axis**2 for axis in axes) < 0.1
    regions = {"brain": inside, "volume": torch.ones(SHAPE), "lesion": lesion, "csf": csf}
    return pred, truth, {**regions, "white_matter": inside & ~lesion & ~csf & (truth > 0.6)}


def test_the_table():
    assert set(DEFAULTS) < set(MEASURES)
    assert list(MEASURES) == [
        *("psnr", "ssim", "ms_ssim", "mae", "nmse", "nmi", "hfen", "sharpness", "gradient_xy", "gradient_z", "stripes"),
        *("correlation", "csf_error", "lesion_contrast", "psnr_volume", "ssim_volume", "nmse_volume"),
        *("psnr_lesion", "ssim_lesion", "mae_lesion", "psnr_outside", "ssim_outside"),
        *("ssim_brasyn_lesion", "ssim_brasyn_outside", "lpips"),
    ]
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.metric in {*METRICS, "lpips"}
        assert measure.convention in CONVENTIONS
        assert measure.region in {"brain", "volume", "lesion", "outside", "csf"}
        assert measure.region in name or "_" not in name or name in ("ms_ssim", "gradient_xy", "gradient_z")
        assert measure.unit == ("dB" if measure.metric == "psnr" else "")
    lower = {name for name, measure in MEASURES.items() if not measure.higher_is_better}
    assert lower == {
        "mae",
        "nmse",
        "hfen",
        "gradient_xy",
        "gradient_z",
        "stripes",
        "nmse_volume",
        "mae_lesion",
        "csf_error",
        "lpips",
    }


def test_each_measure_is_its_metric_in_its_region():
    pred, truth, regions = case()
    inside, everywhere = regions["brain"], torch.ones(SHAPE)
    lesion = regions["lesion"] & inside
    outside = inside & ~lesion
    own = apply("own", pred, truth, inside)
    result = score(pred, truth, regions, list(MEASURES))
    pred, truth = apply("truth", pred, truth, inside)
    expected = {
        "psnr": brain.psnr(pred, truth, inside),
        "ssim": brain.ssim(pred, truth, inside),
        "ms_ssim": similarity.ms_ssim(pred, truth, inside),
        "mae": similarity.mae(pred, truth, inside),
        "nmse": similarity.nmse(pred, truth, inside),
        "nmi": similarity.nmi(pred, truth, inside),
        "hfen": sharpness.hfen(pred, truth, inside),
        "sharpness": sharpness.sharpness(pred, truth, inside),
        "gradient_xy": stripes.gradient_xy(pred, truth, inside),
        "gradient_z": stripes.gradient_z(pred, truth, inside),
        "stripes": stripes.stripes(pred, truth, inside),
        "correlation": similarity.correlation(pred, truth, inside),
        "csf_error": tissues.mean_difference(pred, truth, regions["csf"]),
        "lesion_contrast": tissues.contrast_kept(pred, truth, lesion, regions["white_matter"]),
        "psnr_volume": brain.psnr(pred, truth, everywhere),
        "ssim_volume": brain.ssim(pred, truth, everywhere),
        "nmse_volume": similarity.nmse(pred, truth, everywhere),
        "psnr_lesion": brain.psnr(pred, truth, lesion),
        "ssim_lesion": brain.ssim(pred, truth, lesion),
        "mae_lesion": similarity.mae(pred, truth, lesion),
        "psnr_outside": brain.psnr(pred, truth, outside),
        "ssim_outside": brain.ssim(pred, truth, outside),
        "ssim_brasyn_lesion": brain.ssim_brasyn(*own, lesion),
        "ssim_brasyn_outside": brain.ssim_brasyn(*own, outside),
    }
    assert list(result) == list(expected)
    assert result == pytest.approx(expected, rel=1e-5)
    assert all(isinstance(value, float) and np.isfinite(value) for value in result.values())
    assert len(set(result.values())) == len(result) - 1  # NMSE is the same: both images are black outside the brain


def test_the_convention_is_that_of_the_defaults_alone():
    pred, truth, regions = case()
    plain = score(pred, truth, regions, list(MEASURES))
    for name in ("own", "max"):
        result = score(pred, truth, regions, list(MEASURES), name)
        scaled = apply(name, pred, truth, regions["brain"])
        assert result["psnr"] == brain.psnr(*scaled, regions["brain"]) != plain["psnr"]
        assert result["ssim"] == pytest.approx(brain.ssim(*scaled, regions["brain"]), rel=1e-6)
        assert all(result[key] != plain[key] for key in DEFAULTS if key != "nmi")
        assert all(result[key] == pytest.approx(plain[key], rel=1e-6) for key in plain if key not in DEFAULTS)
        assert {measure.convention for measure in select(DEFAULTS, name)} == {name}


def test_measures_without_a_region_are_left_out():
    pred, truth, regions = case()
    inside = {"brain": regions["brain"]}
    assert set(score(pred, truth, inside, list(MEASURES))) == {*DEFAULTS, "correlation"}
    for lesion in (torch.zeros(SHAPE), ~regions["brain"]):
        assert set(score(pred, truth, {**inside, "lesion": lesion}, list(MEASURES))) == {*DEFAULTS, "correlation"}
    everywhere = {**inside, "lesion": torch.ones(SHAPE)}
    assert not {"psnr_outside", "ssim_brasyn_outside"} & set(score(pred, truth, everywhere, list(MEASURES)))
    assert score(pred, truth, regions, []) == {}
    assert list(score(pred, truth, regions, ["mae", "psnr"])) == ["mae", "psnr"]


def test_thin_volumes_have_no_score_of_brasyn():
    pred, truth, regions = case()
    thin = {name: mask[..., 8:18] for name, mask in regions.items()}
    result = score(pred[..., 8:18], truth[..., 8:18], thin, list(MEASURES))
    assert set(MEASURES) - set(result) == {"lpips", "ssim_brasyn_lesion", "ssim_brasyn_outside"}


def test_a_single_slice_has_no_neighbours():
    pred, truth, regions = case()
    one = {name: mask[..., 12:13] for name, mask in regions.items()}
    result = score(pred[..., 12:13], truth[..., 12:13], one, ["psnr", "gradient_z", "stripes"])
    assert list(result) == ["psnr"]


def test_maps_of_similarity_are_computed_once_per_convention(monkeypatch):
    pred, truth, regions = case()
    seen = []

    def counted(p, t, mask):
        seen.append(int((mask != 0).sum()))
        return brain.ssim_map(p, t, mask)

    monkeypatch.setattr(measures, "ssim_map", counted)
    score(pred, truth, regions, ["psnr", "mae", "ssim_brasyn_lesion"])
    assert seen == []
    score(pred, truth, regions, ["ssim", "ms_ssim", "ssim_lesion", "ssim_outside"])
    assert seen == [int(regions["brain"].sum())]
    seen.clear()
    score(pred, truth, regions, list(MEASURES), "own")
    assert sorted(seen) == [int(regions["brain"].sum()), truth.numel()]


def test_lpips_is_what_the_given_network_says():
    pred, truth, regions = case()

    def distance(p, t, inside):
        return (p - t)[inside].square().mean().item()

    names = ["psnr", "lpips"]
    expected = distance(*apply("truth", pred, truth, regions["brain"]), regions["brain"])
    assert score(pred, truth, regions, names, "own", distance)["lpips"] == expected
    assert set(score(pred, truth, regions, names)) == {"psnr"}


def test_unknown_names_are_one_line():
    pred, truth, regions = case()
    with pytest.raises(InputError) as fault:
        score(pred, truth, regions, ["psnr", "fid"])
    assert str(fault.value).startswith("measures: there is no 'fid'. Choose from psnr, ssim, ms_ssim,")
    with pytest.raises(InputError, match="convention: there is no 'zscore'. Choose from truth, own, max"):
        score(pred, truth, regions, ["psnr"], "zscore")
