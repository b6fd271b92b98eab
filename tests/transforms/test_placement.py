"""Scans whose headers place the brain elsewhere are refused, by how many millimetres they lie apart."""

import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError
from bundle.transforms.grid import ToNetworkGridd
from bundle.transforms.load import LoadScansd
from tests.phantom import affine_of, scan, within, world_of

CONTRASTS = ["t1", "flair"]
SHAPE, SPACING = (100, 120, 90), (1.0, 1, 1)
AFFINE = affine_of(SHAPE, SPACING, "LPS")


def place(folder, flair, affine):
    """T1 where it is, and FLAIR voxels with another affine, on the network's grid."""
    nib.save(scan(SHAPE, AFFINE), folder / "t1.nii.gz")
    nib.save(nib.Nifti1Image(flair, affine), folder / "flair.nii.gz")
    item = {name: str(folder / f"{name}.nii.gz") for name in CONTRASTS}
    return ToNetworkGridd(CONTRASTS)(LoadScansd(CONTRASTS)(item))["warnings"]


def moved(*millimetres):
    affine = AFFINE.copy()
    affine[:3, 3] += millimetres
    return affine


BRAIN = scan(SHAPE, AFFINE).get_fdata(dtype=np.float32)


@pytest.mark.parametrize("background", [0, -1000])
def test_brains_apart_are_refused_with_the_distance(tmp_path, background):
    with pytest.raises(
        InputError, match="its brain lies 1[12] mm beside that of .*t1.nii.gz, more than 10 mm"
    ) as error:
        place(tmp_path, BRAIN + background, moved(0, 12, 0))
    assert str(error.value).startswith(str(tmp_path / "flair.nii.gz")) and "identity" not in str(error.value)
    with pytest.raises(InputError, match="its brain lies 2[0-2] mm beside"):
        place(tmp_path, BRAIN + background, moved(-16, 0, 14))


def test_brains_a_little_apart_are_reported(tmp_path):
    (line,) = place(tmp_path, BRAIN, moved(0, -8, 0))
    assert line.startswith(str(tmp_path / "flair.nii.gz")) and "its brain lies 8 mm beside" in line
    assert place(tmp_path, BRAIN, moved(2, 0, 2)) == []


def test_an_identity_affine_is_named(tmp_path):
    with pytest.raises(InputError, match="its header has an identity affine, which places it elsewhere"):
        place(tmp_path, BRAIN, np.eye(4))
    far = moved(0, 0, 400)
    with pytest.raises(InputError, match="does not overlap with the reference scan") as error:
        place(tmp_path, BRAIN, far)
    assert "identity affine" not in str(error.value)


def test_a_scan_that_is_empty_where_the_brain_is(tmp_path):
    beside = np.zeros((260, 120, 90), np.float32)
    beside[:100] = BRAIN
    with pytest.raises(InputError, match="shows nothing where the brain of the reference scan .*t1.nii.gz is"):
        place(tmp_path, beside, moved(95, 0, 0))


@pytest.mark.parametrize("part", [slice(0, 38), slice(30, 60), slice(52, 90)])
def test_a_scan_of_a_part_of_the_brain_is_in_its_place(tmp_path, part):
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, 2] * part.start
    assert not [line for line in place(tmp_path, BRAIN[:, :, part], affine) if "beside" in line]


def test_a_head_beside_a_stripped_brain_is_in_its_place(tmp_path):
    head = (100 * within(world_of(SHAPE, AFFINE), 1.2)).astype(np.float32)
    assert place(tmp_path, head, AFFINE) == []
