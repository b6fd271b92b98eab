import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: run make test-label")

from bundle.errors import InputError  # noqa: E402
from scripts.monai_label.lib.exam import exam_of  # noqa: E402
from scripts.monai_label.lib.refusals import OutsideStudies  # noqa: E402
from scripts.monai_label.lib.studies import Studies  # noqa: E402
from tests.label.conftest import CONTRASTS  # noqa: E402


def exam(folder, name):
    studies = Studies(str(folder))
    return exam_of(studies.scan(name), studies, CONTRASTS, {})


@pytest.mark.parametrize(
    ("name", "subject", "found"),
    [
        ("thick/thick_t2", "thick", ["t1", "t2"]),
        ("ana_flair", "ana", ["t1", "flair"]),
        ("whole/whole_t1", "whole", CONTRASTS),
    ],
)
def test_siblings(folder, name, subject, found):
    item = exam(folder, name)
    assert item["subject"] == subject and [key for key in item if key in CONTRASTS] == found and "fault" not in item


def test_a_bad_sibling_is_a_fault(folder):
    assert "four_t1.nii.gz: is 4-D" in exam(folder, "four/four_t2")["fault"]


def test_a_sibling_outside(folder):
    with pytest.raises(OutsideStudies, match="linked_t2.nii.gz: is a link that leads out"):
        exam(folder, "linked/linked_t1")


def test_an_image_of_no_contrast(folder):
    with pytest.raises(InputError, match="picture.nii.gz: is none of t1, t1ce, t2, flair by its name"):
        exam(folder, "picture")


def test_a_synthetic_image(folder):
    (folder / "ana_t2_synth.nii.gz").write_bytes((folder / "ana_t1.nii.gz").read_bytes())
    with pytest.raises(InputError, match="ana_t2_synth.nii.gz: is synthetic"):
        exam(folder, "ana_t2_synth")
    assert "t2" not in exam(folder, "ana_t1")


def test_a_datalist_in_the_studies_folder_says_which_file_is_which(folder, tmp_path):
    (folder / "datalist.csv").write_text("subject,t2,flair\nmine,thick/thick_t1.nii.gz,thick/thick_t2.nii.gz\n")
    item = exam(folder, "thick/thick_t1")
    assert item["subject"] == "mine" and item["t2"] == str(folder / "thick" / "thick_t1.nii.gz")
    with pytest.raises(InputError, match="is none of"):
        exam(folder, "ana_flair")
    (tmp_path / "secret.nii.gz").write_bytes(b"")
    (folder / "datalist.csv").write_text(f"subject,t1,t2\nmine,thick/thick_t1.nii.gz,{tmp_path / 'secret.nii.gz'}\n")
    with pytest.raises(OutsideStudies, match="secret.nii.gz: is not in the studies folder"):
        exam(folder, "thick/thick_t1")
    (folder / "datalist.csv").unlink()
    (folder / "datalist.csv").symlink_to(tmp_path / "secret.nii.gz")
    with pytest.raises(OutsideStudies, match="datalist.csv: is a link that leads out"):
        exam(folder, "thick/thick_t1")
