"""The picture shows the right side on the right side."""

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bundle.data.qc import Sketch, draw_plane, projections, write_qc
from tests.phantom import affine_of, within, world_of


def volumes(axes="RAS", spacing=(1, 1, 1), shape=(80, 100, 70)):
    """A brain that is bright at its right, front and top ends, and its mask."""
    affine = affine_of(shape, spacing, axes)
    world = world_of(shape, affine)
    brain = within(world)
    offset = world - world[brain].mean(0)
    bright = (offset[..., 0] > 15) | (offset[..., 1] > 20) | (offset[..., 2] > 13)
    return np.where(brain, 0.1 + 0.8 * bright, 0), brain, affine


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_radiological_view(axes):
    volume, brain, affine = volumes(axes)
    turn = nib.io_orientation(affine)
    upright, mask = (nib.apply_orientation(v, turn) for v in (volume, brain))
    for plane in ("axial", "coronal", "sagittal"):
        ax = Figure().subplots()
        draw_plane(ax, upright, projections(mask), np.ones(3), plane, 1, "gray")
        shown = np.asarray(ax.images[0].get_array())[:, ::-1]  # as inverted: from left to right, bottom row first
        assert ax.xaxis_inverted() and not ax.yaxis_inverted()
        height, width = shown.shape
        middle = shown[height // 2], shown[:, width // 2]
        assert middle[0][5] > 0.8 and middle[0][-6] < 0.2  # R (or A) is bright and on the left
        assert middle[1][-6] > 0.8 and middle[1][5] < 0.2  # A (or S) is bright and on top


def test_proportions_of_thick_slices():
    volume, brain, _ = volumes(spacing=(1, 1, 4), shape=(80, 100, 18))
    ax = Figure().subplots()
    draw_plane(ax, volume, projections(brain), np.array([1, 1, 4.0]), "coronal", 1, "gray")
    assert ax.get_aspect() == 4


def test_sketch_of_a_large_volume_keeps_every_nth_voxel(tmp_path, monkeypatch):
    shape = (40, 9, 23)
    affine = affine_of(shape, (0.3, 1, 0.6), "LPS", (10, 0))
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), tmp_path / "reference.nii")
    volume = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    whole = Sketch(tmp_path / "reference.nii")
    whole.add(0, {"pred": volume})
    assert whole.volumes["pred"] is volume and np.allclose(whole.affine, affine)

    monkeypatch.setattr("bundle.data.scan_file.AT_ONCE", 1000)
    monkeypatch.setattr("bundle.data.scan_file.SLAB", 1000)
    monkeypatch.setattr("bundle.data.qc.SHARP", 10)
    sketch = Sketch(tmp_path / "reference.nii")
    for start, stop in ((0, 4), (4, 5), (5, 6), (6, 14), (14, 23)):
        part = volume[..., start:stop]
        sketch.add(start, {"pred": part, "brain": part[:1] > 0.5})
    assert np.array_equal(sketch.volumes["pred"], volume[:, ::4, :, ::3])
    assert np.array_equal(sketch.volumes["brain"], volume[:1, ::4, :, ::3] > 0.5)
    assert np.allclose(sketch.affine @ [3, 2, 5, 1], affine @ [12, 2, 15, 1])


def test_file(tmp_path):
    volume, brain, affine = volumes("LPS", (1, 1, 3), (80, 100, 24))
    write_qc(
        tmp_path / "a.png",
        "Jos\u00e9 1",
        {"t1": volume, "t1ce": volume},
        ["t1ce"],
        {"t1ce": 0.1 * volume},
        brain,
        affine,
    )
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert picture.shape[:2] == (980, 960)
    orange = (abs(picture - [255, 176, 0]).sum(-1) < 30).any(1)
    assert (
        not orange[60:340].any() and orange[360:].sum() > 300
    )  # the row of the given contrast is not marked synthetic
