"""Whatever constant a scan has for background, its brain and its normalised intensities are those of the plain form."""

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose
from scipy import ndimage

from bundle.data.background import Background, Border, find_background
from bundle.transforms.brain import BrainMaskd
from bundle.transforms.grid import ToNetworkGridd
from bundle.transforms.intensity import ScaleIntensityd
from bundle.transforms.load import LoadScansd
from tests.phantom import affine_of, brightness, within, world_of

SHAPE = (76, 96, 64)
AFFINE = affine_of(SHAPE, (1, 1, 1))
CONTRASTS = ["t1", "t2"]
PREPARE = Compose([LoadScansd(CONTRASTS), ToNetworkGridd(CONTRASTS), BrainMaskd(CONTRASTS), ScaleIntensityd(CONTRASTS)])


def plain(shape=SHAPE, affine=AFFINE) -> np.ndarray:
    """A stripped brain, 0 around it, 20 to 255 in it, with a texture."""
    world = world_of(shape, affine)
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 2)
    values = np.clip((brightness(world) - 100) * 0.6 + 60 * texture / texture.std() * 0.5, 20, 255)
    return np.round(values * within(world))


def prepared(folder, voxels, affine=AFFINE, dtype=np.float32, name="t1"):
    """The mask and the scaled scan on the network's grid, and the warnings."""
    nib.save(nib.Nifti1Image(voxels.astype(dtype), affine), folder / f"{name}.nii.gz")
    data = PREPARE({name: str(folder / f"{name}.nii.gz"), "warnings": []})
    return data["brain"][0].numpy() > 0, data[name][0].numpy(), data["warnings"], data["intensity"][name]


def agree(found, expected, differing=0.0, correlation=1 - 1e-6):
    """Masks that differ in so many voxels at most, of all in the brain, and scaled scans that correlate in it."""
    (mask, scan, warnings, _), (brain, truth, _, _) = found, expected
    assert not [line for line in warnings if "skull" in line or "covers" in line]
    assert (mask ^ brain).sum() <= differing * brain.sum()
    assert np.corrcoef(scan[brain], truth[brain])[0, 1] > correlation


