"""Scans are read as they are in the file, repaired, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.data.checks import check_subjects
from bundle.data.discovery import find_subjects
from bundle.data.scan_file import ScanFile
from bundle.errors import InputError
from bundle.transforms.load import LoadScansd

KEYS = ["t1", "t1ce", "t2", "flair", "label", "mask"]
SHAPE = (20, 24, 16)
OBLIQUE = np.array([[-0.9, 0, 0.3, 80], [0.05, 1.1, 0, -90], [0.1, 0, 3, -30], [0, 0, 0, 1.0]])


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)


def write(path: Path, voxels: np.ndarray, affine=OBLIQUE) -> str:
    nib.Nifti1Image(voxels, affine).to_filename(path)
    return str(path)


def test_values_grid_and_type(tmp_path, voxels):
    data = {"subject": "a", "t1": write(tmp_path / "T1.nii.gz", voxels), "warnings": ["before"]}
    item = LoadScansd(KEYS)(data)
    image = item["t1"]
    assert isinstance(image, MetaTensor)
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (1, *SHAPE))
    assert np.array_equal(image[0].numpy(), voxels)
    assert np.abs(image.affine.numpy() - OBLIQUE).max() < 1e-5
    assert np.abs(np.asarray(image.meta["original_affine"]) - OBLIQUE).max() < 1e-5
    assert image.meta["filename_or_obj"] == data["t1"]
    assert item["warnings"] == data["warnings"] == ["before"]
    assert set(item) == {"subject", "t1", "warnings"}
    assert data["t1"] == str(tmp_path / "T1.nii.gz")


def test_missing_keys_may_be_refused(tmp_path, voxels):
    data = {"t1": write(tmp_path / "T1.nii.gz", voxels)}
    with pytest.raises(KeyError):
        LoadScansd(KEYS, allow_missing_keys=False)(data)


def test_repairs_reach_the_image_and_are_said(tmp_path, voxels):
    scan = voxels.astype(np.float32) + 1
    scan[5, 5, 5], scan[7, 7, 7] = np.nan, -3
    item = LoadScansd(KEYS)({"t1": write(tmp_path / "T1.nii.gz", scan)})
    assert torch.isfinite(item["t1"]).all() and item["t1"].min() == 0
    assert len(item["warnings"]) == 2


def test_scaling_is_applied_and_said(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, OBLIQUE)
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "T1.nii.gz")
    item = LoadScansd(KEYS)({"t1": str(tmp_path / "T1.nii.gz")})
    assert np.allclose(item["t1"][0].numpy(), nib.load(tmp_path / "T1.nii.gz").get_fdata())
    assert "scaling was applied (slope 0.5, intercept 10)" in item["warnings"][0]


def test_trailing_axes_are_dropped(tmp_path, voxels):
    item = LoadScansd(KEYS)({"t1": write(tmp_path / "T1.nii.gz", voxels[..., None, None])})
    assert np.array_equal(item["t1"].numpy(), voxels[None])
    assert np.abs(item["t1"].affine.numpy() - OBLIQUE).max() < 1e-5
    assert "were dropped" in item["warnings"][0]


def test_sform_counts_where_pixdim_differs(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, OBLIQUE)
    image.set_qform(None, 0)
    image.header["quatern_b"] = 5  # nibabel and the standard do not look at it where qform_code is 0
    image.header["pixdim"][1:4] = 1
    image.to_filename(tmp_path / "T1.nii")
    item = LoadScansd(KEYS)({"t1": str(tmp_path / "T1.nii")})
    assert np.abs(item["t1"].affine.numpy() - OBLIQUE).max() < 1e-5
    assert "pixdim has others" in item["warnings"][0]


def test_labels_and_masks(tmp_path, voxels):
    scan = write(tmp_path / "T1.nii.gz", voxels)
    item = LoadScansd(KEYS)({"t1": scan, "label": write(tmp_path / "seg.nii.gz", np.zeros(SHAPE, np.uint8)),
                             "mask": write(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8))})  # fmt: skip
    assert item["label"].sum() == 0 and item["mask"].min() == 1
    empty = LoadScansd(KEYS)({"t1": scan, "mask": write(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8))})
    assert "mask" not in empty and "is empty" in empty["warnings"][0]
    with pytest.raises(InputError, match="voxels are no labels"):
        LoadScansd(KEYS)({"label": write(tmp_path / "seg.nii.gz", np.full(SHAPE, 0.5, np.float32))})


def test_faults_name_the_file(tmp_path, voxels):
    for scan, told in (
        (np.zeros(SHAPE, np.int16), "all voxels are 0"),
        (np.full(SHAPE, np.nan, np.float32), "NaN or infinite"),
        (voxels[:, :, :1], "is a single slice"),
        (voxels[:, :, 0], "is 2-D"),
    ):
        path = write(tmp_path / "T1.nii.gz", scan)
        with pytest.raises(InputError, match=told) as caught:
            LoadScansd(KEYS)({"t1": path})
        assert str(caught.value).startswith(path)


def test_damage_that_the_header_does_not_show(tmp_path, voxels):
    path = Path(write(tmp_path / "T1.nii.gz", voxels))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read to its end"):
        LoadScansd(KEYS)({"t1": str(path)})


@pytest.mark.parametrize("large", [False, True])
def test_large_scans_are_checked_alike(tmp_path, voxels, monkeypatch, large):
    if large:
        monkeypatch.setattr("bundle.data.scan_file.AT_ONCE", 2000)
        monkeypatch.setattr("bundle.data.scan_file.SLAB", 1000)
    scan = voxels.astype(np.float32) + 1
    scan[5, 5, 5], scan[7, 7, 7] = np.nan, -3
    mask = np.ones(SHAPE, np.uint8)
    item = LoadScansd(KEYS)({"t1": write(tmp_path / "T1.nii.gz", scan), "mask": write(tmp_path / "mask.nii.gz", mask)})
    assert isinstance(item["t1"], ScanFile if large else MetaTensor) and "mask" in item
    assert item["t1"].shape == (1, *SHAPE) and np.abs(item["t1"].affine.numpy() - OBLIQUE).max() < 1e-5
    assert item["warnings"] == [
        "T1.nii.gz: 1 voxels were NaN or infinite, repaired from their neighbours",
        "T1.nii.gz: 1 voxels were below 0, as a spline overshoots (down to -3), set to 0",
    ]
    for key, content, told in (
        ("t1", np.zeros(SHAPE, np.int16), "all voxels are 0"),
        ("t1", np.where(voxels < 500, np.nan, scan), r"\d\d(\.\d)? % of the voxels are NaN"),
        ("label", np.where(np.indices(SHAPE).sum(0) == 0, 0.5, 1), "1 voxels are no labels, such as 0.5"),
    ):
        path = write(tmp_path / "a.nii.gz", content)
        with pytest.raises(InputError, match=told):
            LoadScansd(KEYS)({key: path})
    empty = write(tmp_path / "mask.nii.gz", 0 * mask)
    assert "is empty" in LoadScansd(KEYS)({"mask": empty})["warnings"][0]


def test_damage_of_a_large_scan(tmp_path, voxels, monkeypatch):
    monkeypatch.setattr("bundle.data.scan_file.AT_ONCE", 2000)
    monkeypatch.setattr("bundle.data.scan_file.SLAB", 1000)
    test_damage_that_the_header_does_not_show(tmp_path, voxels)


def test_real_scans(shared_data):
    items = {item["subject"]: item for item in check_subjects(find_subjects(shared_data, KEYS[:4]))}
    load = LoadScansd(KEYS)
    spline = load(items["patient26"])
    assert len(spline["warnings"]) == 4 and all("spline" in line for line in spline["warnings"])
    assert all(spline[name].min() == 0 for name in KEYS[:4])
    native = load(items["patient03_study1"])
    assert {key: tuple(native[key].shape) for key in KEYS if key in native} == {
        "t2": (1, 354, 384, 39),
        "flair": (1, 306, 384, 39),
    }
    expected = nib.load(items["patient03_study1"]["t2"])
    assert np.array_equal(native["t2"][0].numpy(), expected.get_fdata(dtype=np.float32))
    assert np.allclose(native["t2"].affine, expected.affine)
    assert native["warnings"] == []
