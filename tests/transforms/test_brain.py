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
