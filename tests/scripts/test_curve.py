"""The learning curve, with the tiny configuration on phantoms."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch

from bundle.errors import InputError
from scripts import curve
from tests.phantom import affine_of, write_subject

SHAPE = (64, 84, 16)
MLP = [str(curve.CONFIGS / f"{name}.json") for name in ("baselines/voxel_mlp_network", "baselines/unet", "tiny")]


@pytest.fixture
def words(tmp_path):
    for name in "abc":
        write_subject(tmp_path / "in" / name, ["t1", "t2", "flair"], SHAPE, affine_of(SHAPE, (1, 1, 1)))
    split = {"training": ["a", "b"], "validation": [], "test": ["c"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    (tmp_path / "small.json").write_text('{"subjects_per_batch": 1, "slices_per_subject": 1, "visits_per_epoch": 3}')

    def words(*further):
        places = {"dataset_dir": "in", "split_file": "split.json", "output_dir": "out"}
        options = [word for key, value in places.items() for word in (f"--{key}", str(tmp_path / value))]
        return [*options, "--run", "mlp", *MLP, str(tmp_path / "small.json"), *further]

    return words


def test_a_curve(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(curve.CONFIGS.parent)
    options = words("--minutes", "0.03", "0.08")
    curve.main(options)
    with open(tmp_path / "out" / "curve.csv", encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    assert [(point["minutes"], point["target"]) for point in points] == [
        (minutes, target) for minutes in ("0.03", "0.08") for target in ("flair", "t2", "t1", "mean")
    ]
    early, late = points[3], points[7]
    assert 0 < int(early["steps"]) < int(late["steps"])
    assert all(math.isfinite(float(point["psnr"])) for point in points)
    assert float(early["psnr"]) == pytest.approx(sum(float(point["psnr"]) for point in points[:3]) / 3)
    states = [torch.load(curve.weights_at(tmp_path / "out" / "mlp", m), weights_only=True) for m in (0.03, 0.08)]
    assert not torch.equal(*(state["perceptrons.0.0.weight"] for state in states))
    assert (tmp_path / "out" / "curve.png").stat().st_size > 10_000
    results = json.loads((tmp_path / "out" / "mlp" / "model_0.08_minutes" / "results.json").read_text())["results"]
    assert {row["subject"] for row in results} == {"c"}
    # the same command again repeats nothing
    monkeypatch.setattr(curve, "stage_of", None)
    first = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mlp: ")]
    curve.main(options)
    assert capsys.readouterr().out.splitlines() == first and first[1].startswith("mlp: 0.08 min, ")
    with pytest.raises(InputError, match="holds a run with other options"):
        curve.main(words("--minutes", "0.03"))
    (tmp_path / "out" / "mlp" / "run.json").unlink()
    with pytest.raises(InputError, match="holds no complete run"):
        curve.main(options)


@pytest.mark.parametrize(
    ("further", "fault"),
    [
        (("--minutes", "0", "1"), "--minutes 0 is no time"),
        (("--minutes", "1", "--run", "mlp"), "--run mlp is no name of its own"),
        (("--minutes", "1", "--run", "../x"), r"--run ../x is no name of its own"),
    ],
)
def test_options_that_are_refused(words, further, fault):
    with pytest.raises(InputError, match=fault):
        curve.parse(words(*further))


def test_subjects_that_are_held_out(words, tmp_path):
    (tmp_path / "out").mkdir()
    options = curve.parse(words("--minutes", "1", "--part", "b"))
    split = json.loads(curve.split_for(options).read_text())
    assert split == {"training": ["a"], "validation": ["b"], "test": ["c"], "without": {}}
    with pytest.raises(InputError, match="c is not in the split's training part"):
        curve.split_for(curve.parse(words("--minutes", "1", "--part", "c")))
    assert curve.split_for(curve.parse(words("--minutes", "1"))) == tmp_path / "split.json"


def test_the_learning_rate_follows_the_time():
    assert [curve.factor(share) for share in (0, 0.025, 0.05, 1, 2)] == [0, 0.5, 1, 0, 0]
    assert curve.factor(0.525) == pytest.approx(0.5)


def test_summary():
    rows = [
        {"target": "t2", "psnr": 16.0, "correlation": 0.5, "csf_error": -0.3},
        {"target": "t2", "psnr": 18.0, "correlation": 0.7, "csf_error": 0.1},
        {"target": "t1", "psnr": 20.0, "correlation": 0.9},
    ]
    found = curve.summary(rows)
    assert found["t2"] == pytest.approx({"psnr": 17, "correlation": 0.6, "csf_error": 0.2})
    assert math.isnan(found["t1"]["csf_error"])
    assert found["mean"] == pytest.approx({"psnr": 18.5, "correlation": 0.75, "csf_error": 0.2})


def test_the_stage(monkeypatch):
    monkeypatch.chdir(curve.CONFIGS.parent)
    parser = curve.read("train.json", [], {})
    monkeypatch.setattr(parser, "get_parsed_content", lambda name: name)
    assert curve.stage_of(parser, None) == "disentanglement"
    assert curve.stage_of(parser, "train::trainer") == "train::trainer"
    with pytest.raises(InputError, match="no stage 'other' in the training. Use --stage with one of autoencoder, "):
        curve.stage_of(parser, "other")
