import os

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: run make test-label")

from bundle.data.discovery import find_subjects  # noqa: E402
from bundle.errors import InputError  # noqa: E402
from scripts.monai_label.lib.refusals import (  # noqa: E402
    Conflict,
    NotNifti,
    OutsideStudies,
    UnknownImage,
    status_of,
)
from scripts.monai_label.lib.studies import Studies, is_synthetic  # noqa: E402
from tests.label.conftest import CONTRASTS  # noqa: E402

IMAGES = {
    *("thick/thick_t1", "thick/thick_t2", *(f"whole/whole_{name}" for name in CONTRASTS)),
    *("ana_t1", "ana_flair", "four/four_t1", "four/four_t2", "linked/linked_t1", "picture"),
}


@pytest.fixture
def upload(tmp_path, folder):
    """A file as the server receives it."""

    def make(name="upload.nii.gz", source="ana_t1.nii.gz"):
        path = tmp_path / name
        path.write_bytes((folder / source).read_bytes())
        return path

    return make


def test_images_are_what_lies_in_the_folder(folder):
    studies = Studies(str(folder))
    assert set(studies.list_images()) == IMAGES  # neither linked_t2 nor away_t1, which are links that lead out
    assert studies.get_image_uri("thick/thick_t1") == str(folder / "thick" / "thick_t1.nii.gz")
    (folder / "later").mkdir()
    (folder / "ana_flair.nii.gz").rename(folder / "later" / "x_flair.nii.gz")
    studies.refresh()
    assert set(studies.list_images()) == IMAGES - {"ana_flair"} | {"later/x_flair"}


@pytest.mark.parametrize("name", ["thick/thick_t1", "thick/thick_t1.nii.gz", "{folder}/thick/thick_t1.nii.gz",
                                  "whole/../thick/thick_t1"])  # fmt: skip
def test_a_scan_by_id_or_path(folder, name):
    assert Studies(str(folder)).scan(name.format(folder=folder)) == folder / "thick" / "thick_t1.nii.gz"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("thick/thick_flair", UnknownImage), ("thick", UnknownImage), ("", UnknownImage),
        ("../outside/outside_t1", OutsideStudies), ("/etc/passwd", OutsideStudies), ("a\0b", OutsideStudies),
        ("../nowhere", OutsideStudies),  # the answer does not tell whether there is such a file
        ("away_t1", OutsideStudies), ("linked/linked_t2", OutsideStudies), ("linked/linked_t2.nii.gz", OutsideStudies),
    ],
)  # fmt: skip
def test_no_other_scan(folder, name, fault):
    with pytest.raises(fault) as error:
        Studies(str(folder)).scan(name)
    assert "\n" not in str(error.value) and status_of(error.value) == {UnknownImage: 404, OutsideStudies: 403}[fault]


def test_a_folder_that_is_a_link_is_one_folder(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert Studies(str(tmp_path / "link")).scan("ana_t1") == folder / "ana_t1.nii.gz"


def test_an_uploaded_scan(folder, upload):
    studies = Studies(str(folder))
    file = upload()
    content = file.read_bytes()
    assert studies.add_image("new/new_t2", str(file), {"client_id": "me"}) == "new/new_t2"
    assert (folder / "new" / "new_t2.nii.gz").read_bytes() == content and not file.exists()
    info = studies.get_image_info("new/new_t2")
    assert info["client_id"] == "me" and info["synthetic"] is False
    assert [item["subject"] for item in find_subjects(folder, CONTRASTS)].count("new") == 1


@pytest.mark.parametrize(
    ("image_id", "name", "source", "fault", "line"),
    [
        ("ana_t1", "u.nii.gz", "ana_t1.nii.gz", Conflict, "ana_t1: is there already. "),
        ("ana_t1", "u.nii", "ana_t1.nii.gz", Conflict, "ana_t1: is there already. "),
        ("x_t1", "u.nii.gz", "four/four_t1.nii.gz", InputError, "x_t1: is 4-D (32 x 42 x 27 x 2). Split it"),
        ("x_t1", "u.nrrd", "ana_t1.nii.gz", NotNifti, "x_t1: is no NIfTI file by its name. "),
        ("../x_t1", "u.nii.gz", "ana_t1.nii.gz", OutsideStudies, "../x_t1.nii.gz: is not in the studies folder. "),
        ("/tmp/x_t1", "u.nii.gz", "ana_t1.nii.gz", OutsideStudies, "/tmp/x_t1.nii.gz: is not in the studies folder. "),
        (".labels/final/x_t1", "u.nii.gz", "ana_t1.nii.gz", OutsideStudies, ".labels/final/x_t1: is hidden. "),
        ("linked/linked_t2", "u.nii.gz", "ana_t1.nii.gz", OutsideStudies, "linked_t2.nii.gz: is not in the studies"),
    ],
)  # fmt: skip
def test_uploads_that_are_refused(folder, tmp_path, upload, image_id, name, source, fault, line):
    studies = Studies(str(folder))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    file = upload(name, source)
    with pytest.raises(fault, match="") as error:
        studies.add_image(image_id, str(file), {})
    assert line in str(error.value) and not file.exists()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == before
    assert set(studies.list_images()) == IMAGES


def test_a_folder_of_uploads_that_is_a_link_leads_nowhere(folder, upload):
    (folder / "away").symlink_to(folder.parent / "outside")
    with pytest.raises(OutsideStudies):
        Studies(str(folder)).add_image("away/new_t1", str(upload()), {})
    assert not (folder.parent / "outside" / "new_t1.nii.gz").exists()


def test_synthetic_images_stay_so(folder, upload):
    studies = Studies(str(folder))
    scans = find_subjects(folder, CONTRASTS)
    studies.keep("thick/thick_flair_synth", upload(), {"synthetic": True, "target": "flair"})
    studies.keep("thick/thick_flair_synth", upload(), {"seed": 3})  # made again
    assert studies.get_image_info("thick/thick_flair_synth")["seed"] == 3
    studies.update_image_info("thick/thick_flair_synth", {"synthetic": False})
    (folder / "datastore_v2.json").unlink()
    for store in (studies, Studies(str(folder))):
        store.refresh()
        assert store.get_image_info("thick/thick_flair_synth")["synthetic"] is True
        assert set(store.get_unlabeled_images()) == IMAGES
        assert set(store.list_images()) == IMAGES | {"thick/thick_flair_synth"}
    assert find_subjects(folder, CONTRASTS) == scans
    assert not list(folder.rglob(".*.partial"))
    assert is_synthetic("a/b_T1_SYNTH") and is_synthetic("b_t1_uncertainty") and not is_synthetic("synth_t1")


def test_labels_are_no_scans(folder, upload):
    studies = Studies(str(folder))
    scans = find_subjects(folder, CONTRASTS)
    studies.save_label("thick/thick_t1", str(upload()), "final", {})
    assert os.path.exists(studies.get_label_uri("thick/thick_t1", "final"))
    assert set(studies.list_images()) == IMAGES and find_subjects(folder, CONTRASTS) == scans
    again = Studies(str(folder))
    assert again.get_labeled_images() == ["thick/thick_t1"] and set(again.list_images()) == IMAGES
    (folder / "datastore_v2.json").unlink()
    assert Studies(str(folder)).get_labeled_images() == ["thick/thick_t1"]


@pytest.mark.parametrize("tag", ["../../outside", "/tmp", "..", ".", "", "a/b"])
def test_tags_that_are_paths(folder, upload, tag):
    with pytest.raises(InputError, match="the tag .* cannot be used"):
        Studies(str(folder)).save_label("ana_t1", str(upload()), tag, {})