BRAIN = plain() > 0
MEAN, SD = plain()[BRAIN].mean(), plain()[BRAIN].std()
FORMS = {
    "-1000": (plain() - 1000, np.float32),
    "int16 -1024": (16 * plain() - 1024, np.int16),
    "int8 -128": (plain() - 128, np.int8),
    "-1": (plain() - 1, np.int16),
    "[-1, 1]": (2 * plain() / 255 - 1, np.float32),
    "z-scored by the brain": ((plain() - MEAN) / SD, np.float32),
    "z-scored by the volume": ((plain() - plain().mean()) / plain().std(), np.float32),
    "z-scored, 0 around": (np.where(BRAIN, (plain() - MEAN) / SD, 0), np.float32),
    "+10": (plain() + 10, np.int16),
    "+100": (plain() + 100, np.float64),
    "100 around": (np.where(BRAIN, plain(), 100), np.float32),
    "wrapped to 65535": (np.where(BRAIN, plain(), 65535), np.uint16),
    "255 around": (np.where(BRAIN, plain(), 300), np.uint16),
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_any_constant(tmp_path, monkeypatch, form, large):
    expected = prepared(tmp_path, plain())
    if large:
        monkeypatch.setattr("bundle.data.scan_file.AT_ONCE", 40_000)
        monkeypatch.setattr("bundle.data.scan_file.SLAB", 30_000)
    close = (5e-3, 0.99) if form == "100 around" else (1e-3, 0.9999)  # some voxels of the brain have that value, too
    agree(prepared(tmp_path, FORMS[form][0], dtype=FORMS[form][1]), expected, *close)


def test_intensities_are_told_in_the_units_of_the_file(tmp_path):
    low, high = prepared(tmp_path, plain())[3].values()
    _, _, warnings, scale = prepared(tmp_path, 2 * plain() - 1000)
    assert scale == {"low": pytest.approx(2 * low - 1000), "high": pytest.approx(2 * high - 1000)}
    assert warnings == ["t1.nii.gz: the background is -1000 in the file, taken as 0"]


def test_a_plain_background_says_nothing(tmp_path):
    nib.save(nib.Nifti1Image(plain(), AFFINE), tmp_path / "t1.nii.gz")
    item = LoadScansd(CONTRASTS)({"t1": str(tmp_path / "t1.nii.gz")})
    assert item["warnings"] == [] and "background" not in item
    assert np.array_equal(item["t1"][0].numpy(), plain())


@pytest.mark.parametrize("value", [-1000, 0, 100])
def test_a_spline_overshoots_the_background(tmp_path, value):
    turned = ndimage.rotate(plain(), 8, reshape=False, order=3)
    assert turned.min() < -1
    found = prepared(tmp_path, turned + value)
    assert any("as a spline overshoots" in line for line in found[2])
    agree(found, prepared(tmp_path, np.maximum(turned, 0)), 1e-3)


@pytest.mark.parametrize("value", [-1000, 0, 65535])
def test_a_slab_through_the_brain(tmp_path, value):
    """Its top and bottom are brain, and its sides are cut to the brain."""
    slab = plain()[8:68, 8:88, 30:36]
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ (8, 8, 30)
    expected = prepared(tmp_path, slab, affine)
    if value == 65535:
        agree(prepared(tmp_path, np.where(slab > 0, slab, value), affine, np.uint16), expected, 1e-3, 0.9999)
    else:
        agree(prepared(tmp_path, slab + value, affine), expected)


def test_a_brain_that_fills_the_volume_keeps_its_values(tmp_path):
    inside = plain()[30:46, 38:58, 24:40] - 100
    nib.save(nib.Nifti1Image(inside, AFFINE), tmp_path / "t1.nii.gz")
    item = LoadScansd(CONTRASTS)({"t1": str(tmp_path / "t1.nii.gz")})
    assert np.array_equal(item["t1"][0].numpy(), inside) and item["warnings"] == []


def test_evaluation_and_windows_see_the_file_s_units(tmp_path):
    registry = {"t1": {"intensity": {"window": [-980, -800]}}}
    nib.save(nib.Nifti1Image(plain() - 1000, AFFINE), tmp_path / "t1.nii.gz")
    data = Compose([*PREPARE.transforms[:3], ScaleIntensityd(CONTRASTS, registry)])(
        {"t1": str(tmp_path / "t1.nii.gz"), "warnings": []}
    )
    assert data["intensity"]["t1"] == {"low": -980, "high": -800}
    expected = np.clip((plain() - 20) / 180, 0, 1) * BRAIN
    np.testing.assert_allclose(data["t1"][0].numpy()[BRAIN], expected[BRAIN], atol=1e-5)


def test_every_face_counts_once_per_edge():
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    border = Border()
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        border.add(volume[:, :, start:stop])
    faces = [np.take(volume, end, axis) for axis in range(3) for end in (0, -1)]
    assert sorted(border.voxels) == sorted(np.concatenate([face.ravel() for face in faces]))


def test_noise_keeps_the_zero_of_a_magnitude_image():
    rng = np.random.default_rng(0)
    noise = np.abs(rng.normal(0, 10, 20_000)).round()
    background, constant = find_background(noise, 0, 1000)
    assert not constant and (background.value, background.offset) == (0, 0) and 20 < background.noise < 35
    background, constant = find_background(noise - 1024, -1024, -24)
    assert not constant and background.value == -1024 and 20 < background.noise < 35
    assert find_background(rng.uniform(0, 1000, 20_000), 0, 1000) == (Background(), False)


@pytest.mark.parametrize("seed", range(24))
def test_backgrounds_at_random(tmp_path, seed):
    """A constant, noise and a turned volume within it: the plain form's brain, or a warning."""
    rng = np.random.default_rng(seed)
    scale, value = 10 ** rng.uniform(-2, 3), rng.choice([-1, 0, 1]) * 10 ** rng.uniform(-1, 4)
    angle = rng.uniform(-25, 25)
    turned = ndimage.rotate(plain(), angle, axes=rng.permutation(3)[:2], reshape=False, order=1)
    level = rng.choice([0, 0, 0.005, 0.01, 0.02]) * turned.max()
    noise = np.abs(rng.normal(0, level, SHAPE)) if level else 0
    found = prepared(tmp_path, scale * (turned + (turned < 5) * noise) + value, dtype=np.float64)
    expected = prepared(tmp_path, turned)
    print(f"scale {scale:.3g}, background {value:.3g}, {angle:.0f} degrees, noise {level:.3g}")
    agree(found, expected, 0.03 if level else 0.005, 0.99 if level else 0.999)
