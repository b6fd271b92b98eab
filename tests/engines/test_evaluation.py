"""Scores that can be worked out by hand, what is written, and what happens where something is wrong."""

import csv
import hashlib
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

from bundle.engines.evaluation import finite
from bundle.engines.scoring import Scorer, Subject
from bundle.errors import InputError, input_error_in
from bundle.metrics.conventions import CONVENTIONS
from bundle.metrics.measures import MEASURES
from tests.engines.average import AverageNetwork
from tests.networks.baselines.models import small
from tests.phantom import affine_of

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "evaluate.json"
TWO_LEVELS = {"flair": {"intensity": {"percentiles": [0.5, 99.5]}}}  # a brain of two intensities has no usual median
STUB = {"_target_": "tests.engines.average.AverageNetwork", "contrasts": "@contrasts"}
SHAPE = (60, 76, 36)
BRAIN = (slice(6, 54), slice(6, 70), slice(6, 30))  # 48 x 64 x 24 voxels, on the network's grid already


def write_blocks(folder, contrasts=("t1", "t2", "flair"), bright=24, agree=48, dark=0, lesion=None):
    """A brain of two intensities, half of it each: T2 is T1 inverted; FLAIR is T1 in 3/4 of the brain, else T2.

    Args:
        bright: T1 is bright in the last so many of 48 sagittal slices.
        agree: FLAIR is T1 in the first so many of 64 coronal slices.
        dark: FLAIR is dark in the first so many of 24 axial slices.
        lesion: labelled in the first so many of 64 coronal slices; None: there is no label.
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
    if lesion is not None:
        label = np.zeros(SHAPE, np.uint8)
        label[BRAIN] = y < lesion
        nib.save(nib.Nifti1Image(label, affine), folder / f"{folder.name}_seg.nii.gz")


def db(mean_squared_error):
    return -10 * math.log10(mean_squared_error)


def configured(folder, **overrides):
    torch.save(AverageNetwork(["t1", "t1ce", "t2", "flair"]).state_dict(), folder / "model.pt")
    parser = ConfigParser()
    parser.read_config(CONFIG)
    weights = str(folder / "model.pt")
    places = {"dataset_dir": str(folder / "in"), "output_dir": str(folder / "out"), "weights": weights}
    fixed = {"network_def": STUB, "registry": TWO_LEVELS, "amp": False, "measures": ["psnr", "ssim"]}
    parser.update({**places, **fixed, **overrides})
    return parser


def evaluate(folder, **overrides):
    evaluator = configured(folder, **overrides).get_parsed_content("evaluator")
    evaluator.run()
    return evaluator, {(row["subject"], row["method"], *row["given"], row["target"]): row for row in evaluator.rows}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Subjects a (three contrasts, a lesion) and b (one contrast), and a reference where FLAIR is rather T2 than T1."""
    folder = tmp_path_factory.mktemp("scored")
    write_blocks(folder / "in" / "a", lesion=16)
    write_blocks(folder / "in" / "b", ["t1"])
    # there each contrast but T2 is dark in more than half of the brain: the darker half of a copy is all dark
    write_blocks(folder / "reference" / "c", bright=18, agree=16, dark=4)
    chosen = ["psnr", "ssim", "mae_lesion", "psnr_outside", "psnr_volume"]
    evaluator, rows = evaluate(folder, reference_dir=str(folder / "reference"), measures=chosen)
    return folder, evaluator, rows


def test_network_scores(scored):
    _, _, rows = scored
    # the network's average is wrong by 1/2 where two given contrasts differ, by 1 where both do from the truth
    for names, error in {
        ("t2", "flair", "t1"): 3 / 4 * 1 / 4 + 1 / 4,
        ("t1", "flair", "t2"): 3 / 4 + 1 / 4 * 1 / 4,
        ("t1", "t2", "flair"): 1 / 4,
        ("t2", "t1"): 1,
        ("flair", "t1"): 1 / 4,
        ("t1", "t2"): 1,
        ("flair", "t2"): 3 / 4,
        ("t1", "flair"): 1 / 4,
        ("t2", "flair"): 3 / 4,
    }.items():
        row = rows[("a", "network", *names)]
        assert row["psnr"] == pytest.approx(db(error), abs=1e-6), names
        assert (row["given"], row["available"], row["source"]) == (list(names[:-1]), len(names) - 1, "")
    assert len(rows) == 9 * 3  # three methods; nothing of subject b
    assert rows["a", "network", "t1", "flair"]["ssim"] > rows["a", "network", "t2", "flair"]["ssim"]


