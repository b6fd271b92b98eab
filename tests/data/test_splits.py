"""Splits are drawn by persons, are stable, and their files are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle.data.naming import person_of
from bundle.data.splits import PARTS, apply_split, load_split, make_split, save_split
from bundle.errors import InputError

ROOT = Path(__file__).parents[2]
SUBJECTS = [f"patient{i:02d}_study{s}" for i in range(20) for s in (1, 2)]


@pytest.mark.parametrize(
    ("subject", "person"),
    [
        ("patient01_study1", "patient01"),
        ("sub-01_ses-2", "sub-01"),
        ("p2_visit 1", "p2"),
        ("P14_T2", "P14"),
        ("p3_2021-05-30", "p3"),
        ("BraTS-GLI-00001-001", "BraTS-GLI-00001"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BRATS_001", "BRATS_001"),
        ("patient07", "patient07"),
        ("IXI012-Guys-0828", "IXI012-Guys-0828"),
        ("study1", "study1"),
    ],
)
def test_person_of(subject, person):
    assert person_of(subject) == person


def test_every_subject_is_in_one_part_and_no_person_in_two():
    split = make_split(SUBJECTS, validation=0.2, test=0.1)
    assert {part: len(split[part]) for part in PARTS} == {"training": 28, "validation": 8, "test": 4}
    assert sorted(subject for part in PARTS for subject in split[part]) == SUBJECTS
    persons = [{person_of(subject) for subject in split[part]} for part in PARTS]
    assert not (persons[0] & persons[1] or persons[0] & persons[2] or persons[1] & persons[2])


def test_depends_on_names_and_seed_alone():
    assert make_split(SUBJECTS[::-1]) == make_split(SUBJECTS)
    assert make_split(SUBJECTS, seed=1) != make_split(SUBJECTS)
    assert make_split(["a", "b", "c", "d"], 0.25, 0.25) == {"training": ["b", "d"], "validation": ["c"], "test": ["a"]}


def test_no_share_no_subjects_and_small_shares_at_least_one():
    assert make_split(["a", "b"], validation=0, test=0) == {"training": ["a", "b"], "validation": [], "test": []}
    assert len(make_split(["a", "b", "c"], validation=0.01, test=0)["validation"]) == 1


@pytest.mark.parametrize(
    ("subjects", "shares"),
    [(["a", "a", "b"], (0.1, 0.1)), (["a", "b"], (0.1, 0.1)), (SUBJECTS, (0.5, 0.5)), ([], (0, 0))],
)
def test_what_cannot_be_split(subjects, shares):
    with pytest.raises(InputError):
        make_split(subjects, *shares)


def test_file_keeps_the_split(tmp_path):
    split = {"training": ["Jörg", "b"], "validation": ["c"], "test": []}
    save_split(split, tmp_path / "split.json")
    assert load_split(tmp_path / "split.json") == {**split, "without": {}}
    assert "Jörg" in (tmp_path / "split.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not readable as JSON"),
        ("[]", "is no split file"),
        (json.dumps({"train": []}), "is no split file"),
        (json.dumps({"training": "abc"}), "is no split file"),
        (json.dumps({"training": [1]}), "is no split file"),
        (json.dumps({"training": ["a"], "without": ["a"]}), "is no split file"),
        (json.dumps({"training": ["a"], "without": {"a": "t1"}}), "is no split file"),
        (json.dumps({"training": ["a"], "without": {"b": ["t1"]}}), '"without" names b, which is in no part'),
        (json.dumps({"training": ["a", "b"], "test": ["a"]}), "more than once: a"),
        (json.dumps({"training": ["a", "a"]}), "more than once: a"),
        (json.dumps({"training": ["p1_study1"], "test": ["p1_study2"]}), "sessions of p1 in both training and test"),
    ],
)
def test_files_that_are_no_split(tmp_path, content, told):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(InputError, match=told) as caught:
        load_split(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_split(tmp_path / "none.json")


def test_apply():
    items = [{"subject": name} for name in ("c", "a", "b", "unlisted")]
    split = {"training": ["a", "c"], "validation": [], "test": ["b"]}
    assert [item["subject"] for item in apply_split(items, split, "training")] == ["c", "a"]
    assert apply_split(items, split, "validation") == []
    with pytest.raises(InputError, match=r"1 subjects .* not in the data \(d\)"):
        apply_split(items, {"test": ["d"]}, "test")
    with pytest.raises(InputError, match="'train' is no part"):
        apply_split(items, split, "train")
    with pytest.raises(InputError, match="more than once: a"):
        apply_split([*items, {"subject": "a"}], split, "training")


def test_a_scan_that_is_not_used(tmp_path):
    (tmp_path / "split.json").write_text('{"training": ["a", "b"], "without": {"b": ["t1"]}}')
    split = load_split(tmp_path / "split.json")
    items = [{"subject": name, "t1": f"{name}1", "t2": f"{name}2"} for name in "ab"]
    assert apply_split(items, split, "training") == [items[0], {"subject": "b", "t2": "b2"}]
    with pytest.raises(InputError, match="does without t1 of b, which has none"):
        apply_split([items[0], {"subject": "b", "t2": "b2"}], split, "training")


def test_the_development_split():
    split = load_split(ROOT / "configs" / "splits" / "development.json")
    assert {part: len(split[part]) for part in PARTS} == {"training": 12, "validation": 0, "test": 5}
    assert split["test"] == ["patient26", "BRATS_001", "BraTS-GLI-00028-000", "BraTS2021_01480", "BraTS2021_01485"]
    assert split["without"] == {"BraTS2021_01482": ["t1"]}
