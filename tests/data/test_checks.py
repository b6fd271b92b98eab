"""Every file that cannot be used is told in one line with file, fault and remedy; what was repaired is said."""

from __future__ import annotations

import gzip
import struct
import time
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.background import Background
from bundle.data.checks import check_header, check_image, check_label, check_mask, check_subjects, load_nifti
from bundle.errors import InputError

SHAPE = (20, 24, 16)


def brain(shape=SHAPE) -> np.ndarray:
    voxels = np.random.default_rng(0).uniform(50, 1000, shape).astype(np.float32)
    voxels[:3], voxels[-3:] = 0, 0
    return voxels


def write(path: Path, voxels=None, affine=None, dtype=np.float32, **header) -> Path:
    image = nib.Nifti1Image(brain() if voxels is None else voxels, np.eye(4) if affine is None else affine, dtype=dtype)
    for field, value in header.items():
        image.header[field] = value
    image.to_filename(path)
    return path


def patch(path: Path, **fields) -> Path:
    """Overwrite fields of the header as it is in an uncompressed file."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    path.write_bytes(header.binaryblock + bytes(content[348:]))
    return path


def fault(path: Path, call=check_header) -> str:
    with pytest.raises(InputError) as caught:
        call(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    assert line.endswith(caught.value.remedy) and caught.value.remedy
    return caught.value.fault


@pytest.mark.parametrize("name", ["a.nii", "a b.nii.gz", "Ü.NII.GZ"])
def test_a_good_file(tmp_path, name):
    affine = np.array([[-0.9, 0, 0.1, 80], [0, 1.1, 0, -90], [0.1, 0, 3, -30], [0, 0, 0, 1.0]])
    header = check_header(write(tmp_path / name, affine=affine))
    assert header.shape == SHAPE
    assert np.abs(header.affine - affine).max() < 1e-5
    assert header.notes == ()
    assert header.voxel_ml == pytest.approx(abs(np.linalg.det(affine)) / 1000)


def test_nifti2_and_big_endian(tmp_path):
    nib.Nifti2Image(brain(), np.diag([2, 2, 2, 1])).to_filename(tmp_path / "two.nii.gz")
    swapped = nib.Nifti1Image(brain(), np.diag([2, 2, 2, 1]), nib.Nifti1Header(endianness=">"))
    swapped.to_filename(tmp_path / "big.nii")
    assert nib.load(tmp_path / "big.nii").header.endianness == ">"
    for name in ("two.nii.gz", "big.nii"):
        header = check_header(tmp_path / name)
        assert header.shape == SHAPE
        assert np.allclose(np.diag(header.affine)[:3], 2)


def test_missing_empty_or_no_nifti(tmp_path):
    assert fault(tmp_path / "T1.nii.gz") == "does not exist"
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "annexed")
    assert fault(tmp_path / "link.nii.gz") == "is a link to a file that is not there"
    (tmp_path / "zero.nii.gz").touch()
    assert fault(tmp_path / "zero.nii.gz") == "is empty (0 bytes)"
    (tmp_path / "text.nii").write_text("not a scan" * 100)
    assert fault(tmp_path / "text.nii") == "is not a NIfTI file"
    (tmp_path / "short.nii").write_text("not a scan")
    assert fault(tmp_path / "short.nii") == "is not a NIfTI file"
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"not a scan" * 100))
    assert fault(tmp_path / "text.nii.gz") == "is not a NIfTI file"
    write(tmp_path / "plain.nii").rename(tmp_path / "plain.nii.gz")
    assert "no gzip file" in fault(tmp_path / "plain.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_truncated(tmp_path, name, kept):
    path = write(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "is truncated" in fault(path) or (kept == 0.01 and fault(path) == "is not a NIfTI file")


def test_gzip_in_several_members_is_whole(tmp_path):
    content = write(tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    assert check_header(tmp_path / "b.nii.gz").shape == SHAPE


@pytest.mark.parametrize("shape", [(20, 24), (20,), (20, 24, 16, 4), (20, 24, 16, 1, 3)])
def test_wrong_number_of_axes(tmp_path, shape):
    told = fault(write(tmp_path / "a.nii.gz", np.ones(shape, np.float32)))
    assert told.startswith(f"is {len(shape)}-D") and " x ".join(map(str, shape)) in told


@pytest.mark.parametrize("shape", [(20, 24, 1), (1, 24, 16), (20, 24, 1, 1)])
def test_single_slice(tmp_path, shape):
    assert "is a single slice" in fault(write(tmp_path / "a.nii.gz", np.ones(shape, np.float32)))


def test_trailing_axis_of_one_is_dropped_and_said(tmp_path):
    header = check_header(write(tmp_path / "a.nii.gz", brain()[..., None]))
    assert header.shape == SHAPE
    assert header.notes == ("a.nii.gz: axes of length 1 after the third were dropped",)


def test_voxels_that_are_no_real_numbers(tmp_path):
    write(tmp_path / "complex.nii.gz", brain().astype(np.complex64), dtype=np.complex64)
    assert fault(tmp_path / "complex.nii.gz") == "has complex numbers for voxels"
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(colours, np.eye(4)).to_filename(tmp_path / "rgb.nii.gz")
    assert fault(tmp_path / "rgb.nii.gz") == "has colours (RGB) for voxels"
    assert "header that is not valid" in fault(patch(write(tmp_path / "type.nii"), datatype=999))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_absurd_dimensions_take_no_memory(tmp_path, name):
    for dims, told in {
        (32767, 32767, 32767): "32767 x 32767 x 32767",
        (2000, 2000, 2000): "2000 x 2000 x 2000",
        (20, -24, 16): "20 x -24 x 16",
        (20, 0, 16): "20 x 0 x 16",
        (700, 700, 1000): "is truncated",
    }.items():
        path = patch(write(tmp_path / "b.nii"), dim=[3, *dims, 1, 1, 1, 1])
        content = path.read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        tracemalloc.start()
        assert told in fault(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 1e7
        tracemalloc.stop()


def test_a_field_of_view_of_no_brain(tmp_path):
    """Voxels of a possible size, but so many of them that the network's grid would fill the memory."""
    wide = np.zeros((30, 24, 16), np.int16)
    said = fault(write(tmp_path / "a.nii", wide, np.diag([40, 5, 5, 1.0])))
    assert "has a field of view of 1200 x 120 x 80 mm, which no brain scan has" in said
    assert check_header(write(tmp_path / "a.nii", wide, np.diag([30, 5, 5, 1.0]))).shape == (30, 24, 16)


