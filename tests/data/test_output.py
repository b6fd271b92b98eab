"""Results appear whole or not at all, on the grid of the reference."""

import errno
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.output import as_json, is_done, prepare_output, staged, told, volume_file, write_text
from bundle.errors import InputError
from tests.phantom import affine_of, scan


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_staged_files_move_together(tmp_path):
    folder = tmp_path / "sub 1"
    (tmp_path / ".sub 1.partial").mkdir()
    (tmp_path / ".sub 1.partial" / "left.nii").touch()  # by a run that was killed
    with staged(folder) as aside:
        (aside / "a.json").write_text("1")
        (aside / "b.nii").write_text("2")
        assert names(tmp_path) == [".sub 1.partial/a.json", ".sub 1.partial/b.nii"]
    assert names(tmp_path) == ["sub 1/a.json", "sub 1/b.nii"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_half_written_stays(tmp_path, error):
    with staged(tmp_path / "a") as aside:
        (aside / "a.json").write_text("old")
    with pytest.raises(error), staged(tmp_path / "a") as aside:
        (aside / "a.json").write_text("new")
        raise error
    with pytest.raises(error), staged(tmp_path / "b"):
        raise error
    assert names(tmp_path) == ["a/a.json"] and (tmp_path / "a" / "a.json").read_text() == "old"
    assert not (tmp_path / "b").exists()


def test_text_is_replaced_whole(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "é")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é"

    def full(path, *args, **kwargs):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text(encoding="utf-8") == "é"


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_volume_has_the_geometry_of_the_reference(tmp_path, ending):
    shape = (12, 14, 5)
    reference = scan(shape, affine_of(shape, (0.7, 0.8, 4), "LPS", (20, -10)))
    reference.set_sform(reference.affine, code=2)
    reference.set_qform(reference.affine, code=1)
    reference.header.set_slope_inter(2, -5)
    reference.header["cal_max"] = 4000
    nib.save(reference, tmp_path / "reference.nii.gz")
    volume = np.random.default_rng(0).random(shape).astype(np.float32)
    told = "t1ce synth " + 100 * "x"
    with volume_file(tmp_path / f"made{ending}", tmp_path / "reference.nii.gz", told) as write:
        for part in (volume[..., :2], volume[..., 2:3], volume[..., 3:]):
            write(part)

    made, reference = nib.load(tmp_path / f"made{ending}"), nib.load(tmp_path / "reference.nii.gz")
    assert made.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(made.dataobj), volume)
    assert np.array_equal(made.affine, reference.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "quatern_b", "srow_x"):
        assert np.array_equal(made.header[field], reference.header[field]), field
    assert made.header["sform_code"] == 2 and made.header["qform_code"] == 1
    assert made.header["cal_max"] == 1 and made.header["descrip"].tobytes().startswith(b"t1ce synth xx")


@pytest.mark.parametrize("shapes", [[(12, 14, 6)], [(12, 14, 3), (12, 14, 3)], [(14, 12, 5)], [(12, 14, 4)]])
def test_volume_of_another_shape(tmp_path, shapes):
    nib.save(scan((12, 14, 5), np.eye(4)), tmp_path / "reference.nii")
    with (
        pytest.raises(ValueError, match="reference.nii has"),
        volume_file(tmp_path / "made.nii", tmp_path / "reference.nii", "") as write,
    ):
        for shape in shapes:
            write(np.zeros(shape, np.float32))


def test_axis_of_length_one_is_dropped(tmp_path):
    image = scan((12, 14, 5), np.eye(4))
    nib.save(nib.Nifti1Image(image.get_fdata()[..., None], image.affine), tmp_path / "reference.nii")
    with volume_file(tmp_path / "made.nii", tmp_path / "reference.nii", "") as write:
        write(np.ones((12, 14, 5)))
    made = nib.load(tmp_path / "made.nii")
    assert made.shape == (12, 14, 5) and (made.get_fdata() == 1).all()


