"""The brain is found in stripped scans, and its absence is said."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.errors import InputError
from bundle.transforms.brain import BrainMaskd, clean

SHAPE = (70, 80, 60)
AXES = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
BALL = (AXES**2).sum(0) < 0.5


def item(spacing=2.0, **scans):
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0]))
    return {
        key: MetaTensor(torch.tensor(scan[None], dtype=torch.float32), affine=affine) for key, scan in scans.items()
    }


def brain_of(data):
    result = BrainMaskd(["t1", "flair"])(data)
    assert result["brain"].dtype == torch.uint8 and result["brain"].shape == (1, *SHAPE)
    return result["brain"][0].numpy().astype(bool), result["warnings"]


def test_union_of_stripped_contrasts():
    left, right = BALL & (AXES[0] < 0.1), BALL & (AXES[0] > -0.1)
    brain, warnings = brain_of(item(t1=100.0 * left, flair=7.0 * right))
    assert not warnings
    assert (brain ^ BALL).mean() < 1e-4


def test_specks_bridges_and_holes():
    scan = 100.0 * BALL
    scan[35, 40, 30] = scan[20:23, 38:42, 30:33] = 0  # holes
    scan[2:6, 2:6, 2:6] = 100  # a speck, joined to the brain by a bridge of one voxel
    scan[4, 4:40, 4] = scan[4:36, 39, 4] = scan[35, 39, 4:20] = 100
    brain, _ = brain_of(item(t1=scan))
    assert not brain[2:6, 2:6, 2:6].any()
    assert brain[20:23, 38:42, 30:33].all() and brain[35, 40, 30]
    assert (brain & ~BALL).sum() < 20 and (BALL & ~brain).sum() == 0


def test_overshoot_is_background():
    noise = np.random.default_rng(0).normal(size=SHAPE)
    rim = ((AXES**2).sum(0) < 0.6) & ~BALL
    brain, warnings = brain_of(item(t1=np.where(BALL, 100 + noise, 0) + np.where(rim, 0.2 * noise, 0)))
    assert not warnings and (brain ^ BALL).mean() < 1e-4


def test_z_scores():
    noise = np.random.default_rng(0).normal(size=SHAPE)
    brain, warnings = brain_of(item(t1=noise * BALL))
    assert not warnings and (brain ^ BALL).mean() < 5e-3


def test_skull_is_said():
    rng = np.random.default_rng(0)
    head = (AXES**2).sum(0) < 0.9
    scan = np.where(head, 100 + 30 * rng.random(SHAPE), 6 * rng.random(SHAPE))  # noise in the air
    brain, warnings = brain_of(item(spacing=3.5, t1=scan))
    assert len(warnings) == 1 and "still have their skull" in warnings[0]
    assert (brain ^ head).mean() < 0.01
    # scanners that set the air to zero are not taken in: the head is too large to be a brain
    assert "still have their skull" in brain_of(item(spacing=3.5, t1=scan * head))[1][0]


def test_one_stripped_contrast_is_enough():
    head = 100.0 * ((AXES**2).sum(0) < 0.9)
    brain, warnings = brain_of(item(spacing=3.2, t1=head, flair=50.0 * ((AXES**2).sum(0) < 0.4)))
    assert warnings == ["t1: the skull is still on; masked by the brain of flair"]
    assert (brain ^ ((AXES**2).sum(0) < 0.4)).mean() < 1e-3


def test_given_mask():
    mask = BALL & (AXES[2] > 0)
    brain, warnings = brain_of(item(t1=100.0 * BALL, mask=mask.astype(float)))
    assert (brain == mask).all() and not warnings


def test_nothing_there():
    with pytest.raises(InputError, match="no brain was found"):
        brain_of(item(t1=np.zeros(SHAPE)))
    with pytest.raises(InputError, match="mask is empty on the grid"):
        brain_of(item(t1=100.0 * BALL, mask=np.zeros(SHAPE)))


def test_clean_keeps_the_rim():
    thin = np.zeros((20, 20, 20), bool)
    thin[5:15, 5:15, 8:10] = True  # two voxels: opening leaves nothing of it
    assert (clean(thin) == thin).all()
    assert not clean(np.zeros((5, 5, 5), bool)).any()


@pytest.mark.parametrize(
    ("subject", "litres"),
    [("open_ms/patient26/T1.nii.gz", 1.12), ("msd_brain_tumour/imagesTr/BRATS_001_0000.nii.gz", 1.49)],
)
def test_real_stripped_scan(shared_data, subject, litres):
    from bundle.transforms.load import LoadScansd

    data = BrainMaskd(["t1"])(LoadScansd(["t1"])({"t1": str(shared_data / subject)}))
    assert data["brain"].sum().item() / 1e6 == pytest.approx(litres, abs=0.02)
    assert not [line for line in data["warnings"] if "skull" in line]


def network_grid(path, name="t1"):
    from bundle.transforms.grid import ToNetworkGridd
    from bundle.transforms.load import LoadScansd

    return ToNetworkGridd([name])(LoadScansd([name])({name: str(path)}))


def skull_lines(data, part, name="t1"):
    cut = MetaTensor(data[name].as_tensor()[..., part], affine=data[name].affine)
    return [line for line in BrainMaskd([name])({name: cut, "warnings": []})["warnings"] if "skull" in line]


@pytest.mark.parametrize("scan", ["patient01/raw/study2_T1W", "patient04/raw/study1_T2W", "patient03/raw/study2_FLAIR"])
def test_a_head_in_a_slab_shows_its_skull(shared_data, scan):
    data = network_grid(shared_data / f"open_ms_longitudinal/{scan}.nii.gz")
    voxels = data["t1"].as_tensor()
    there = (voxels > 0.02 * voxels.max()).flatten(0, 2).any(0).nonzero()
    low, high = int(there.min()), int(there.max()) + 1
    for thickness in (54, 60, 90, high - low):
        for start in (low, (low + high - thickness) // 2, high - thickness):
            assert skull_lines(data, slice(start, start + thickness)), (thickness, start)


@pytest.mark.parametrize(
    "scan",
    [
        "open_ms/patient07/T1.nii.gz",
        "brats_2021/BraTS2021_01476/BraTS2021_01476_t2.nii.gz",
        "msd_brain_tumour/imagesTr/BRATS_001_0000.nii.gz",
        "mslesseg/P14/T2/P14_T2_T1.nii.gz",
        "mslesseg/P14/T2/P14_T2_FLAIR.nii.gz",
    ],
)
def test_a_stripped_brain_shows_no_skull(shared_data, scan):
    """Those of mslesseg have remains of the eyes, and a FLAIR is dark where fluid is."""
    data = network_grid(shared_data / scan)
    there = data["t1"].as_tensor().flatten(0, 2).any(0).nonzero()
    low, high = int(there.min()), int(there.max()) + 1
    for thickness in (20, 40, 54, 90, high - low):
        for start in (low, (low + high - thickness) // 2, high - thickness):
            assert not skull_lines(data, slice(start, start + thickness)), (thickness, start)


def test_a_skull_is_a_dark_layer():
    """A head whose scalp is as far out as a brain may be, in a slab: bone decides, and not its volume."""
    radius = np.sqrt((AXES**2).sum(0))
    head = np.where(radius < 0.85, 100.0, np.where(radius < 0.93, 12.0, 150.0)) * (radius < 1)
    slab = (slice(None), slice(None), slice(18, 42))
    for scan, skull in ((head, True), (100.0 * (radius < 1), False)):
        data = item(spacing=2.2, t1=scan[slab])
        said = BrainMaskd(["t1"])(data)["warnings"]
        assert ["still have their skull" in line for line in said] == [True] * skull


def test_more_than_a_brain_gives_way_to_a_smaller_one():
    large = 100.0 * ((AXES**2).sum(0) < 0.65)
    small = (AXES**2).sum(0) < 0.4
    brain, warnings = brain_of(item(spacing=2.96, t1=large, flair=50.0 * small))
    assert warnings == ["t1: shows more than the brain, such as the eyes; masked by the brain of flair"]
    assert (brain ^ small).mean() < 1e-3
    brain, warnings = brain_of(item(spacing=2.96, t1=large))
    assert warnings == ["t1: shows more than the brain, such as the eyes; the mask may be too large"]
    assert (brain ^ (large > 0)).mean() < 1e-3