def test_regions(scored):
    _, _, rows = scored
    # of 64 coronal slices FLAIR is T1 in the first 48, and the lesion lies in the first 16
    row = rows["a", "network", "t1", "flair"]
    assert row["mae_lesion"] == 0 and row["psnr_outside"] == pytest.approx(db(16 / 48), abs=1e-6)
    brain, volume = 48 * 64 * 24, 192 * 192 * 36
    assert row["psnr_volume"] == pytest.approx(db(brain / volume / 4), abs=1e-4)
    row = rows["a", "network", "t2", "flair"]
    assert row["mae_lesion"] == 1 and row["psnr_outside"] == pytest.approx(db(32 / 48), abs=1e-6)


def test_floors(scored):
    _, evaluator, rows = scored
    assert evaluator.floor.correlations["t1", "flair"] < 0 < evaluator.floor.correlations["t2", "flair"]

    def row(method, *names):
        return rows[("a", method, *names)]

    # the oracle knows that T2 is T1 inverted and that FLAIR is rather T1
    assert row("copy_oracle", "t2", "t1")["source"] == "t2 inverted"
    assert math.isinf(row("copy_oracle", "t2", "t1")["psnr"]) and row("copy_oracle", "t2", "t1")["ssim"] == 1
    assert row("copy_oracle", "t1", "flair")["source"] == "t1"
    assert row("copy_oracle", "t1", "flair")["psnr"] == pytest.approx(db(1 / 4), abs=1e-6)
    assert row("copy_oracle", "t1", "flair")["mae_lesion"] == 0
    assert row("copy_oracle", "t2", "flair")["source"] == "t2 inverted"
    # the copy believes the reference, where FLAIR is rather T2
    assert row("copy", "t2", "t1")["source"] == "t2 inverted" and math.isinf(row("copy", "t2", "t1")["psnr"])
    assert row("copy", "t1", "flair")["source"] == "t1 inverted"
    assert row("copy", "t1", "flair")["psnr"] == pytest.approx(db(3 / 4), abs=1e-3)
    assert row("copy", "t2", "flair", "t1")["source"] == "t2 inverted"


def test_each_copy_is_scored_once(tmp_path, monkeypatch):
    calls = []
    call = Scorer.__call__
    monkeypatch.setattr(Scorer, "__call__", lambda self, *args: calls.append(args[2]) or call(self, *args))
    write_blocks(tmp_path / "in" / "a")
    write_blocks(tmp_path / "reference" / "c")
    _, rows = evaluate(tmp_path, reference_dir=str(tmp_path / "reference"), measures="psnr")
    copies = {(row["method"], row["source"], row["target"]) for row in rows.values() if row["source"]}
    assert len(rows) == 9 * 3 and len(calls) == 9 + len(copies)


