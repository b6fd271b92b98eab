import numpy as np
import pytest
import torch

from bundle.errors import InputError
from bundle.transforms.exam import FindExamd, KeepTargetd
from tests.phantom import affine_of, write_subject

CONTRASTS = ["t1", "t1ce", "t2", "flair"]
SHAPE = (32, 42, 27)


@pytest.fixture
def scans(tmp_path):
    """Flat files of two subjects and, in a folder below, what could be taken for theirs."""
    affine = affine_of(SHAPE, (2, 2, 2))
    ana = write_subject(tmp_path, ["t1", "t2"], SHAPE, affine, name="ana")
    write_subject(tmp_path, CONTRASTS, SHAPE, affine, name="bob")
    write_subject(tmp_path / "labels" / "final", ["t1ce"], SHAPE, affine, name="ana")
    (tmp_path / "ana_flair_synth.nii.gz").write_bytes((tmp_path / "ana_t1.nii.gz").read_bytes())
    return ana


def exam(path, **options):
    item = FindExamd(CONTRASTS)({"image": str(path), "device": "cpu", **options})
    return item["target"], {name: item[name] for name in CONTRASTS if name in item}


def test_the_siblings_of_a_scan(scans):
    item = FindExamd(CONTRASTS)({"image": scans["t2"], "device": "cpu"})
    assert item == {"device": "cpu", "target": "t1ce", "subject": "ana", "warnings": [], **scans}


@pytest.mark.parametrize("target", ["flair", ["flair", "t1"]])
def test_the_target(scans, target):
    assert exam(scans["t1"], target=target) == ("flair", scans)


def test_a_target_that_exists_is_left_out(scans):
    assert exam(scans["t1"], target="t1") == ("t1", {"t2": scans["t2"]})


def test_other_items_pass(scans):
    assert FindExamd(CONTRASTS)(scans) == scans
    pred = torch.rand(4, 2, 2, 2)
    assert KeepTargetd("pred", CONTRASTS)({"pred": pred})["pred"] is pred


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("ana_flair_synth.nii.gz", {}, "ana_flair_synth.nii.gz: is synthetic. "),
        ("tmpab12.nii.gz", {}, "tmpab12.nii.gz: is none of t1, t1ce, t2, flair by its name. "),
        ("nobody_t1.nii.gz", {}, "nobody_t1.nii.gz: is none of t1, t1ce, t2, flair by its name. "),
        ("bob_t1.nii.gz", {}, "bob: nothing is missing of t1, t1ce, t2, flair. Name a target"),
        ("ana_t1.nii.gz", {"target": "t7"}, "target 't7' is unknown. Use one of first missing, t1, "),
        ("ana_t1.nii.gz", {"target": []}, "target [] is unknown. "),
        ("cut_t1.nii.gz", {}, "cut_t2.nii.gz: is empty (0 bytes). "),
    ],
)
def test_faults(scans, tmp_path, name, options, line):
    (tmp_path / "cut_t1.nii.gz").write_bytes((tmp_path / "ana_t1.nii.gz").read_bytes())
    (tmp_path / "cut_t2.nii.gz").touch()
    with pytest.raises(InputError) as error:
        exam(tmp_path / name, **options)
    assert line in str(error.value)


def test_one_channel_is_kept():
    pred = torch.rand(4, 3, 5, 7)
    kept = KeepTargetd(["pred", "uncertainty"], CONTRASTS)({"pred": pred, "target": "t2"})
    assert np.array_equal(kept["pred"], pred[2:3]) and set(kept) == {"pred", "target"}
