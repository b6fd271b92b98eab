import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError
from bundle.phantoms.label_maps import MARGIN, TISSUES, read_label_map, read_lesion_mask
from tests.phantoms.heads import ellipsoid

SHAPE = (130, 150, 124)


def head() -> np.ndarray:
    """FreeSurfer's numbers (X, Y, Z) in RAS, lopsided: the right ventricle is larger, the stem at the bottom."""
    labels = np.full(SHAPE, 258, np.uint16)
    labels[ellipsoid(SHAPE, (65, 75, 62), (60, 70, 56))] = 24
    labels[ellipsoid(SHAPE, (65, 75, 62), (54, 64, 50))] = 3
    labels[ellipsoid(SHAPE, (65, 75, 62), (48, 58, 44))] = 2
    labels[ellipsoid(SHAPE, (50, 75, 66), (6, 20, 7))] = 4
    labels[ellipsoid(SHAPE, (80, 75, 66), (8, 24, 9))] = 43
    labels[ellipsoid(SHAPE, (65, 70, 40), (9, 9, 14))] = 16
    labels[20:24, 70:74, 60:64] = 25
    return labels


def save(path, labels, axes="RAS", spacing=1.0):
    image = nib.Nifti1Image(labels, np.diag([spacing] * 3 + [1.0]))
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    )
    nib.save(turned, path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LIA", "PSR"])
def test_orientation_does_not_matter(tmp_path, axes):
    expected = read_label_map(save(tmp_path / "a.nii.gz", head()))
    np.testing.assert_array_equal(read_label_map(save(tmp_path / "b.nii.gz", head(), axes)), expected)
    lateral = np.argwhere(expected == TISSUES.index("ventricle"))[:, 0]
    assert (lateral > expected.shape[0] / 2).mean() > 0.55  # the larger one is on the right


def test_tissues_are_those_of_the_numbers(tmp_path):
    labels = head()
    found = read_label_map(save(tmp_path / "a.nii.gz", labels))
    assert found.dtype == np.uint8
    brain = np.isin(labels, (3, 2, 4, 43, 16, 25))
    extent = [np.ptp(where) + 1 + 2 * MARGIN for where in np.nonzero(brain)]
    assert list(found.shape) == extent
    for name, numbers in {"cortex": (3,), "white matter": (2,), "brain stem": (16,), "lesion": (25,)}.items():
        assert (found == TISSUES.index(name)).sum() == np.isin(labels, numbers).sum(), name


def test_plexus_and_sinus_are_added_where_there_are_none(tmp_path):
    labels = head()
    found = read_label_map(save(tmp_path / "a.nii.gz", labels))
    plexus = (found == TISSUES.index("choroid plexus")).sum()
    assert 50 < plexus < 0.3 * np.isin(labels, (4, 43)).sum()
    sinus = np.argwhere(found == TISSUES.index("vessel"))
    assert len(sinus) > 100
    assert np.abs(sinus[:, 0] - found.shape[0] / 2).max() < 6  # in the midline
    labels[64:66, 74:76, 66:68] = 31
    given = read_label_map(save(tmp_path / "b.nii.gz", labels))
    assert (given == TISSUES.index("choroid plexus")).sum() == 8


def test_faults_are_named(tmp_path):
    with pytest.raises(InputError, match=r"a.nii.gz: the voxels measure 0.5 x 0.5 x 0.5 mm. Resample"):
        read_label_map(save(tmp_path / "a.nii.gz", head(), spacing=0.5))
    with pytest.raises(InputError, match="cover 0 ml"):
        read_label_map(save(tmp_path / "b.nii.gz", np.ones(SHAPE, np.uint8)))
    with pytest.raises(InputError, match="no 3D map of labels"):
        read_label_map(save(tmp_path / "c.nii.gz", head() + np.float32(0.5)))
    (tmp_path / "d.nii.gz").write_bytes(b"no scan")
    with pytest.raises(InputError, match="d.nii.gz: cannot be read as NIfTI"):
        read_label_map(tmp_path / "d.nii.gz")
    with pytest.raises(InputError, match="marks no lesion"):
        read_lesion_mask(save(tmp_path / "e.nii.gz", np.zeros((9, 9, 9), np.uint8)))


def test_lesion_mask_keeps_its_volume_at_1_mm(tmp_path):
    mask = np.zeros((60, 70, 50), np.uint8)
    mask[ellipsoid(mask.shape, (20, 30, 25), (12, 8, 10))] = 1
    mask[ellipsoid(mask.shape, (45, 50, 25), (5, 8, 6))] = 1
    found = read_lesion_mask(save(tmp_path / "a.nii.gz", mask, "LPS", spacing=0.5))
    assert found.dtype == np.uint8 and found.max() == 255
    assert found.sum() / 255 == pytest.approx(mask.sum() * 0.5**3, rel=0.03)
    assert found.shape[1] < 0.5 * 70


def test_published_maps(label_maps):
    for name in ("A01", "C15"):
        found = read_label_map(label_maps / "synthseg" / f"{name}.nii.gz")
        share = np.bincount(found.ravel(), minlength=len(TISSUES)) / 1000
        ml = dict(zip(TISSUES, share))
        assert 350 < ml["white matter"] < 550 and 400 < ml["cortex"] < 600, name
        assert 15 < ml["ventricle"] < 80 and 15 < ml["thalamus"] < 30 and 80 < ml["cerebellar cortex"] < 130, name
        assert 2 < ml["vessel"] < 20 and 0.5 < ml["choroid plexus"] < 8, name
        assert (ml["lesion"] > 0) == (name == "C15")
