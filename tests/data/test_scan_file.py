"""What is read slab by slab is what is read at once."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from bundle.data import scan_file
from bundle.data.background import Background
from bundle.data.scan_file import ScanFile, slabs
from tests.phantom import affine_of

SHAPE = (20, 24, 17)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(scan_file, "AT_ONCE", 20 * 24 * 8)
    monkeypatch.setattr(scan_file, "SLAB", 20 * 24 * 3)


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)


def write(path, voxels, affine=None):
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return str(path)


def test_slabs_follow_each_other():
    assert slabs((20, 24, 8)) == [(0, 8)]
    assert slabs((20, 24, 9)) == [(0, 3), (3, 6), (6, 9)]
    assert slabs(SHAPE) == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 17)]
    assert slabs((100, 100, 2)) == [(0, 1), (1, 2)]  # a plane at least


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_slabs_of_a_file(tmp_path, voxels, ending):
    path = write(tmp_path / f"a.{ending}", voxels[..., None], np.diag([1, 2, 3, 1.0]))
    scan = ScanFile(path)
    assert scan.shape == (1, *SHAPE) and scan.affine.diagonal().tolist() == [1, 2, 3, 1]
    parts = list(scan.slabs())
    assert [part.shape[2] for part in parts] == [3, 3, 3, 3, 3, 2]
    assert all(part.dtype == np.float32 for part in parts)
    assert np.array_equal(np.concatenate(parts, axis=2), voxels)


def test_scaling_is_applied(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "a.nii.gz")
    assert np.array_equal(np.concatenate(list(ScanFile(tmp_path / "a.nii.gz").slabs()), axis=2), voxels / 2 + 10)


def test_repairs_on_the_way(tmp_path, voxels):
    broken = voxels.astype(np.float32)
    broken[3, 3, 3], broken[4, 4, 4] = np.nan, -5
    scan = ScanFile(write(tmp_path / "a.nii", broken))
    assert np.isnan(np.concatenate(list(scan.slabs()), axis=2)).sum() == 1
    scan.background = Background(overshoots=True)
    mended = np.concatenate(list(scan.slabs()), axis=2)
    neighbours = [
        voxels[3 + dx, 3 + dy, 3 + dz] for dx, dy, dz in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    ]
    assert mended[3, 3, 3] in neighbours and mended[4, 4, 4] == 0
    mended[3, 3, 3], mended[4, 4, 4] = voxels[3, 3, 3], voxels[4, 4, 4]
    assert np.array_equal(mended, voxels)


@pytest.mark.parametrize("axes", ["RAS", "PIR"])
@pytest.mark.parametrize(("mode", "padding"), [("bilinear", "zeros"), ("bilinear", "border"), ("nearest", "border")])
def test_on_another_grid(tmp_path, voxels, axes, mode, padding):
    """Against scipy, which sees the whole scan at once."""
    affine = affine_of(SHAPE, (1.0, 0.8, 1.7), axes, (12, -7))
    grid, shape = affine_of((30, 22, 26), (1.1, 1.2, 0.9), "RAS", (3, 5)), (30, 22, 26)
    scan = ScanFile(write(tmp_path / "a.nii.gz", voxels, affine))
    found = scan.onto(torch.as_tensor(grid), shape, mode, padding)[0].numpy()

    to_scan = np.linalg.inv(affine) @ grid
    places = np.einsum("ij,j...->i...", to_scan[:3, :3], np.indices(shape)) + to_scan[:3, 3, None, None, None]
    size = np.array(SHAPE)[:, None, None, None]
    beyond = "grid-constant" if padding == "zeros" else "nearest"
    expected = ndimage.map_coordinates(voxels.astype(float), places, order=mode == "bilinear", mode=beyond)
    sure = np.abs(places - np.floor(places) - 0.5).min(0) > 1e-3  # not halfway between two voxels
    if mode == "nearest":
        assert np.array_equal(found[sure], expected[sure])
    else:
        np.testing.assert_allclose(found, expected, atol=0.05)  # of 1000
    outside = ((places < -1) | (places > size)).any(0)
    assert outside.mean() > 0.1 and (found[outside] == 0).all() == (padding == "zeros")
