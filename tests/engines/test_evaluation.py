"""Scores that can be worked out by hand, what is written, and what happens where something is wrong."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.data import MetaTensor
from PIL import Image

from bundle.engines.evaluation import PROTOCOLS
from bundle.engines.scoring import Subject
from bundle.errors import InputError, input_error_in
from tests.engines.average import AverageNetwork
from tests.phantom import affine_of

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "evaluate.json"
STUB = {"_target_": "tests.engines.average.AverageNetwork", "contrasts": "@contrasts"}
SHAPE = (60, 76, 36)
BRAIN = (slice(6, 54), slice(6, 70), slice(6, 30))  # 48 x 64 x 24 voxels, on the network's grid already


def write_blocks(folder, contrasts=("t1", "t2", "flair"), bright=24, agree=48, dark=0):
    """A brain of two intensities, half of it each: T2 is T1 inverted; FLAIR is T1 in 3/4 of the brain, else T2.

    Args:
        bright: T1 is bright in the last so many of 48 sagittal slices.
        agree: FLAIR is T1 in the first so many of 64 coronal slices.
        dark: FLAIR is dark in the first so many of 24 axial slices.
    """
    folder.mkdir(parents=True)
    x, y, z = np.indices((48, 64, 24))
    t1 = x >= 48 - bright
    parts = {"t1": t1, "t2": ~t1, "flair": np.where(y < agree, t1, ~t1) & (z >= dark)}
    affine = affine_of(SHAPE, (1, 1, 1))
    for name in contrasts:
        volume = np.zeros(SHAPE, np.int16)
        volume[BRAIN] = np.where(parts[name], 300, 100)
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{folder.name}_{name}.nii.gz")


def db(mean_squared_error):
    return -10 * math.log10(mean_squared_error)


def configured(folder, **overrides):
    torch.save(AverageNetwork(["t1", "t1ce", "t2", "flair"]).state_dict(), folder / "model.pt")
    parser = ConfigParser()
    parser.read_config(CONFIG)
    weights = str(folder / "model.pt")
    places = {"dataset_dir": str(folder / "in"), "output_dir": str(folder / "out"), "weights": weights}
    parser.update({**places, "network_def": STUB, "amp": False, **overrides})
    return parser


def evaluate(folder, **overrides):
    evaluator = configured(folder, **overrides).get_parsed_content("evaluator")
    evaluator.run()
    return evaluator, {
        (row["subject"], row["protocol"], row["method"], *row["given"], row["target"]): row for row in evaluator.rows
    }


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Subjects a (three contrasts) and b (one), and a reference in which FLAIR is rather T2 than T1."""
    folder = tmp_path_factory.mktemp("scored")
    write_blocks(folder / "in" / "a")
    (folder / "in" / "a" / "a_seg.nii.gz").symlink_to(folder / "in" / "a" / "a_t1.nii.gz")  # not needed
    write_blocks(folder / "in" / "b", ["t1"])
    # there each contrast but T2 is dark in more than half of the brain: the darker half of a copy is all dark
    write_blocks(folder / "reference" / "c", bright=18, agree=16, dark=4)
    evaluator, rows = evaluate(folder, reference_dir=str(folder / "reference"))
    return folder, evaluator, rows


def test_network_scores(scored):
    _, _, rows = scored
    # the network's average is wrong by 1/2 where two given contrasts differ, by 1 where both do from the truth
    for key, error in {
        ("rest", "t2", "flair", "t1"): 3 / 4 * 1 / 4 + 1 / 4,
        ("rest", "t1", "flair", "t2"): 3 / 4 + 1 / 4 * 1 / 4,
        ("rest", "t1", "t2", "flair"): 1 / 4,
        ("single", "t2", "t1"): 1,
        ("single", "flair", "t1"): 1 / 4,
        ("single", "t1", "t2"): 1,
        ("single", "flair", "t2"): 3 / 4,
        ("single", "t1", "flair"): 1 / 4,
        ("single", "t2", "flair"): 3 / 4,
    }.items():
        protocol, *names = key
        row = rows[("a", protocol, "network", *names)]
        assert row["psnr"] == pytest.approx(db(error), abs=1e-6), key
    assert len(rows) == 9 * 3  # three methods; nothing of subject b
    assert rows["a", "single", "network", "t1", "flair"]["ssim"] > rows["a", "single", "network", "t2", "flair"]["ssim"]


def test_floors(scored):
    _, evaluator, rows = scored
    assert evaluator.floor.correlations["t1", "flair"] < 0 < evaluator.floor.correlations["t2", "flair"]

    def row(method, *names, protocol="single"):
        return rows[("a", protocol, method, *names)]

    # the oracle knows that T2 is T1 inverted and that FLAIR is rather T1
    assert row("copy_oracle", "t2", "t1")["source"] == "t2 inverted"
    assert math.isinf(row("copy_oracle", "t2", "t1")["psnr"]) and row("copy_oracle", "t2", "t1")["ssim"] == 1
    assert row("copy_oracle", "t1", "flair")["source"] == "t1"
    assert row("copy_oracle", "t1", "flair")["psnr"] == pytest.approx(db(1 / 4), abs=1e-6)
    assert row("copy_oracle", "t2", "flair")["source"] == "t2 inverted"
    # the copy believes the reference, where FLAIR is rather T2
    assert row("copy", "t2", "t1")["source"] == "t2 inverted" and math.isinf(row("copy", "t2", "t1")["psnr"])
    assert row("copy", "t1", "flair")["source"] == "t1 inverted"
    assert row("copy", "t1", "flair")["psnr"] == pytest.approx(db(3 / 4), abs=1e-3)
    assert row("copy", "t2", "flair", "t1", protocol="rest")["source"] == "t2 inverted"


