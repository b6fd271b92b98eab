import json
import logging
import os

import pytest
from monai.data.utils import pickle_hashing

from bundle.data.training import training_and_validation
from bundle.errors import InputError
from tests.phantom import affine_of, write_subject

SHAPE = (16, 20, 12)
AFFINE = affine_of(SHAPE, (5, 5, 5))
CONTRASTS = ["t1", "t1ce", "t2", "flair"]


def write(folder, *given):
    """Subjects s0, s1, ... with the contrasts given for each."""
    for number, contrasts in enumerate(given):
        write_subject(folder / f"s{number}", contrasts, SHAPE, AFFINE)


def names(items):
    return [item["subject"] for item in items]


def test_few_subjects_train_and_validate(tmp_path, caplog):
    write(tmp_path, CONTRASTS, ["t1", "t2"], ["t2"])
    training, validation = training_and_validation(str(tmp_path), CONTRASTS)
    assert names(training) == ["s0", "s1", "s2"]
    assert names(validation) == ["s0", "s1"]  # of a single contrast nothing can be hidden
    assert "3 subjects are too few to hold any back" in caplog.text
    assert "t1ce" in training[0] and "t1ce" not in training[1]


def test_a_tenth_validates(tmp_path):
    write(tmp_path, *[["t1", "flair"]] * 12)
    training, validation = training_and_validation(str(tmp_path), CONTRASTS)
    assert (len(training), len(validation)) == (11, 1)
    assert not set(names(training)) & set(names(validation))
    assert training_and_validation(str(tmp_path), CONTRASTS) == (training, validation)
    others = {names(training_and_validation(str(tmp_path), CONTRASTS, seed=seed)[1])[0] for seed in range(8)}
    assert len(others) > 1


def test_a_split_file_decides(tmp_path):
    write(tmp_path / "scans", *[["t1", "flair"]] * 4)
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"training": ["s0", "s3"], "validation": ["s1"], "test": ["s2"]}))
    training, validation = training_and_validation(str(tmp_path / "scans"), CONTRASTS, split_file=str(split))
    assert (names(training), names(validation)) == (["s0", "s3"], ["s1"])
    split.write_text(json.dumps({"training": ["s0", "s9"], "validation": ["s1"]}))
    with pytest.raises(InputError, match="not in the data"):
        training_and_validation(str(tmp_path / "scans"), CONTRASTS, split_file=str(split))


def test_a_subject_with_a_fault_is_left_out_and_named(tmp_path, caplog):
    write(tmp_path, ["t1", "flair"], ["t1", "flair"])
    (tmp_path / "s1" / "s1_t1.nii.gz").write_bytes(b"no NIfTI")
    with caplog.at_level(logging.WARNING):
        training, _ = training_and_validation(str(tmp_path), CONTRASTS)
    assert names(training) == ["s0"]
    (line,) = [record.message for record in caplog.records if "left out" in record.message]
    assert line.startswith("s1 is left out: ") and "s1_t1.nii.gz" in line


def test_nothing_to_train_on(tmp_path):
    write(tmp_path, ["t1", "flair"])
    for name in ("t1", "flair"):
        (tmp_path / "s0" / f"s0_{name}.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="no subject can be used"):
        training_and_validation(str(tmp_path), CONTRASTS)


def test_nothing_to_ask(tmp_path):
    write(tmp_path, ["t1"], ["flair"])
    with pytest.raises(InputError, match="no subject to validate on has two"):
        training_and_validation(str(tmp_path), CONTRASTS)


def test_contrasts_of_the_network_are_those_that_count(tmp_path):
    write(tmp_path, ["t1", "t2"], ["t1", "flair"])
    training, validation = training_and_validation(str(tmp_path), ["t1", "flair"])
    assert names(training) == ["s0", "s1"] and names(validation) == ["s1"]
    assert "t2" not in training[0]


def test_a_scan_that_is_replaced_changes_the_key_of_the_cache(tmp_path):
    write(tmp_path, ["t1", "flair"], ["t1", "flair"])
    before, _ = training_and_validation(str(tmp_path), CONTRASTS)
    scan = tmp_path / "s1" / "s1_t1.nii.gz"
    scan.write_bytes((tmp_path / "s0" / "s0_t1.nii.gz").read_bytes())
    os.utime(scan, ns=(1, 1))
    after, _ = training_and_validation(str(tmp_path), CONTRASTS)
    assert pickle_hashing(before[0]) == pickle_hashing(after[0])
    assert pickle_hashing(before[1]) != pickle_hashing(after[1])
