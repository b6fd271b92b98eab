"""The folders that make_subjects writes; the subject itself is a stand-in, simulate has its own tests."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from bundle.data.discovery import find_subjects
from bundle.data.simulate import CONTRASTS, Subject
from bundle.errors import InputError
from scripts import make_subjects
from tests.phantoms.test_label_maps import head, save


@pytest.fixture
def painted():
    """The intensities with which the stand-in was asked to paint."""
    return []


@pytest.fixture
def seeds(monkeypatch, painted):
    """Replace the simulation by blocks on the working grid; the seeds asked for are listed."""
    asked = []

    def block(seed, lesion, like=None, missing_slices=0.0, signals=None):
        painted.append(signals)
        asked.append((seed, lesion) if like is None else (seed, lesion, like))
        ramp = np.linspace(1, 2, 155, dtype=np.float32) * np.linspace(1, 2, 208, dtype=np.float32)[:, None]
        brain = np.zeros((176, 208, 155), np.float32)
        brain[30:-40, 30:-50, 20:-10] = 1  # lopsided, so that a flip shows
        images = {name: brain * ramp * (10 + seed + i) for i, name in enumerate(CONTRASTS)}
        label = np.zeros(brain.shape, np.uint8)
        label[50:70, 60:80, 40:60] = 2
        affine = np.eye(4)
        affine[:3, 3] = -88, -121, -72
        return Subject(images=images, label=label, affine=affine)

    monkeypatch.setattr(make_subjects, "simulate", block)
    return asked


@pytest.fixture
def exams(tmp_path, monkeypatch):
    """A folder of three exams that nobody checks, and a split that trains on two of them."""
    folder, split = tmp_path / "exams", tmp_path / "split.json"
    for name in ("one", "two", "three"):
        (folder / name).mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)), folder / name / f"{name}_t1.nii.gz")
    split.write_text(json.dumps({"training": ["one", "two"], "validation": [], "test": ["three"]}))
    monkeypatch.setattr(make_subjects, "check_subjects", lambda items: items)
    return folder, split


def world_centre(image):
    values = np.asarray(image.dataobj)
    voxel = [(i * values).sum() / values.sum() for i in np.indices(values.shape, sparse=True)]
    return nib.affines.apply_affine(image.affine, voxel)


def test_training_folder_is_found_as_complete_subjects(tmp_path, seeds):
    make_subjects.main(["--output_dir", str(tmp_path), "--subjects", "2", "--seed", "40"])
    assert seeds == [(41, "tumour"), (42, "plaques")]
    items = find_subjects(tmp_path, CONTRASTS)
    assert [item["subject"] for item in items] == ["GEN-0001", "GEN-0002"]
    for item in items:
        assert {*CONTRASTS, "label"} <= item.keys()
        assert item["t1ce"].endswith(f"{item['subject']}-t1c.nii.gz")
        assert "fault" not in item


def test_subjects_like_those_of_the_training_part(tmp_path, seeds, exams, monkeypatch, capsys):
    def read(item):
        if item["subject"] == "two":
            raise InputError("the scans still have their skull", "Leave it out")
        return item["subject"]

    monkeypatch.setattr(make_subjects, "read_anatomy", read)
    command = ["--output_dir", str(tmp_path / "out"), "--subjects", "2", "--like", str(exams[0])]
    make_subjects.main([*command, "--split_file", str(exams[1])])
    assert seeds == [(1, "none", "one"), (2, "none", "one")]  # its own lesions; nothing of the test part
    assert "two is left out: the scans still have their skull" in capsys.readouterr().err
    make_subjects.main(command)
    assert [like for *_, like in seeds[2:]] == ["one", "three"]


def test_tissues_as_bright_as_in_the_exams_of_the_training_part(tmp_path, seeds, painted, exams, monkeypatch, capsys):
    levels = {"one": 1.0, "three": 3.0}

    def read(item):
        if item["subject"] == "two":
            raise InputError("has no t2", "Leave it out")
        return {name: np.full(9, levels[item["subject"]]) for name in CONTRASTS}

    monkeypatch.setattr(make_subjects, "read_signals", read)
    command = ["--output_dir", str(tmp_path / "out"), "--subjects", "2", "--intensities_of", str(exams[0])]
    make_subjects.main([*command, "--split_file", str(exams[1])])
    assert seeds == [(1, "tumour"), (2, "plaques")]  # the template's brain
    assert all(signals["t2"][-1] == 1 for signals in painted)  # nothing of the test part
    assert painted[0]["t1"][0] != painted[1]["t1"][0]
    assert "two is left out: has no t2" in capsys.readouterr().err
    painted.clear()
    make_subjects.main(command)
    assert any(1 < signals["t2"][-1] < 3 for signals in painted)


def test_exams_of_which_none_shows_all_contrasts(tmp_path, seeds, capsys, monkeypatch):
    (tmp_path / "one").mkdir()
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)), tmp_path / "one" / "one_t1.nii.gz")
    monkeypatch.setattr(make_subjects, "check_subjects", lambda items: items)
    with pytest.raises(InputError, match="no exam shows how bright tissues are"):
        make_subjects.main(["--output_dir", str(tmp_path / "out"), "--intensities_of", str(tmp_path)])
    assert "one is left out: has no t1ce, t2, flair" in capsys.readouterr().err
    assert not seeds


def test_exams_of_which_none_can_be_used(tmp_path, seeds, capsys):
    (tmp_path / "one").mkdir()
    file = tmp_path / "one" / "one_t1.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((40, 40, 40)).astype(np.float32), np.eye(4)), file)
    file.write_bytes(file.read_bytes()[:20_000])  # its header can be read, its voxels cannot
    with pytest.raises(InputError, match="no exam has an anatomy that can be used"):
        make_subjects.main(["--output_dir", str(tmp_path / "out"), "--like", str(tmp_path)])
    assert "one is left out: " in capsys.readouterr().err
    assert not seeds


def test_no_exam_to_be_like_is_one_clear_line(tmp_path, seeds):
    (tmp_path / "one").mkdir()
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)), tmp_path / "one" / "one_t2.nii.gz")
    with pytest.raises(InputError, match="no file is named as one of the contrasts t1, t1ce"):
        make_subjects.main(["--output_dir", str(tmp_path / "out"), "--like", str(tmp_path)])


def test_missing_slices(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(make_subjects, "write_subjects", lambda *arguments: asked.append(arguments[-2]))
    for chance in ([], ["--missing_slices", "0.25"]):
        make_subjects.main(["--output_dir", str(tmp_path), *chance])
    assert asked == [0.0, 0.25]
    with pytest.raises(InputError, match="--missing_slices 2 is no probability"):
        make_subjects.main(["--output_dir", str(tmp_path), "--missing_slices", "2"])


def test_training_files_lie_on_the_grid_of_brats(tmp_path, seeds):
    make_subjects.main(["--output_dir", str(tmp_path), "--subjects", "1"])
    image = nib.load(tmp_path / "GEN-0001" / "GEN-0001-t2w.nii.gz")
    assert image.shape == (240, 240, 155)
    assert image.get_data_dtype() == np.float32
    assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-5)
    assert nib.load(tmp_path / "GEN-0001" / "GEN-0001-seg.nii.gz").get_data_dtype() == np.uint8
    # padding moved the voxels, not the brain
    block = make_subjects.simulate(1, "tumour")
    np.testing.assert_allclose(
        world_centre(image), world_centre(nib.Nifti1Image(block.images["t2"], block.affine)), atol=1e-3
    )


def test_demo_withholds_what_it_keeps_as_truth(tmp_path, seeds):
    make_subjects.main(["--output_dir", str(tmp_path), "--demo", "--seed", "7"])
    assert [lesion for _, lesion in seeds] == ["tumour", "plaques", "plaques"]
    items = {item["subject"]: item for item in find_subjects(tmp_path / "scans", CONTRASTS)}
    assert set(items) == {"DEMO-001", "DEMO-002", "sub-003"}
    given = {name: {c for c in CONTRASTS if c in item} for name, item in items.items()}
    assert given == {"DEMO-001": {"t1", "t2", "flair"}, "DEMO-002": {"t2", "flair"}, "sub-003": {"t1", "t1ce"}}
    for name, have in given.items():
        truth = {path.name.removesuffix(".nii.gz") for path in (tmp_path / "truth" / name).iterdir()}
        assert truth == {f"{name}_{c}" for c in {*CONTRASTS, "label"} - have}
        assert not any("fault" in item for item in items.values())


def test_demo_scans_and_truth_share_a_grid_that_differs_between_subjects(tmp_path, seeds):
    make_subjects.write_demo(tmp_path, seed=7)
    codes = {}
    for item in find_subjects(tmp_path / "scans", CONTRASTS):
        name = item["subject"]
        images = [nib.load(item[c]) for c in CONTRASTS if c in item]
        images += [nib.load(path) for path in (tmp_path / "truth" / name).iterdir()]
        for image in images:
            assert image.shape == images[0].shape
            np.testing.assert_array_equal(image.affine, images[0].affine)
        codes[name] = (
            "".join(nib.aff2axcodes(images[0].affine)),
            tuple(np.round(images[0].header.get_zooms(), 3).tolist()),
        )
    assert codes == {
        "DEMO-001": ("LPS", (1, 1, 1)),
        "DEMO-002": ("RAS", (1, 1, 1)),
        "sub-003": ("PIR", (1, 1, 3)),
    }


def test_reorienting_and_thick_slices_leave_the_brain_in_its_place(tmp_path, seeds):
    make_subjects.write_demo(tmp_path, seed=7)
    block = make_subjects.simulate(10, "plaques")
    thick = nib.load(tmp_path / "truth" / "sub-003" / "sub-003_t2.nii.gz")
    np.testing.assert_allclose(
        world_centre(thick), world_centre(nib.Nifti1Image(block.images["t2"], block.affine)), atol=0.05
    )
    # averaging keeps the amount of signal
    assert thick.get_fdata().sum() * 3 == pytest.approx(block.images["t2"].sum(dtype=float), rel=0.01)
    label = nib.load(tmp_path / "truth" / "sub-003" / "sub-003_label.nii.gz")
    assert set(np.unique(label.dataobj)) == {0, 2}
    assert (np.asarray(label.dataobj) > 0).sum() * 3 == pytest.approx((block.label > 0).sum(), rel=0.2)


@pytest.fixture
def heads(tmp_path):
    """A folder with the label map of a made-up head."""
    (tmp_path / "maps").mkdir()
    save(tmp_path / "maps" / "one.nii.gz", head(), "LIA")
    return tmp_path / "maps"


def test_subjects_of_label_maps(tmp_path, heads):
    (tmp_path / "masks").mkdir()
    mask = np.zeros((40, 40, 20), np.uint8)
    mask[5:12, 10:30, 5:15] = mask[28:35, 10:30, 5:15] = 1
    save(tmp_path / "masks" / "one.nii", mask)
    arguments = ["--subjects", "2", "--seed", "3", "--label_maps", str(heads)]
    for name in ("a", "b"):
        masks = ["--lesion_masks", str(tmp_path / "masks")]
        make_subjects.main(["--output_dir", str(tmp_path / name), *arguments, *masks])
    items = find_subjects(tmp_path / "a", CONTRASTS)
    assert [item["subject"] for item in items] == ["GEN-0001", "GEN-0002"]
    for item in items:
        images = {name: nib.load(item[name]) for name in (*CONTRASTS, "label")}
        affine = images["t1"].affine
        assert nib.aff2axcodes(affine) == ("R", "A", "S")
        for name, image in images.items():
            assert image.shape == images["t1"].shape and np.array_equal(image.affine, affine)
            again = nib.load(item[name].replace(f"{tmp_path}/a/", f"{tmp_path}/b/"))
            np.testing.assert_array_equal(image.get_fdata(), again.get_fdata())
        brain = images["t1"].get_fdata() > 0
        assert 0.4e6 < brain.sum() < 1.2e6 and not images["label"].get_fdata()[~brain].any()
        assert set(np.unique(images["label"].get_fdata())) <= {0, 1, 2, 3}
        assert [where.min() for where in np.nonzero(brain)] == [4, 4, 4]


def test_label_maps_that_cannot_be_used_are_named(tmp_path, heads):
    to = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match="masks: holds no NIfTI file"):
        (tmp_path / "masks").mkdir()
        make_subjects.main([*to, "--label_maps", str(heads), "--lesion_masks", str(tmp_path / "masks")])
    with pytest.raises(InputError, match="--label_maps makes subjects of another kind"):
        make_subjects.main([*to, "--label_maps", str(heads), "--demo"])
    with pytest.raises(InputError, match="Add --label_maps"):
        make_subjects.main([*to, "--lesion_masks", str(heads)])
    save(heads / "two.nii.gz", head(), spacing=2.0)
    with pytest.raises(InputError, match="two.nii.gz: the voxels measure 2 x 2 x 2 mm"):
        make_subjects.main([*to, "--subjects", "2", "--label_maps", str(heads)])
    assert not list((tmp_path / "out").rglob("GEN-0002*"))