def test_files(scored):
    folder, evaluator, rows = scored
    out = folder / "out"
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} >= {
        "a/a_evaluation.png", "results.csv", "results.json", "summary.csv", "summary.json", "tables.md"
    }  # fmt: skip
    # valid JSON: the infinite PSNR of a copy that equals the truth, which JSON does not know, is null
    report = json.loads((out / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    rows_in_json = [{k: None if v == math.inf else v for k, v in row.items()} for row in evaluator.rows]
    assert report["results"] == rows_in_json != evaluator.rows and report["reference_subjects"] == ["c"]
    assert (report["mode"], report["seed"], report["network"]) == ("mean", 0, "AverageNetwork")
    assert len(report["weights_sha256"]) == 64 and report["weights"] == str(folder / "model.pt")
    assert report["convention"] == "truth" and set(report["methods"]) == {"network", "copy", "copy_oracle"}
    assert report["measures"]["psnr"] == MEASURES["psnr"].meaning and list(report["protocol"]) == ["subsets"]
    flair = (folder / "in" / "a" / "a_flair.nii.gz").read_bytes()
    assert report["inputs_sha256"]["a"]["flair"] == hashlib.sha256(flair).hexdigest()
    assert report["inputs_sha256"]["a"].keys() == {"t1", "t2", "flair", "label"}
    assert report["calibration"] is report["fid"] is None
    table = list(csv.DictReader((out / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(line["mae_lesion"]) for line in table] == [row["mae_lesion"] for row in evaluator.rows]
    assert {line["given"] for line in table} >= {"t1 t2", "flair"} and len(table) == len(rows)

    text = (out / "tables.md").read_text(encoding="utf-8")
    assert text.startswith("# Evaluation of 1 subject\n") and text.count(CONVENTIONS["truth"]) == 4
    assert all(line in text for line in (f"- {name}: " for name in report["methods"]))

    picture = np.asarray(Image.open(out / "a" / "a_evaluation.png").convert("L"))
    assert picture.std() > 30


def test_subject_with_one_contrast_fails_alone(scored):
    folder, evaluator, _ = scored
    assert [(record["subject"], record["status"]) for record in evaluator.records] == [("a", "done"), ("b", "failed")]
    assert evaluator.records[1]["reason"].startswith("has no two contrasts")
    with pytest.raises(SystemExit) as leaving:
        evaluator.exit_on_failure()
    assert leaving.value.code == 1


def test_json_knows_no_infinity():
    assert finite({"a": [1.5, math.inf, ("b", -math.inf)], "c": math.nan, "d": 3}) == {
        "a": [1.5, None, ["b", None]], "c": None, "d": 3
    }  # fmt: skip


def test_region_mask_is_not_hidden():
    stack = torch.arange(1, 9).float()[:, None, None, None].expand(8, 4, 4, 4).clone()  # 2 + 2 channels, 4 of regions
    brain = MetaTensor(torch.ones(1, 4, 4, 4))
    label = {"regions": torch.zeros(3, 4, 4, 4), "valid": torch.zeros(3)}
    subject = Subject({"image": MetaTensor(stack), "brain": brain, **label}, ["t1", "t2"])
    assert subject.hide(["t2"])[:, 0, 0, 0].tolist() == [0, 2, 0, 4, 5, 6, 7, 8]
    assert torch.equal(subject.stack, stack) and "lesion" not in subject.regions


def test_slices_without_truth_do_not_count():
    rng = torch.Generator().manual_seed(0)
    images, presence = torch.rand(2, 12, 12, 12, generator=rng), torch.ones(2, 12, 12, 12)
    images[1, ..., :4] = presence[1, ..., :4] = 0
    data = {"image": MetaTensor(torch.cat([images, presence])), "brain": MetaTensor(torch.ones(1, 12, 12, 12))}
    subject = Subject({**data, "regions": torch.zeros(3, 12, 12, 12), "valid": torch.zeros(3)}, ["t1", "t2"])
    pred = (images[1] + 0.1).clamp(0, 1)
    found = Scorer(["psnr", "mae"])(pred, subject, "t2")
    pred[..., :4] = 0.9
    assert Scorer(["psnr", "mae"])(pred, subject, "t2") == found
    pred[..., 4] = 0.9
    assert Scorer(["mae"])(pred, subject, "t2")["mae"] > found["mae"]


def test_copy_sees_no_truth(tmp_path, scored):
    folder, _, before = scored
    write_blocks(tmp_path / "in" / "a", agree=0)  # another FLAIR
    _, after = evaluate(tmp_path, reference_dir=str(folder / "reference"), protocol="single", measures="psnr")
    for source in ("t1", "t2"):
        key = ("a", "copy", source, "flair")
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
    _, rows = evaluate(tmp_path, batch_size=24)
    absent = [(0, 2, 3), (0, 2), (0, 3), (2, 3), (0,), (2,), (3,)]  # of the channels there are, all but these are given
    given = [[int(channel in {0, 2, 3} - set(targets)) for channel in range(4)] for targets in absent[1:]]
    assert sorted(seen) == sorted((shown, shown, targets) for shown, targets in zip(given, absent[1:], strict=True))
    assert {key[1] for key in rows} == {"network", "copy_oracle"}  # no reference, no copy


@pytest.mark.parametrize(("number", "subsets", "pairs"), [(4, 14, 28), (3, 6, 9), (2, 2, 2), (1, 0, 0)])
def test_all_targets_of_a_subset_are_one_task(tmp_path, number, subsets, pairs):
    names = ["t1", "t1ce", "t2", "flair"][:number]
    write_blocks(tmp_path / "in" / "a", ["t1"])
    evaluator = configured(tmp_path).get_parsed_content("evaluator")
    tasks = evaluator.tasks(dict.fromkeys(names))
    assert len(tasks) == subsets and sum(map(len, tasks.values())) == pairs
    assert all({*given, *targets} == set(names) and not {*given} & {*targets} for given, targets in tasks.items())


@pytest.mark.parametrize(
    ("protocol", "tasks"),
    [
        ("rest", {("t2",): ["t1"], ("t1", "t2"): ["flair"]}),
        ("single", {("t1",): ["flair"], ("t2",): ["t1", "flair"]}),
        (["single", "rest"], {("t1",): ["flair"], ("t2",): ["t1", "flair"], ("t1", "t2"): ["flair"]}),
    ],
)
def test_roles_and_protocols(tmp_path, protocol, tasks):
    write_blocks(tmp_path / "in" / "a", ["t1"])
    registry = {"t2": {"role": "input"}, "flair": {"role": "target"}}
    evaluator = configured(tmp_path, registry=registry, protocol=protocol).get_parsed_content("evaluator")
    assert evaluator.tasks(dict.fromkeys(["t1", "t2", "flair"])) == tasks


def test_mask_and_label_on_another_grid(tmp_path):
    """Voxels of 2 mm, the lower half of the brain: a line says that the mask is not used; the label is."""
    write_blocks(tmp_path / "in" / "a", ["t1", "t2"])
    lower = np.zeros([side // 2 for side in SHAPE], np.uint8)
    lower[3:27, 3:35, 3:9] = 1
    affine = affine_of(SHAPE, (1, 1, 1)) @ np.diag([2.0, 2, 2, 1])
    affine[:3, 3] += 0.5  # the corners of both grids are in one place
    for name in ("brain_mask", "seg"):
        nib.save(nib.Nifti1Image(lower, affine), tmp_path / "in" / "a" / f"a_{name}.nii.gz")
    evaluator, rows = evaluate(tmp_path, measures=["psnr", "psnr_volume"])
    (told,) = [line for line in evaluator.records[0]["warnings"] if "not used" in line]
    assert told.startswith("mask not used: ") and "a_brain_mask.nii.gz: is not where the scans" in told
    row = rows["a", "network", "t1", "t2"]  # wrong by 1 in all of the brain
    assert row["psnr"] == pytest.approx(0, abs=1e-6)
    assert row["psnr_volume"] == pytest.approx(db(48 * 64 * 24 / (192 * 192 * 36)), abs=1e-4)
    subject = Subject(evaluator.dataset[0], evaluator.options.contrasts)
    assert subject.regions["lesion"].sum() == 48 * 64 * 12


def test_convention(tmp_path):
    """A prediction with half of the truth's contrast: "own" forgives that, for the measures that follow it."""
    write_blocks(tmp_path / "in" / "a", ["t1", "t2"])
    same = {"measures": ["psnr", "psnr_volume"], "protocol": "rest", "overwrite": True}
    state = AverageNetwork(["t1", "t1ce", "t2", "flair"])
    state.gain.data *= 0.5
    for convention, expected in {"truth": 1 / 2 + 1 / 8, "own": 1.0}.items():
        parser = configured(tmp_path, convention=convention, **same)
        torch.save(state.state_dict(), tmp_path / "model.pt")
        evaluator = parser.get_parsed_content("evaluator")
        evaluator.run()
        row = evaluator.rows[0]
        assert row["psnr"] == pytest.approx(db(expected), abs=1e-6)
        assert row["psnr_volume"] == pytest.approx(db((1 / 2 + 1 / 8) * 48 * 64 * 24 / (192 * 192 * 36)), abs=1e-4)
        assert CONVENTIONS[convention] in (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")


def test_networks_of_the_user(tmp_path):
    """LPIPS and FID by TorchScript files: a squared difference, and the mean and deviation of a slice."""

    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).square().mean((1, 2, 3))

    class Features(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1)

    write_blocks(tmp_path / "in" / "a", ["t1", "t2"])
    torch.jit.script(Distance()).save(str(tmp_path / "lpips.pt"))
    torch.jit.script(Features()).save(str(tmp_path / "fid.pt"))
    files = {"lpips_weights": str(tmp_path / "lpips.pt"), "fid_weights": str(tmp_path / "fid.pt")}
    _, rows = evaluate(tmp_path, measures=["psnr", "lpips"], **files)
    # all of the brain is wrong by 2 in [-1, 1], and it is 48 x 64 of 192 x 192 voxels of a slice
    assert rows["a", "network", "t1", "t2"]["lpips"] == pytest.approx(4 * 48 * 64 / 192**2, rel=1e-5)
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["fid"].keys() == {"t1", "t2"} and report["fid"]["t1"] == pytest.approx(0, abs=1e-6)
    assert report["fid_weights"] == files["fid_weights"]


def test_calibration(tmp_path):
    write_blocks(tmp_path / "in" / "a", ["t1", "t2"])
    evaluate(tmp_path, mode="sample", num_samples=3, num_steps=2)
    found = json.loads((tmp_path / "out" / "results.json").read_text())["calibration"]
    assert found.keys() == {"t1", "t2"} and found["t1"]["voxels"] == 48 * 64 * 24


def test_segmenter_and_gates(tmp_path):
    """A tiny MSG-LDM whose own branch segments: it sees the synthesis in the place of the real contrast."""
    write_blocks(tmp_path / "in" / "a", ["t1", "t2"], lesion=16)
    parser = ConfigParser()
    parser.read_config([CONFIG, ROOT / "configs" / "tiny.json"])
    places = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
    weights = str(tmp_path / "model.pt")
    parser.update({**places, "weights": weights, "segmenter": "branch", "measures": "psnr", "amp": False})
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    evaluator = parser.get_parsed_content("evaluator")
    calls = []
    measures = evaluator.downstream.measures
    evaluator.downstream.measures = lambda stack, *truth: calls.append(stack) or measures(stack, *truth)
    evaluator.run()
    assert [record["status"] for record in evaluator.records] == ["done"]
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    rows = {(row["method"], row["target"]): row for row in report["results"]}
    real = rows["real", "t1"]
    assert {**real, "given": ["t1"], "target": "t2"} == rows["real", "t2"]
    assert real["dice"] == real["dice_wt"] and 0 <= real["dice"] <= 1 and "psnr" not in real and "dice_tc" not in real
    assert all("dice" in row for row in rows.values()) and report["measures"].keys() >= {"psnr", "dice", "hd95_wt"}
    # the real stack, then a synthesis and a copy of each: where T2 is T1 inverted, the oracle's copy is the truth
    changed = [[c for c in range(8) if not torch.equal(stack[c], calls[0][c])] for stack in calls]
    assert changed == [[], [2], [], [0], []] and rows["copy_oracle", "t2"]["dice"] == real["dice"]
    assert {(tuple(row["given"]), row["source"]) for row in report["gates"]} == {(("t1",), "t1"), (("t2",), "t2")}
    text = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    assert f"| 1 | real | - | {real['dice']:.3f} ± - |" in text and "## Which scan told it what" in text


def test_other_results_are_left_alone(tmp_path):
    write_blocks(tmp_path / "in" / "a", ["t1", "t2"])
    same = {"measures": "psnr", "protocol": "rest"}
    evaluate(tmp_path, **same)
    file = tmp_path / "out" / "results.json"
    before = file.read_bytes()
    evaluate(tmp_path, **same)  # the same run again
    for change, line in (({"seed": 1}, "seed differ"), ({"convention": "max"}, "convention differ")):
        with pytest.raises(InputError, match=f"results.json: results of another run: {line}. Use another --output_dir"):
            evaluate(tmp_path, **same, **change)
    write_blocks(tmp_path / "in" / "b", ["t1", "t2"])
    with pytest.raises(InputError, match="inputs_sha256 differ"):
        evaluate(tmp_path, **same)
    assert json.loads(file.read_bytes())["inputs_sha256"].keys() == json.loads(before)["inputs_sha256"].keys() == {"a"}
    evaluate(tmp_path, **same, overwrite="true")
    assert json.loads(file.read_text())["inputs_sha256"].keys() == {"a", "b"}
    file.write_text("{")
    with pytest.raises(InputError, match="results of another run"):
        evaluate(tmp_path, **same)


def test_missing_truth_is_said_once(tmp_path):
    write_blocks(tmp_path / "in" / "a")
    write_blocks(tmp_path / "reference" / "c", ["t1", "t2"])
    evaluator, rows = evaluate(tmp_path, reference_dir=str(tmp_path / "reference"), measures="psnr")
    assert evaluator.records[0]["warnings"] == [
        "t1ce: there is no truth, and so no score",
        "floor copy: no reference subject has both flair and one of t1",
        "floor copy: no reference subject has both t1 and one of flair",
        "floor copy: no reference subject has both t2 and one of flair",
    ]
    assert {key[1:] for key in rows if "copy" in key} == {
        ("copy", "t1", "t2"), ("copy", "t2", "t1"), ("copy", "t1", "flair", "t2"), ("copy", "t2", "flair", "t1")
    }  # fmt: skip


@pytest.mark.parametrize(("what", "file"), [("label", "a_seg"), ("mask", "a_brain_mask")])
def test_label_or_mask_that_lies_elsewhere(tmp_path, what, file):
    write_blocks(tmp_path / "in" / "a", ["t1", "t2"])
    affine = affine_of(SHAPE, (1, 1, 1))
    affine[0, 3] += 40
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine), tmp_path / "in" / "a" / f"{file}.nii.gz")
    evaluator, rows = evaluate(tmp_path, measures=["psnr", "psnr_lesion"])
    (told,) = [line for line in evaluator.records[0]["warnings"] if what in line]
    assert told.startswith(f"{what} not used: ") and f"{file}.nii.gz: is not where the scans" in told
    assert len(rows) == 4 and not any("psnr_lesion" in row for row in rows.values())


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
        ({"protocol": ["all"]}, "protocol is ['all']. Use --protocol with some of subsets, rest, single"),
        ({"protocol": 3}, "protocol: 3 is no list of names. Use --protocol"),
        ({"measures": ["psnr", "vif"]}, "measures: there is no 'vif'. Choose from psnr, ssim, ms_ssim, "),
        ({"measures": []}, "measures: [] is no list of names. Use --measures"),
        ({"measures": "lpips"}, "measure 'lpips' needs a network. Give its TorchScript file with --lpips_weights"),
        ({"lpips_weights": "{folder}/nowhere.pt"}, "nowhere.pt: does not exist"),
        ({"convention": "mine"}, "convention: there is no 'mine'. Choose from truth, own, max"),
        ({"contrasts": ["t1ce", "t2"]}, "in: no subject has two of the contrasts t1ce, t2, of which one can be made. "),
        ({"mode": "best"}, "mode 'best' is unknown"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: the file with the network's weights is missing"),
        ({"output_dir": "{folder}/in/out"}, "lies inside the input folder"),
    ],
)
def test_faults_at_the_start(tmp_path, overrides, line):
    write_blocks(tmp_path / "in" / "a")
    write_blocks(tmp_path / "in" / "b", ["t1"])
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
    own = {"output_dir", "dataset", "options", "preprocessing", "handlers", "evaluator", "run"}  # no report page
    own |= {"workers", "paths"}  # the report of the gates follows one call after another; each has paths of its own
    for key in set(evaluation) & set(inference) - own:
        assert evaluation[key] == inference[key], key
    chains = [
        [step["_target_"] for step in config["preprocessing"]["transforms"]] for config in (evaluation, inference)
    ]
    assert chains[1][0].endswith("FindExamd") and chains[0] == chains[1][1:]  # of a viewer, which names one scan


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
    write_blocks(tmp_path / "in" / "a b", ["t1", "t2"])
    network = small("pix2pix")
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    files = [str(CONFIG), str(ROOT / "configs" / "baselines" / "unet_network.json")]
    process = subprocess.run(
        [*(sys.executable, "-m", "monai.bundle", "run", "evaluation", "--config_file", str(files)),
         *("--bundle_root", str(tmp_path), "--unet_features", "[4,4,8,8,8,4]", "--protocol", "rest"),
         *("--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, encoding="utf-8", capture_output=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert "[1/1] a b: t1, t2 done" in process.stdout
    assert "no --reference_dir is given: the floor 'copy' is left out" in process.stdout + process.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert report["network"] == "Generator" and len(report["results"]) == 4
    assert (tmp_path / "out" / "tables.md").read_text(encoding="utf-8").startswith("# Evaluation of 1 subject\n")
