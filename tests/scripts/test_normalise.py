"""Normalised copies of subjects: what the methods promise, and a folder that the commands understand."""

from __future__ import annotations

import json
import sys

import nibabel as nib
import numpy as np
import pytest

from bundle.data.contrasts import Window, load_registry
from bundle.data.discovery import find_subjects
from bundle.errors import InputError
from scripts import normalise


def scan(gain=1.0, gamma=1.0, seed=0):
    """Air, and three tissues of intensity 0.2, 0.6 (most of it) and 1.0, noisy, after gamma and gain."""
    rng = np.random.default_rng(seed)
    tissue = np.repeat([0.2, 0.6, 1.0], [1000, 4000, 3000])
    values = np.clip(tissue + 0.03 * rng.standard_normal(8000), 0.01, 1.2)
    return np.concatenate([np.zeros(8000), gain * values**gamma]).astype(np.float32).reshape(20, 20, 40)


def write(folder, name, image):
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    for ending in ("t1n", "t2w"):
        nib.save(nib.Nifti1Image(image, affine), folder / f"{name}-{ending}.nii.gz")
    nib.save(nib.Nifti1Image((image > 0).astype(np.uint8), affine), folder / f"{name}-seg.nii.gz")


@pytest.mark.parametrize(("contrast", "tissue"), [("t1", 1.0), ("t1ce", 1.0), ("t2", 0.6), ("flair", 0.6)])
def test_kde_makes_the_tissue_one(contrast, tissue):
    pytest.importorskip("intensity_normalization")
    known = normalise.normaliser("kde", contrast, [scan()])
    for gain in (1.0, 730.0):
        image = scan(gain, seed=3)
        found = known(image)
        assert found.dtype == np.float32 and np.array_equal(found > 0, image > 0)
        np.testing.assert_allclose(found, image / (gain * tissue), rtol=0.04)


def test_nyul_undoes_a_curve():
    pytest.importorskip("intensity_normalization")
    training = [scan(seed=1), scan(200.0, seed=2)]
    known = normalise.normaliser("nyul", "t1", training)
    ranks = np.arange(10, 100, 10)
    landmarks = []
    for image in (*training, scan(3.0, gamma=0.5, seed=3)):
        found = known(image)
        assert np.array_equal(found > 0, image > 0)
        landmarks.append(np.percentile(found[found > 0], ranks))
    for other in landmarks[1:]:
        np.testing.assert_allclose(other, landmarks[0], rtol=1e-3)


def test_folder(tmp_path):
    pytest.importorskip("intensity_normalization")
    for name, gain in {"A-001": 1.0, "A-002": 50.0, "A-003": 900.0}.items():
        write(tmp_path / "scans" / "site" / name, name, scan(gain))
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"training": ["A-001", "A-002"], "validation": [], "test": ["A-003"]}))
    out = tmp_path / "out"
    normalise.main(
        [
            "--method",
            "kde",
            "--dataset_dir",
            str(tmp_path / "scans"),
            "--split_file",
            str(split),
            "--output_dir",
            str(out),
        ]
    )
    before = find_subjects(tmp_path / "scans", ("t1", "t2"))
    after = find_subjects(out, ("t1", "t2"))
    assert [item["subject"] for item in after] == ["A-001", "A-002", "A-003"]
    images = [nib.load(item["t2"]) for item in after]
    for item, old, image in zip(after, before, images):
        assert np.array_equal(image.affine, nib.load(old["t2"]).affine)
        np.testing.assert_allclose(image.get_fdata(), images[0].get_fdata(), rtol=0.03)  # the gain is gone
        assert np.array_equal(nib.load(item["label"]).dataobj, nib.load(old["label"]).dataobj)
    registry = load_registry(json.loads((out / "registry.json").read_text())["registry"])
    top = np.percentile(scan()[scan() > 0], 99.5)
    assert registry["t1"].intensity == Window(0, pytest.approx(top, rel=0.03))
    assert registry["t2"].intensity == Window(0, pytest.approx(top / 0.6, rel=0.03))


def test_another_background_is_the_same_scan(tmp_path):
    brain = np.zeros((20, 20, 40), np.float32)
    brain[4:16, 4:16, 8:32] = 50 + scan(100)[4:16, 4:16, 8:32]
    for name, values in (("plain", brain), ("moved", brain - 1024)):
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    plain, moved = (normalise._values(tmp_path / f"{name}.nii.gz") for name in ("plain", "moved"))
    assert np.array_equal(plain, brain)
    np.testing.assert_allclose(moved, brain, atol=1e-3)


def test_never_over_the_scans_themselves(tmp_path):
    write(tmp_path / "A-001", "A-001", scan())
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"training": ["A-001"], "validation": [], "test": []}))
    words = ["--method", "kde", "--dataset_dir", str(tmp_path), "--split_file", str(split), "--output_dir"]
    with pytest.raises(InputError, match="Give --output_dir a folder outside of it"):
        normalise.main([*words, str(tmp_path)])
    assert np.array_equal(nib.load(tmp_path / "A-001" / "A-001-t1n.nii.gz").dataobj, scan())


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "intensity_normalization.adapters.images", None)
    with pytest.raises(InputError, match="intensity-normalization is not installed. Run pip install"):
        normalise.normaliser("kde", "t1", [scan()])