def test_affines_that_place_nothing(tmp_path):
    path = tmp_path / "a.nii"
    rows = {"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4}
    assert fault(patch(write(path), **rows)) == "has an affine of zeros"
    assert "singular" in fault(patch(write(path), srow_y=[1, 0, 0, 0]))
    assert "singular" in fault(patch(write(path), srow_y=[0] * 4))
    assert "NaN" in fault(patch(write(path), srow_y=[0, np.nan, 0, 0]))
    assert "voxel size of 0" in fault(patch(write(path), sform_code=0, qform_code=1, pixdim=[1, 1, 0, 1, 1, 1, 1, 1]))
    quaternion = {"quatern_b": 2, "quatern_c": 2, "quatern_d": 2}
    assert "invalid qform" in fault(patch(write(path), sform_code=0, qform_code=1, **quaternion))
    assert "0.001 x 0.001 x 0.001 mm" in fault(write(path, affine=np.diag([0.001, 0.001, 0.001, 1])))


@pytest.mark.parametrize(
    ("degrees", "mm", "agrees"), [(0, 0.5, True), (0.5, 0, True), (0, 1.5, False), (10, 0, False), (180, 0, False)]
)
def test_sform_and_qform(tmp_path, degrees, mm, agrees):
    affine = np.diag([1.0, 1, 1, 1])
    image = nib.Nifti1Image(brain((64, 64, 64)), affine)
    turned = affine.copy()
    angle = np.deg2rad(degrees)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned[2, 3] = mm
    image.set_sform(affine, 1)
    image.set_qform(turned, 1)
    image.to_filename(tmp_path / "a.nii.gz")
    if agrees:
        assert check_header(tmp_path / "a.nii.gz").notes == ()
    else:
        assert "sform and a qform that disagree by" in fault(tmp_path / "a.nii.gz")
    image.set_qform(turned, 0)
    image.to_filename(tmp_path / "a.nii.gz")
    assert np.allclose(check_header(tmp_path / "a.nii.gz").affine, affine)


def test_what_was_taken_for_granted_is_said(tmp_path):
    patch(write(tmp_path / "none.nii"), sform_code=0, qform_code=0)
    assert "does not tell the orientation" in check_header(tmp_path / "none.nii").notes[0]
    patch(write(tmp_path / "pixdim.nii"), qform_code=0, pixdim=[1, 3, 3, 3, 1, 1, 1, 1])
    assert "pixdim has others" in check_header(tmp_path / "pixdim.nii").notes[0]
    image = nib.Nifti1Image(brain().astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "scaled.nii.gz")
    assert "scaling was applied" in check_header(tmp_path / "scaled.nii.gz").notes[0]


def test_few_nonfinite_voxels_are_repaired():
    voxels = brain()
    voxels[10, 10, 8], voxels[0, 0, 0], voxels[10, 10, 9] = np.nan, np.inf, 500
    voxels[9, 10, 8] = voxels[11, 10, 8] = voxels[10, 9, 8] = voxels[10, 11, 8] = voxels[10, 10, 7] = 500
    (line,), background = check_image([voxels], "x/T1.nii.gz")
    assert line == "T1.nii.gz: 2 voxels were NaN or infinite, repaired from their neighbours"
    assert (voxels[10, 10, 8], voxels[0, 0, 0]) == (500, 0) and not background.overshoots


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_many_nonfinite_voxels(value):
    voxels = brain()
    voxels[:10] = value
    with pytest.raises(InputError, match=r"T1.nii.gz: 50 % of the voxels are NaN or infinite"):
        check_image([voxels], "T1.nii.gz")
    with pytest.raises(InputError, match="all voxels are NaN or infinite"):
        check_image([np.full(SHAPE, value, np.float32)], "T1.nii.gz")


@pytest.mark.parametrize(("value", "told"), [(0, "all voxels are 0"), (7, "all voxels have one value, 7")])
def test_no_image(value, told):
    with pytest.raises(InputError, match=f"T1.nii.gz: {told}"):
        check_image([np.full(SHAPE, value, np.float32)], "T1.nii.gz")


def test_overshoot_is_cut_and_z_scores_are_not():
    voxels = brain()
    voxels[2, :5, 0] = -20
    (line,), background = check_image([voxels], "T1.nii.gz")
    assert "5 voxels were below 0" in line and "-20" in line and background.overshoots
    scores = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    kept = scores.copy()
    assert check_image([scores], "T1.nii.gz") == ([], Background())
    assert np.array_equal(scores, kept)


def test_labels_are_whole_numbers():
    labels = np.zeros(SHAPE, np.float32)
    check_label([labels], "seg.nii.gz")
    labels[5] = 4
    check_label([labels], "seg.nii.gz")
    for value in (0.5, -1, np.nan):
        labels[0, 0, 0] = value
        with pytest.raises(InputError, match=r"seg.nii.gz: 1 voxels are no labels"):
            check_label([labels], "seg.nii.gz")


def test_masks_that_are_no_brain():
    mask = np.zeros((100, 100, 150), np.float32)
    assert "is empty" in check_mask([mask], 0.001, "x/mask.nii.gz")
    mask[:20, :20, :20] = 1
    assert (
        check_mask([mask], 0.001, "x/mask.nii.gz")
        == "mask.nii.gz: covers 8 ml, which is no brain, not used as the brain mask"
    )
    assert check_mask([mask], 0.0005, "mask.nii.gz") is None  # so small a volume is no whole head
    mask[:80, :80, :80] = 1
    assert check_mask([mask], 0.001, "mask.nii.gz") is None


def test_subjects_are_checked_before_any_work(tmp_path):
    good, bad = str(write(tmp_path / "T1.nii.gz")), tmp_path / "T2.nii.gz"
    bad.touch()
    items = [
        {"subject": "a", "t1": good, "warnings": []},
        {"subject": "b", "t1": good, "t2": str(bad), "warnings": []},
        {"subject": "c", "fault": "found before", "t2": str(bad), "warnings": []},
    ]
    checked = check_subjects(items)
    assert checked[0] == items[0]
    assert checked[1]["fault"].startswith(f"{bad}: is empty")
    assert checked[2]["fault"] == "found before"
    assert "fault" not in items[1]


def test_masks_and_labels_that_lie_elsewhere(tmp_path):
    scan = str(write(tmp_path / "T1.nii.gz"))
    same = str(write(tmp_path / "same.nii.gz"))
    moved = str(write(tmp_path / "moved.nii.gz", affine=np.diag([1.0, -1, 1, 1])))
    finer = str(write(tmp_path / "finer.nii.gz", brain((40, 48, 32)), np.diag([0.5, 0.5, 0.5, 1])))

    def kept(**paths) -> tuple[set[str], int]:
        (item,) = check_subjects([{"subject": "a", "t1": scan, **paths}])
        return set(item) & {"label", "mask"}, len(item["warnings"])

    assert kept(label=same, mask=same) == ({"label", "mask"}, 0)
    assert kept(label=moved, mask=moved) == (set(), 2)
    assert kept(label=finer, mask=finer) == ({"label"}, 1)
    (tmp_path / "zero.nii.gz").touch()
    assert kept(label=str(tmp_path / "zero.nii.gz"), mask=same) == ({"mask"}, 1)


def test_real_scans_pass(shared_data):
    start = time.perf_counter()
    paths = sorted(shared_data.rglob("*.nii.gz"))
    assert paths
    assert [note for path in paths for note in check_header(path).notes] == []
    assert time.perf_counter() - start < 5


def test_header_struct_is_where_patch_writes(tmp_path):
    path = patch(write(tmp_path / "a.nii"), pixdim=[1, 2, 3, 4, 1, 1, 1, 1])
    assert struct.unpack("<3f", path.read_bytes()[80:92]) == (2, 3, 4)


def gzipped(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def test_compression_that_the_name_does_not_tell(tmp_path):
    content = write(tmp_path / "plain.nii").read_bytes()
    zipped = gzipped(tmp_path / "a.nii", content)
    assert fault(zipped) == "is compressed by gzip, but its name does not say so"
    with pytest.raises(InputError, match="Rename it to a.nii.gz"):
        check_header(zipped)
    assert check_header(zipped.rename(tmp_path / "a.nii.gz")).shape == SHAPE

    twice = gzipped(tmp_path / "b.nii.gz", gzip.compress(content))
    assert fault(twice) == "is compressed by gzip twice"
    with pytest.raises(InputError, match="Run gunzip on it once, then rename the resulting b.nii to b.nii.gz"):
        check_header(twice)
    (tmp_path / "b.nii").write_bytes(gzip.decompress(twice.read_bytes()))
    assert check_header((tmp_path / "b.nii").rename(twice)).shape == SHAPE


def sheared(path: Path, shift=0.0) -> Path:
    affine = np.diag([1.0, 1, 1.2, 1])
    affine[1, 2] = 0.4
    image = nib.Nifti1Image(brain((40, 48, 30)), affine)
    moved = affine.copy()
    moved[:3, 3] += shift
    image.set_sform(affine, 1)
    image.set_qform(moved, 1)
    image.to_filename(path)
    return path


def test_a_sheared_sform_counts_and_is_reported(tmp_path):
    header = check_header(sheared(tmp_path / "a.nii.gz"))
    assert header.affine[1, 2] == pytest.approx(0.4)
    (line,) = header.notes
    assert line.startswith("a.nii.gz: the sform is sheared, the qform cannot be and differs by 7.5")
    path = sheared(tmp_path / "b.nii.gz", 10)
    assert "disagree by" in fault(path)
    image = nib.load(path)  # the remedy that is given works
    image.set_qform(image.get_sform())
    nib.save(image, tmp_path / "c.nii.gz")
    assert check_header(tmp_path / "c.nii.gz").notes[0].startswith("c.nii.gz: the sform is sheared")


def test_what_nibabel_repairs_is_reported_with_the_file_s_name(tmp_path, capfd):
    path = patch(write(tmp_path / "a.nii", sform_code=1), pixdim=[1, -1, 1, 1, 0, 0, 0, 0])
    (line,) = check_header(path).notes
    assert line.startswith("a.nii: the header was repaired: pixdim[1,2,3] should be positive")
    quaternion = {"quatern_b": 2, "quatern_c": 2, "quatern_d": 2}
    bad = patch(write(tmp_path / "b.nii", sform_code=1), qform_code=1, **quaternion)
    header = check_header(bad)
    assert np.allclose(header.affine, np.eye(4))
    assert header.notes[0].startswith("b.nii: the qform is not valid") and "the sform was used" in header.notes[0]
    assert load_nifti(path).shape == load_nifti(bad).shape == SHAPE
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [-100, -1024, -32768])
def test_a_background_far_below_the_brain_leaves_no_steps_at_its_boundary(value):
    voxels = np.zeros((20, 20, 20), np.float32)
    voxels[5:15, 5:15, 5:15] = np.random.default_rng(0).uniform(300, 900, (10, 10, 10))
    file = np.where(voxels > 0, voxels, np.float32(value))
    _, background = check_image([file], "x.nii")
    background.remove(file)
    np.testing.assert_array_equal(file, voxels)
