"""The voxel-wise perceptron outside the network: its features, and that it learns what a voxel tells."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from scripts import perceptron
from tests.phantom import affine_of, scan

SHAPE = (70, 90, 24)


@pytest.fixture
def data(tmp_path):
    """Two subjects with two contrasts, one the reverse of the other, and what one cannot tell: noise of 0.02."""
    rng = np.random.default_rng(0)
    affine = affine_of(SHAPE, (1, 1, 1))
    base = scan(SHAPE, affine).get_fdata()
    for name, shift in (("A", 0), ("B", 20)):
        (tmp_path / "in" / name).mkdir(parents=True)
        for contrast, values in (("t1", base + shift), ("t2", 700 - base + rng.normal(0, 8, SHAPE))):
            image = nib.Nifti1Image((values * (base > 0)).astype(np.float32), affine)
            nib.save(image, tmp_path / "in" / name / f"{contrast}.nii.gz")
    (tmp_path / "split.json").write_text(json.dumps({"training": ["A"], "test": ["B"]}))
    return tmp_path


def words(folder):
    options = {"dataset_dir": folder / "in", "split_file": folder / "split.json", "output_file": folder / "out.json"}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def test_it_learns_what_a_voxel_tells(data, capsys):
    perceptron.main([*words(data), "--seconds", "1", "--voxels", "20000"])
    report = json.loads((data / "out.json").read_text())
    by_task = {(*row["given"], row["target"]): row for row in report["results"]}
    assert set(by_task) == {("t1", "t2"), ("t2", "t1")}
    assert all(row["subject"] == "B" for row in report["results"])
    assert by_task["t1", "t2"]["correlation"] > 0.97 and by_task["t1", "t2"]["psnr"] > 24
    assert [one["subjects"] for one in report["perceptrons"]] == [["A"]] * 2
    assert "t2    from t1" in capsys.readouterr().out


def test_features():
    brain = torch.zeros(20, 20, 20, dtype=torch.bool)
    brain[5:16, 5:16, 5:16] = True
    image = torch.rand(20, 20, 20) * brain

    class Subject:
        images = {"t1": image, "t2": 1 - image}

    Subject.brain = brain
    table = perceptron.table_of(Subject)
    features = table.features(("t1",))
    assert features.shape == (11**3, 3 + 4) and torch.equal(features[:, 0], image[brain])
    expected = ndimage.gaussian_filter(image.numpy(), 4)[brain.numpy()]
    assert np.allclose(features[:, 2], expected, atol=1e-6)
    middle = features[11**3 // 2, 3:] * torch.tensor([50, 1, 1, 1])
    assert middle.tolist() == pytest.approx([6, 0, 0, 0])
    assert features[0, 4:].tolist() == [-1, -1, -1] and features[-1, 4:].tolist() == [1, 1, 1]
    drawn = perceptron.some(table, 50, torch.Generator().manual_seed(0))
    assert drawn.features(("t2", "t1")).shape == (50, 10)
    assert torch.equal(drawn.values["t1"][:, 0], 1 - drawn.values["t2"][:, 0])
