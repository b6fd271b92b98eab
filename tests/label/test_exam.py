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
