"""Every scan ends up where the scanner saw it, and comes back to its own grid."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, MaskIntensityd

from bundle.errors import InputError
from bundle.transforms.brain import BrainMaskd
from bundle.transforms.crop import CropToBraind
from bundle.transforms.grid import ToNetworkGridd, overlap, slab_of
from bundle.transforms.intensity import ScaleIntensityd
from bundle.transforms.load import LoadScansd
from bundle.transforms.rim import RestoreRimd
from bundle.transforms.stack import StackContrastsd
from tests.phantom import affine_of, brightness, scan, within, world_of

CONTRASTS = ["t1", "t1ce", "t2", "flair"]
GRIDS = {
    "cubic RAS": ((80, 100, 70), (1, 1, 1), "RAS", (0, 0)),
    "flipped LPS": ((80, 100, 70), (1, 1, 1), "LPS", (0, 0)),
    "permuted PIR": ((100, 70, 80), (1, 1, 1), "PIR", (0, 0)),
    "anisotropic": ((96, 120, 18), (0.8, 0.8, 4), "LAS", (0, 0)),
    "sagittal anisotropic": ((120, 90, 20), (0.9, 0.8, 3.5), "PSR", (0, 0)),
    "oblique": ((80, 104, 72), (1, 1, 1), "RAS", (17, -11)),
    "oblique anisotropic": ((100, 112, 20), (0.75, 0.75, 3.3), "LPS", (-14, 9)),
}


def save(folder, name, shape, spacing, axes, degrees, gain=1.0):
    path = folder / f"{name}.nii.gz"
    nib.save(scan(shape, affine_of(shape, spacing, axes, degrees), gain), path)
    return str(path)


@pytest.fixture
def in_slabs(monkeypatch):
    """Volumes as small as those here are dealt with slab by slab, as large ones are."""
    monkeypatch.setattr("bundle.data.scan_file.AT_ONCE", 40_000)
    monkeypatch.setattr("bundle.data.scan_file.SLAB", 30_000)


@pytest.mark.parametrize("grid", GRIDS)
def test_round_trip(grid, tmp_path):
    """Reference on each kind of grid, a second contrast on another: geometry in the network's grid and back."""
    check_round_trip(grid, tmp_path, 1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_round_trip_of_large_volumes(grid, tmp_path, in_slabs):
    check_round_trip(grid, tmp_path, 1e-4)  # interpolated at whole numbers, which are float32


def check_round_trip(grid, tmp_path, rounding):
    item = {
        "t1": save(tmp_path, "t1", *GRIDS[grid]),
        "flair": save(tmp_path, "flair", (90, 84, 44), (1.1, 1.3, 2), "ASL", (5, 8), gain=2.0),
    }
    given = ["t1", "flair"]
    preprocessing = Compose(
        [
            LoadScansd(CONTRASTS),
            ToNetworkGridd(given),
            BrainMaskd(given),
            ScaleIntensityd(given),
            CropToBraind([*given, "image", "brain"]),
            StackContrastsd(CONTRASTS),
        ]
    )
    postprocessing = Compose(
        [
            MaskIntensityd("pred", mask_key="brain"),
            Invertd(["pred", "brain"], preprocessing, orig_keys="image", nearest_interp=False),
            RestoreRimd("pred"),
        ]
    )
    data = preprocessing(item)
    image = data["image"]
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_allclose(image.pixdim, 1, atol=1e-5)
    assert image.shape[:3] == (8, 192, 192)

    # what each voxel of the network's grid shows is what the head is like there
    world = world_of(image.shape[1:], image.affine.numpy())
    core = within(world, 0.8)
    for channel, name, gain in ((0, "t1", 1.0), (3, "flair", 2.0)):
        low, high = data["intensity"][name].values()
        error = np.abs(image[channel].numpy()[core] * (high - low) + low - gain * brightness(world)[core])
        # the tails beyond the percentiles are clipped, so the mean is looked at
        print(f"{grid}: {name} on the network's grid: mean error {error.mean() / gain:.2f} of 400")
        assert error.mean() / gain < 4
    presence = image[4:, ..., core.any((0, 1))]
    assert presence.amax((1, 2, 3)).tolist() == presence.amin((1, 2, 3)).tolist() == [1, 0, 0, 1]

    # and comes back
    data["pred"] = MetaTensor(image[:4].as_tensor().clone())
    result = postprocessing(data)
    reference = nib.load(item["t1"])
    assert result["pred"].shape[1:] == reference.shape
    np.testing.assert_allclose(result["pred"].affine, reference.affine, atol=1e-6)
    low, high = data["intensity"]["t1"].values()
    truth = reference.get_fdata()
    brain = truth > 0
    scaled = np.clip((truth - low) / (high - low), 0, 1) * brain
    error = np.abs(result["pred"][0].numpy() - scaled)
    found = result["brain"][0].numpy() > 0
    core = within(world_of(reference.shape, reference.affine), 0.8) & found
    print(
        f"{grid}: round trip, of 1: mean error {error[core].mean():.5f}, with the rim {error[brain & found].mean():.5f}"
    )
    exact = np.allclose(reference.header.get_zooms(), 1)  # turning needs no interpolation
    assert error[core].mean() < (rounding if exact else 0.004)
    assert error[brain & found].mean() < (rounding if exact else 0.02)
    assert (brain & ~found).sum() < 0.01 * brain.sum()
    assert not found[~within(world_of(reference.shape, reference.affine), 1.2)].any()
    assert not result["pred"][0].numpy()[~found].any()


@pytest.mark.parametrize("grid", ["permuted PIR", "anisotropic", "oblique anisotropic"])
def test_large_volumes_fare_as_small_ones(grid, tmp_path, request):
    item = {
        "t1": save(tmp_path, "t1", *GRIDS[grid]),
        "flair": save(tmp_path, "flair", (90, 84, 44), (1.1, 1.3, 2), "ASL", (5, 8), gain=2.0),
        "mask": save(tmp_path, "mask", *GRIDS[grid], gain=0.01),
    }
    transform = ToNetworkGridd(["t1", "flair"])

    def there():
        return transform(LoadScansd([*CONTRASTS, "mask"])(item))

    at_once = there()
    request.getfixturevalue("in_slabs")
    large = there()
    for key in ("t1", "flair", "image"):
        torch.testing.assert_close(large[key].as_tensor(), at_once[key].as_tensor(), atol=0.03, rtol=0)  # of 1000
        torch.testing.assert_close(large[key].affine, at_once[key].affine, atol=1e-6, rtol=0)
    assert (large["mask"] != at_once["mask"]).float().mean() < 0.02  # voxels halfway between two planes

    made = torch.cat([at_once["image"].as_tensor(), 1000 - at_once["image"].as_tensor()])
    image = MetaTensor(made, meta=large["image"].meta)
    back = transform.inverse({"image": image})["image"]
    operations = at_once["image"].applied_operations
    expected = transform.inverse({"image": MetaTensor(made, meta=image.meta, applied_operations=operations)})["image"]
    assert back.shape == (2, *GRIDS[grid][0])
    torch.testing.assert_close(back.as_tensor(), expected.as_tensor(), atol=0.02, rtol=0)
    torch.testing.assert_close(back.affine, expected.affine, atol=1e-6, rtol=0)
    assert nib.aff2axcodes(back.affine.numpy()) == tuple(GRIDS[grid][2])
    slab = transform.inverse({"image": slab_of(image, 3, 9)})["image"]
    torch.testing.assert_close(slab.as_tensor(), back.as_tensor()[..., 3:9], atol=0.02, rtol=0)
    assert torch.allclose(slab.affine[:, :3], back.affine[:, :3])
    assert torch.allclose(slab.affine[:3, 3], (back.affine @ torch.tensor([0, 0, 3, 1.0]).double())[:3])


def test_same_grid_is_not_interpolated(tmp_path):
    item = {
        name: save(tmp_path, name, (40, 50, 30), (1, 1, 1), axes, (0, 0))
        for name, axes in (("t1", "RAS"), ("t2", "LPI"))
    }
    data = Compose([LoadScansd([*CONTRASTS, "label"]), ToNetworkGridd(["t1", "t2"])])(item)
    assert torch.equal(data["t1"].as_tensor(), data["t2"].as_tensor())
    assert np.array_equal(data["image"][0].numpy(), nib.load(item["t1"]).get_fdata())


def test_masks_stay_labels(tmp_path):
    shape, affine = (40, 50, 30), affine_of((40, 50, 30), (1.3, 1.2, 2), "RAS", (12, 0))
    labels = np.zeros(shape, np.uint8)
    labels[10:20, 15:35, 5:25], labels[20:30, 15:35, 5:25] = 1, 4
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "label.nii.gz")
    item = {
        "t1": save(tmp_path, "t1", (80, 100, 70), (1, 1, 1), "LPS", (0, 0)),
        "label": str(tmp_path / "label.nii.gz"),
    }
    data = Compose([LoadScansd([*CONTRASTS, "label"]), ToNetworkGridd(["t1"])])(item)
    assert data["label"].shape == data["image"].shape
    assert set(np.unique(data["label"])) == {0, 1, 4}
    volume = abs(np.linalg.det(affine[:3, :3])) * (labels == 4).sum()
    assert (data["label"] == 4).sum().item() == pytest.approx(volume, rel=0.03)


