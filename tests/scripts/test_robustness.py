"""The disturbances are what they are called, and the table tells what they cost."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes

from bundle.errors import InputError
from scripts import robustness
from scripts.robustness import DISTURBANCES, failures, table, thickened, values_of

AFFINE = np.array([[-1.0, 0, 0, 40], [0, -1, 0, 50], [0, 0, 1, -20], [0, 0, 0, 1]])  # LPS


@pytest.fixture
def scans():
    """Three scans of a ball with a gradient, 0 around it."""
    grid = np.indices((48, 52, 40)).astype(np.float32)
    inside = sum((g - (n - 1) / 2) ** 2 for g, n in zip(grid, (48, 52, 40))) < 15**2
    values = {"t1": 100 + 3 * grid[0], "t2": 400 - 4 * grid[1], "flair": 50 + 2 * grid[2]}
    return {name: Nifti1Image((inside * v).astype(np.float32), AFFINE) for name, v in values.items()}


def test_every_disturbance_gives_scans_of_the_same_names_and_twice_the_same(scans):
    before = {name: values_of(image).copy() for name, image in scans.items()}
    for name, disturb in DISTURBANCES.items():
        once, twice = disturb(scans), disturb(scans)
        assert list(once) == list(scans)
        for contrast, image in once.items():
            assert np.isfinite(values_of(image)).all() and values_of(image).min() >= 0, name
            assert np.array_equal(values_of(image), values_of(twice[contrast]))
        changed = any(
            not np.array_equal(values_of(once[c]), before[c]) or not np.allclose(once[c].affine, AFFINE) for c in scans
        )
        assert changed == (name != "none")
    assert all(np.array_equal(values_of(scans[name]), values) for name, values in before.items())


def test_intensities(scans):
    values = values_of(scans["t1"])
    inside = values > 0
    assert np.array_equal(values_of(robustness.gain(3.0, scans)["t1"]), 3 * values)
    scaled = values_of(robustness.gamma(2.0, scans)["t1"])[inside] / values.max()
    assert np.allclose(scaled, (values[inside] / values.max()) ** 2, atol=1e-4)
    noisy = values_of(robustness.noise(0.1, scans)["t2"])
    assert not noisy[~inside].any()
    deviation = np.std((noisy - values_of(scans["t2"]))[inside])
    assert deviation == pytest.approx(0.1 * robustness.bright(values_of(scans["t2"])), rel=0.05)
    fields = robustness.bias_field(0.3, scans)
    fields = {name: values_of(fields[name])[inside] / values_of(scans[name])[inside] for name in scans}
    assert np.abs(np.log(fields["t1"])).max() > 0.1
    assert not np.allclose(fields["t1"], fields["t2"], atol=0.05)


def test_movements(scans):
    point = np.array([10.0, 20, 30])
    for disturb, amount in ((robustness.shift, 3.0), (robustness.rotation, 5.0)):
        after = disturb(amount, scans)
        assert np.array_equal(after["t1"].affine, AFFINE)
        places = apply_affine(after["t2"].affine, point) - apply_affine(AFFINE, point)
        if disturb is robustness.shift:
            assert np.linalg.norm(places) == pytest.approx(3.0)
        else:
            middle = apply_affine(AFFINE, (np.array((48, 52, 40)) - 1) / 2)
            radius = np.linalg.norm((apply_affine(AFFINE, point) - middle)[:2])
            assert np.linalg.norm(places) == pytest.approx(2 * radius * np.sin(np.radians(5) / 2))
            assert places[2] == pytest.approx(0)


@pytest.mark.parametrize("axes", [AFFINE, AFFINE[:, [2, 0, 1, 3]]])
def test_thick_slices(scans, axes):
    """The mean of three slices, at the middle of them, along whichever axis runs from feet to head."""
    axis = 2 if axes is AFFINE else 0
    image = Nifti1Image(np.moveaxis(values_of(scans["t1"]), 2, axis), axes)
    thick = thickened(image, 3.0)
    assert voxel_sizes(thick.affine)[axis] == pytest.approx(3) and thick.shape[axis] == 14  # 40 / 3, filled up
    block = values_of(image).take([12, 13, 14], axis).mean(axis)
    assert np.allclose(values_of(thick).take(4, axis), block, atol=1e-3)
    at = {False: np.zeros(3), True: np.zeros(3)}
    at[False][axis], at[True][axis] = 13, 4
    assert np.allclose(apply_affine(thick.affine, at[True]), apply_affine(axes, at[False]))


@pytest.mark.parametrize("flip", [1, -1])  # files from feet to head, and from head to feet
def test_field_of_view(scans, flip):
    turned = AFFINE @ np.diag([1.0, 1, flip, 1])
    scans = {name: Nifti1Image(values_of(image), turned) for name, image in scans.items()}
    after = robustness.field_of_view(1 / 3, scans)
    assert np.array_equal(values_of(after["t1"]), values_of(scans["t1"]))
    height = apply_affine(turned, np.argwhere(values_of(scans["t2"]) > 0))[:, 2]
    kept = apply_affine(turned, np.argwhere(values_of(after["t2"]) > 0))[:, 2]
    assert kept.max() == height.max() and kept.min() == pytest.approx(
        np.quantile([height.min(), height.max()], 1 / 3), abs=1
    )


def test_scalp_and_headers(scans):
    skull = values_of(robustness.residual_skull(scans)["flair"])
    rim = np.argwhere((skull > 0) & (values_of(scans["flair"]) == 0))
    away = np.linalg.norm(rim - (np.array((48, 52, 40)) - 1) / 2, axis=1)
    assert len(rim) > 500 and away.min() > 17 and away.max() < 24 and rim[:, 2].min() > 20
    wrong = DISTURBANCES["header: axial called coronal"](scans)["t1"]
    assert nib.aff2axcodes(AFFINE) == ("L", "P", "S") and nib.aff2axcodes(wrong.affine) == ("L", "I", "A")
    assert nib.aff2axcodes(DISTURBANCES["header: left and right exchanged"](scans)["t1"].affine) == ("R", "P", "S")


def test_failures():
    truth = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    assert failures(0.5 * truth + 0.1, truth) == []
    assert failures(1 - truth, truth) == ["inverted"]
    assert failures(truth * (truth > 0.6), truth) == ["empty"]
    assert failures(np.where(truth > 0.9, np.nan, truth), truth) == ["not finite"]


def test_table():
    rows = [
        {"disturbance": d, "target": t, "psnr": p, "failures": f}
        for d, t, p, f in [
            ("none", "t1", 20.0, []),
            ("none", "t1", 22.0, []),
            ("none", "flair", 15.0, []),
            ("noise", "t1", 19.0, []),
            ("noise", "t1", 18.0, ["inverted"]),
            ("noise", "flair", 16.0, []),
        ]
    ]
    assert table(rows).splitlines() == [
        "| disturbance | T1 | FLAIR | mean | failures |",
        "|---|---|---|---|---|",
        "| none | 21.00 | 15.00 | 18.00 | - |",
        "| noise | -2.50 | +1.00 | -0.75 | inverted |",
    ]


def test_a_subject(scans, tmp_path, capsys):
    """The whole way with the shipped weights: a gain changes nothing, and unknown names are one line."""
    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    del scans["t2"]
    for name, image in scans.items():
        nib.save(image, folder / f"a_{name}.nii.gz")
    words = ["--dataset_dir", str(tmp_path / "in"), "--output", str(tmp_path / "out.json")]
    robustness.main([*words, "--only", "gain x 3"])
    content = json.loads((tmp_path / "out.json").read_text())
    found = {(row["disturbance"], row["target"]): row["psnr"] for row in content["results"]}
    assert set(found) == {(d, t) for d in ("none", "gain x 3") for t in scans}
    assert all(found["gain x 3", name] == pytest.approx(found["none", name], abs=0.05) for name in scans)
    assert "| gain x 3 |" in capsys.readouterr().out
    with pytest.raises(InputError, match="'gain' is unknown"):
        robustness.main([*words, "--only", "gain"])
    nib.save(Nifti1Image(values_of(scans["flair"])[1:], AFFINE), folder / "a_flair.nii.gz")
    with pytest.raises(InputError, match="not on the grid"):
        robustness.main(words)