def test_files(scored):
    folder, evaluator, rows = scored
    out = folder / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "a/a_evaluation.png", "results.csv", "results.json", "summary.csv", "summary.json", "tables.md"
    ]  # fmt: skip
    report = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert report["results"] == evaluator.rows and report["reference_subjects"] == ["c"]
    assert (report["mode"], report["seed"], report["network"]) == ("mean", 0, "AverageNetwork")
    assert len(report["weights_sha256"]) == 64 and report["weights"] == str(folder / "model.pt")
    assert "inside the brain" in report["convention"] and set(report["methods"]) == {"network", "copy", "copy_oracle"}
    table = list(csv.DictReader((out / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert len(table) == len(rows)
    assert [float(line["psnr"]) for line in table] == [row["psnr"] for row in evaluator.rows]
    assert {line["given"] for line in table} >= {"t1 t2", "flair"}

    text = (out / "tables.md").read_text(encoding="utf-8").splitlines()
    assert text[0] == "# Evaluation of 1 subject"
    assert any("inside the brain" in line for line in text)
    network = {
        section: next(line for line in text[text.index(title) :] if line.startswith("| flair"))
        for section, title in ((name, f"## {name}: {meaning}") for name, meaning in PROTOCOLS.items())
    }
    assert f"| {db(1 / 4):.2f} dB / " in network["rest"]
    assert f"| {(db(1 / 4) + db(3 / 4)) / 2:.2f} dB / " in network["single"]

    picture = np.asarray(Image.open(out / "a" / "a_evaluation.png").convert("L"))
    assert picture.shape == (1080, 960) and picture.std() > 30


def test_subject_with_one_contrast_fails_alone(scored):
    folder, evaluator, _ = scored
    assert [(record["subject"], record["status"]) for record in evaluator.records] == [("a", "done"), ("b", "failed")]
    assert evaluator.records[1]["reason"].startswith("has no two contrasts")
    with pytest.raises(SystemExit) as leaving:
        evaluator.exit_on_failure()
    assert leaving.value.code == 1


def test_region_mask_is_not_hidden():
    stack = torch.arange(1, 9).float()[:, None, None, None].expand(8, 4, 4, 4).clone()  # 2 + 2 channels, 4 of regions
    subject = Subject({"image": MetaTensor(stack), "brain": MetaTensor(torch.ones(1, 4, 4, 4))}, ["t1", "t2"])
    assert subject.hide(["t2"])[:, 0, 0, 0].tolist() == [0, 2, 0, 4, 5, 6, 7, 8]
    assert torch.equal(subject.stack, stack)


def test_copy_sees_no_truth(tmp_path, scored):
    folder, _, before = scored
    write_blocks(tmp_path / "in" / "a", agree=0)  # another FLAIR
    _, after = evaluate(tmp_path, reference_dir=str(folder / "reference"), protocol="single")
    for source in ("t1", "t2"):
        key = ("a", "single", "copy", source, "flair")
        assert after[key]["source"] == before[key]["source"]
        assert before[key]["psnr"] == pytest.approx(db(3 / 4), abs=1e-3) and math.isinf(after[key]["psnr"])


def test_hidden_contrasts_are_not_seen(tmp_path, monkeypatch):
    seen = []
    forward = AverageNetwork.forward

    def spy(self, x):
        seen.append((x[:, :4].amax((0, 2, 3)).tolist(), x[:, 4:].amax((0, 2, 3)).tolist(), self.targets))
        return forward(self, x)

    monkeypatch.setattr(AverageNetwork, "forward", spy)
    write_blocks(tmp_path / "in" / "a")
    _, rows = evaluate(tmp_path, protocol=["rest"], batch_size=24)
    assert seen == [
        ([0, 0, 1, 1], [0, 0, 1, 1], (0,)), ([1, 0, 0, 1], [1, 0, 0, 1], (2,)), ([1, 0, 1, 0], [1, 0, 1, 0], (3,))
    ]  # fmt: skip
    assert {key[2] for key in rows} == {"network", "copy_oracle"}  # no reference, no copy


def test_two_contrasts_are_synthesised_once(tmp_path, monkeypatch):
    calls = []
    forward = AverageNetwork.forward
    monkeypatch.setattr(AverageNetwork, "forward", lambda self, x: calls.append(1) or forward(self, x))
    write_blocks(tmp_path / "in" / "a", ["t1", "flair"])
    _, rows = evaluate(tmp_path, batch_size=24)
    assert len(calls) == 2 and len(rows) == 8
    assert rows["a", "rest", "network", "t1", "flair"]["psnr"] == rows["a", "single", "network", "t1", "flair"]["psnr"]


def test_roles(tmp_path):
    write_blocks(tmp_path / "in" / "a")
    evaluator, _ = evaluate(tmp_path, registry={"t2": {"role": "input"}, "flair": {"role": "target"}})
    assert evaluator.tasks(["t1", "t2", "flair"]) == {
        (("t2",), "t1"): ["rest", "single"],
        (("t1", "t2"), "flair"): ["rest"],
        (("t1",), "flair"): ["single"],
        (("t2",), "flair"): ["single"],
    }


def test_split_and_reference_parts(tmp_path):
    for name in ("a", "b", "c", "d"):
        write_blocks(tmp_path / "in" / name)
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"training": ["a", "b"], "test": ["c"]}))
    same = {"dataset_dir": str(tmp_path / "in"), "reference_dir": str(tmp_path / "in"), "split_file": str(split)}

    def parts(**overrides):
        parser = configured(tmp_path, **same, **overrides)
        return [
            [item["subject"] for item in parser.get_parsed_content(id)] for id in ("dataset::data", "reference::data")
        ]

    assert parts() == [["c"], ["a", "b", "d"]]  # whatever is evaluated is no reference
    assert parts(reference_part="training") == [["c"], ["a", "b"]]
    assert parts(split_part="training") == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"split_file": "{folder}/split.json"}, "split.json: the split's test part is empty. "),
        ({"split_file": "{folder}/split.json", "split_part": "tests"}, "'tests' is no part of a split"),
        ({"reference_dir": "{folder}/nowhere"}, "nowhere: does not exist. "),
        ({"reference_dir": "{folder}/in"}, "in: holds no usable subject but those that are evaluated. "),
        ({"reference_dir": "{folder}/in", "reference_part": "training"}, "reference_part is given, but no split"),
        ({"protocol": ["all"]}, "protocol is ['all']. Use --protocol with some of rest, single"),
        ({"mode": "best"}, "mode 'best' is unknown"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: the file with the network's weights is missing"),
        ({"output_dir": "{folder}/in/out"}, "lies inside the input folder"),
    ],
)
def test_faults_at_the_start(tmp_path, overrides, line):
    write_blocks(tmp_path / "in" / "a")
    (tmp_path / "split.json").write_text('{"training": ["a"]}')
    overrides = {k: v.format(folder=tmp_path) if isinstance(v, str) else v for k, v in overrides.items()}
    with pytest.raises((InputError, RuntimeError)) as error:  # MONAI wraps what is raised in a config
        evaluate(tmp_path, **overrides)
    fault = input_error_in(error.value)
    assert fault is not None and line in str(fault)