def test_reference_is_the_first_in_registry_order(tmp_path):
    item = {
        "flair": save(tmp_path, "flair", (40, 50, 30), (1, 1, 1), "RAS", (0, 0)),
        "t2": save(tmp_path, "t2", (44, 54, 34), (1, 1, 1), "RAS", (0, 0)),
    }
    data = Compose([LoadScansd([*CONTRASTS, "label"]), ToNetworkGridd(CONTRASTS)])(item)
    assert data["reference"] == "t2" and data["image"].shape == (1, 44, 54, 34)


def test_grids_apart_are_named(tmp_path):
    item = {name: save(tmp_path, name, (40, 50, 30), (1, 1, 1), "RAS", (0, 0)) for name in ("t1", "flair")}
    moved = nib.load(item["flair"])
    affine = moved.affine.copy()
    affine[:3, 3] += [0, 0, 400]
    nib.save(nib.Nifti1Image(moved.get_fdata(), affine), item["flair"])
    with pytest.raises(InputError, match="flair.nii.gz: does not overlap with the reference scan .*t1.nii.gz") as error:
        ToNetworkGridd(CONTRASTS)(LoadScansd([*CONTRASTS, "label"])(item))
    assert "\n" not in str(error.value)


def test_little_overlap_is_said():
    reference = MetaTensor(torch.zeros(1, 40, 40, 40), affine=torch.eye(4))
    affine = torch.eye(4)
    affine[0, 3] = 30
    part = MetaTensor(torch.zeros(1, 40, 40, 40), affine=affine, meta={"filename_or_obj": "part.nii"})
    assert overlap(part, reference) == pytest.approx(0.25, abs=0.03)
    assert overlap(reference, reference) == 1
    reference.meta["filename_or_obj"] = "reference.nii"
    item = ToNetworkGridd(["t1", "t2"])({"t1": reference, "t2": part, "warnings": ["before"]})
    assert len(item["warnings"]) == 2 and "part.nii: covers only 2" in item["warnings"][1]


def test_no_contrast():
    with pytest.raises(InputError, match="none of the contrasts t1, t2"):
        ToNetworkGridd(["t1", "t2"])({"subject": "a"})