def test_a_volume_is_the_file_that_nibabel_writes(tmp_path):
    reference = scan((12, 14, 5), affine_of((12, 14, 5), (0.7, 0.8, 4), "LPS", (20, -10)))
    nib.save(reference, tmp_path / "reference.nii")
    volume = np.random.default_rng(0).random((12, 14, 5)).astype(np.float32)
    with volume_file(tmp_path / "made.nii.gz", tmp_path / "reference.nii", "made") as write:
        write(volume)
    image = nib.Nifti1Image(volume, reference.affine, nib.load(tmp_path / "reference.nii").header)
    image.set_data_dtype(np.float32)
    image.header.set_slope_inter(1, 0)
    image.header["cal_max"], image.header["descrip"] = 1, "made"
    nib.save(image, tmp_path / "nibabel.nii.gz")
    assert (tmp_path / "made.nii.gz").read_bytes() == (tmp_path / "nibabel.nii.gz").read_bytes()


def test_output_folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    prepare_output(tmp_path / "new" / "results", data)
    prepare_output(tmp_path, data)  # the other way round is fine
    assert names(tmp_path) == []
    for inside in (data, data / "results", tmp_path / "new" / ".." / "data" / "x"):
        with pytest.raises(InputError, match="lies inside the input folder"):
            prepare_output(inside, data)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to the output folder") as error:
        prepare_output(tmp_path / "file" / "results", data)
    assert str(tmp_path / "file" / "results") in str(error.value)


def test_read_only_output_folder(tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):  # tests may run as root, whom no permission stops
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match="Permission denied.*Give --output_dir a folder that you may write to"):
        prepare_output(tmp_path, tmp_path / "data")


def test_errors_of_the_file_system(tmp_path):
    assert "no space is left" in told(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    line = told(PermissionError(errno.EACCES, "Permission denied", "/a/b.nii"), tmp_path)
    assert line.startswith("/a/b.nii: Permission denied. ")


def test_is_done(tmp_path):
    sidecar = tmp_path / "a.json"
    claim = {"seed": 1, "targets": ("t1",), "inputs": {"t2": {"sha256": "1"}}}
    assert not is_done(tmp_path, sidecar, claim)
    sidecar.write_text(as_json({**claim, "files": ["a.nii"], "seconds": 5}))
    assert not is_done(tmp_path, sidecar, claim)
    (tmp_path / "a.nii").touch()
    assert is_done(tmp_path, sidecar, claim)
    assert not is_done(tmp_path, sidecar, {**claim, "seed": 2})
    assert not is_done(tmp_path, sidecar, {**claim, "inputs": {"t2": {"sha256": "2"}}})
    sidecar.write_text(json.dumps({"seed": 1})[:-3])
    assert not is_done(tmp_path, sidecar, claim)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_voxels_are_right_beside_a_big_endian_reference(tmp_path, kind, ending):
    affine = affine_of((12, 14, 5), (0.7, 0.8, 4), "LPS", (20, -10))
    voxels = np.arange(12 * 14 * 5, dtype=">i2").reshape(12, 14, 5)
    nib.save(kind(voxels, affine, kind.header_class(endianness=">")), tmp_path / f"reference{ending}")
    assert nib.load(tmp_path / f"reference{ending}").header.endianness == ">"
    volume = np.random.default_rng(0).random((12, 14, 5)).astype(np.float32)
    with volume_file(tmp_path / f"made{ending}", tmp_path / f"reference{ending}", "made") as write:
        write(volume)
    made = nib.load(tmp_path / f"made{ending}")
    assert np.array_equal(made.get_fdata(dtype=np.float32), volume) and made.header.endianness == "<"
    assert np.allclose(made.affine, affine, atol=1e-5)


def test_a_quaternion_that_is_none_is_not_written_again(tmp_path):
    image = scan((12, 14, 5), affine_of((12, 14, 5), (0.7, 0.8, 4), "LPS", (20, -10)))
    for part in "bcd":
        image.header[f"quatern_{part}"] = 2
    (tmp_path / "reference.nii").write_bytes(image.header.binaryblock + bytes(4 + 2 * 12 * 14 * 5))
    with volume_file(tmp_path / "made.nii", tmp_path / "reference.nii", "made") as write:
        write(np.ones((12, 14, 5), np.float32))
    made = nib.load(tmp_path / "made.nii")
    assert np.allclose(made.affine, image.affine) and made.header["qform_code"] == 0
    assert made.header["sform_code"] == 1 and made.get_qform().shape == (4, 4)