def test_config_agrees_with_inference():
    """What is scored is what `inference` does. (Written twice: a macro over files depends on the working folder.)"""
    evaluation, inference = (
        ConfigParser.load_config_file(ROOT / "configs" / f"{name}.json") for name in ("evaluate", "inference")
    )
    own = {"output_dir", "dataset", "options", "preprocessing", "evaluator", "run"}
    for key in set(evaluation) & set(inference) - own:
        assert evaluation[key] == inference[key], key
    chains = [
        [step["_target_"] for step in config["preprocessing"]["transforms"]] for config in (evaluation, inference)
    ]
    assert chains[0] == chains[1]


def test_properties(tmp_path, scored, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which the config replaces
    folder, *_ = scored
    workflow = create_workflow(
        workflow_name=ConfigWorkflow,
        config_file=str(CONFIG),
        workflow_type="infer",
        bundle_root=str(ROOT),
        dataset_dir=str(folder / "in"),
        output_dir=str(tmp_path / "out"),
        weights=str(folder / "model.pt"),
        network_def=STUB,
    )
    assert workflow.check_properties() == []


def test_command_from_another_folder(tmp_path):
    """The command with the U-Net's override file, run outside the bundle's root."""
    from bundle.networks.unet_regression import UNetRegression

    write_blocks(tmp_path / "in" / "a b", ["t1", "t2"])
    network = UNetRegression(["t1", "t1ce", "t2", "flair"], (8, 8, 8, 8, 8, 8))
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    files = [str(CONFIG), str(ROOT / "configs" / "baselines" / "unet_network.json")]
    process = subprocess.run(
        [*(sys.executable, "-m", "monai.bundle", "run", "evaluation", "--config_file", str(files)),
         *("--bundle_root", str(tmp_path), "--unet_features", "[8,8,8,8,8,8]", "--protocol", "rest"),
         *("--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, encoding="utf-8", capture_output=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert "[1/1] a b: t1, t2 done" in process.stdout
    assert "no --reference_dir is given: the floor 'copy' is left out" in process.stdout + process.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert report["network"] == "UNetRegression" and len(report["results"]) == 4
    assert (tmp_path / "out" / "tables.md").read_text(encoding="utf-8").startswith("# Evaluation of 1 subject\n")
