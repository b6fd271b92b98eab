"""The commands of a study, what is done again and what is not, and its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.errors import InputError
from scripts import study
from tests.conftest import ROOT
from tests.phantom import affine_of, write_subject

SHAPE = (64, 84, 20)
AFFINE = affine_of(SHAPE, (1, 1, 3))
CONTRASTS = ["t1", "t1ce", "t2", "flair"]


@pytest.fixture
def words(tmp_path):
    """The options of a study of some rows."""

    def words_(*further):
        places = ("--dataset_dir", "in", "--split_file", "split.json", "--output_dir", str(tmp_path / "out"))
        return [*places, *further]

    return words_


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Stand in for the commands of the bundle: each leaves what it would leave; those that ran are listed."""
    seen = []

    def run(command, stdout, **_):
        step, *options = command[4:]
        given = dict(zip(options[::2], options[1::2]))
        folder = study.Path(given["--output_dir"])
        name = folder.parent.name if step == "evaluation" else folder.name
        seen.append((name, step))
        print(f"{step}\rof {name}", file=stdout)
        if name in run.failing:
            print(f"error: {name} is of no use.\n", file=stdout)
        elif step == "training":
            (folder / "disentanglement").mkdir()
            torch.save({"trainer": {"iteration": 40}}, folder / "disentanglement" / "last.pt")
            torch.save({}, folder / "model.pt")
        else:
            folder.mkdir()
            (folder / "results.json").write_text(json.dumps(run.results(name)))
        return subprocess.CompletedProcess(command, int(name in run.failing))

    def results(name):
        better = len(name)  # so that the rows differ
        rows = [
            {"subject": subject, "given": [], "available": 3, "target": target, "method": method, "source": ""}
            | {"psnr": 20.0 + better + number + 10 * (target == "t2"), "ssim": 0.5 + number / 100}
            | ({"dice": 0.5 + number / 10} if method != "copy" else {})
            for number, subject in enumerate("abc")
            for target in ("flair", "t2")
            for method in ("network", "copy")
        ]
        rows += [{**row, "method": "real", "dice": 0.9} for row in rows if row["method"] == "network"]
        return {"commit": "0123456789abcdef+changes", "convention": "truth", "results": rows}

    run.failing, run.results, run.seen = set(), results, seen
    monkeypatch.setattr(study.subprocess, "run", run)
    return run


def cells(text):
    """The first cell of each line of the table -> the others."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in lines}


def test_rows_of_both_lists():
    ablations = {row.name: row for row in study.ablations()}
    assert list(ablations)[0] == "full" and {"no_decoupling", "no_hfib", "no_msse", "no_sa", "no_sc"} < set(ablations)
    assert all(row.variant for row in ablations.values())
    assert {name for name, row in ablations.items() if row.mode} == {"no_sa", "paper_sampling", "paper_prediction"}
    baselines = {row.name: row for row in study.baselines()}
    assert [file.name for file in baselines["unet"].training] == ["unet_network.json", "unet.json"]
    assert [file.name for file in baselines["unet"].evaluation] == ["unet_network.json"]
    names = ["voxel_mlp_network.json", "unet.json", "voxel_mlp.json"]
    assert [file.name for file in baselines["voxel_mlp"].training] == names


@pytest.mark.parametrize("row", study.baselines()[1:], ids=lambda row: row.name)
def test_each_baseline_has_its_training_with_the_shared_budget(row):
    files = [study.CONFIGS / "train.json", *row.training]
    config = ConfigParser.load_config_files([str(file) for file in files])
    trained = [step for step in config["training"] if isinstance(step, str)]
    assert len(trained) == 1
    stage = config[trained[0].removeprefix("$@").removesuffix(".run()")]
    assert stage["max_epochs"] == "@disentanglement_epochs" and stage["train_loader"] == "@train::dataloader"


def test_commands(words, tmp_path):
    further = (
        "--epochs",
        "7",
        "--initial_weights",
        "w.pt",
        "--override_file",
        "configs/tiny.json",
        "--batch_size",
        "8",
        "--train::dataloader::num_workers=2",
        "--num_workers",
        "9",
    )
    (tmp_path / "a.json").write_text('{"one": 1}')
    (tmp_path / "b.json").write_text('{"other": 1}')
    options = study.parse(words(*further))
    found = study.commands(study.Row("x", "X", (tmp_path / "a.json",), (tmp_path / "b.json",)), options)
    joined = {"--train::dataloader::num_workers=2"}
    assert joined & set(found["training"]) and not joined & set(found["evaluation"])
    found = {step: [word for word in words_ if word not in joined] for step, words_ in found.items()}
    given = {step: dict(zip(words_[::2], words_[1::2])) for step, words_ in found.items()}
    for step, base, override in (("training", "train", "a"), ("evaluation", "evaluate", "b")):
        assert [study.Path(file).stem for file in eval(given[step]["--config_file"])] == [base, "tiny", override]
        assert given[step]["--split_file"] == "split.json"
    training, evaluation = given["training"], given["evaluation"]
    assert training["--num_workers"] == "9" and "--batch_size" not in training
    assert evaluation["--batch_size"] == "8" and "--num_workers" not in evaluation
    assert training["--disentanglement_epochs"] == "7" and training["--initial_weights"] == "w.pt"
    assert training["--output_dir"] == str(tmp_path / "out" / "x")
    assert training["--train::dataset::cache_dir"] == str(tmp_path / "out" / "cache")
    assert eval(training["--training"]) == ["$@disentanglement.run()", study.EXPORT]
    assert evaluation["--weights"] == str(tmp_path / "out" / "x" / "model.pt")
    assert (evaluation["--mode"], evaluation["--protocol"]) == ("mean", "['rest']")
    assert (evaluation["--reference_dir"], evaluation["--reference_part"]) == ("in", "training")
    assert "--disentanglement_epochs" not in evaluation and "--initial_weights" not in evaluation

    def stages(*further):
        chosen = study.commands(study.Row("x", "X"), study.parse(words(*further)))["training"]
        return [step for step in eval(chosen[chosen.index("--training") + 1]) if step != study.EXPORT]

    assert stages("--mode", "sample") == ["$@autoencoder.run()", "$@disentanglement.run()", "$@train::trainer.run()"]
    assert stages("--mode", "sample", "--stages", "diffusion") == ["$@train::trainer.run()"]
    other = study.commands(study.Row("x", "X", variant=False), study.parse(words("--mode", "sample")))
    assert "--training" not in other["training"] and "--mode" not in other["evaluation"]


def test_the_export_is_that_of_the_training():
    assert json.loads((study.CONFIGS / "train.json").read_text())["training"][-1] == study.EXPORT
    stages = json.loads((study.CONFIGS / "train.json").read_text())["training"][:-1]
    assert stages == [f"$@{name}.run()" for name in study.STAGES.values()]


def test_a_failed_row_is_told_and_the_others_go_on(words, ran, tmp_path, capsys):
    ran.failing = {"no_msse"}
    names = ("--names", "full", "no_msse", "no_hfib")
    with pytest.raises(SystemExit) as stop:
        study.main(words(*names))
    assert stop.value.code == 1
    done = ("full", "training"), ("full", "evaluation"), ("no_hfib", "training"), ("no_hfib", "evaluation")
    assert sorted(ran.seen) == sorted([*done, ("no_msse", "training")])
    told = capsys.readouterr()
    log = tmp_path / "out" / "no_msse" / "training.log"
    assert (
        f"no_msse failed: {log}: training ended with status 1 (error: no_msse is of no use). Mend this, then run the "
        "same command again: what is done stays\n1 of 3 rows failed\n"
    ) == told.err
    assert cells(told.out)["without MSSE"] == ["-"] * 9

    # the same command again: what failed, and nothing else
    ran.failing = set()
    ran.seen.clear()
    study.main(words(*names))
    assert ran.seen == [("no_msse", "training"), ("no_msse", "evaluation")]
    assert "-" not in cells(capsys.readouterr().out)["without MSSE"]
    ran.seen.clear()
    study.main(words(*names))
    assert ran.seen == []


def test_a_row_of_another_command_is_left_alone(words, ran, capsys):
    study.main(words("--names", "full", "no_hfib", "--epochs", "3"))
    ran.seen.clear()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        study.main(words("--names", "full", "no_msse", "--epochs", "4"))
    assert ran.seen == [("no_msse", "training"), ("no_msse", "evaluation")]
    told = capsys.readouterr()
    assert "full: is of another command. Give another --output_dir, or remove this folder" in told.err
    table = cells(told.out)
    assert "without HFIB" not in table and table["full model"] == ["-"] * 9  # no mixture of two budgets


def test_table_by_hand(words, ran, tmp_path, capsys):
    study.main(words("--names", "full"))
    study.main(words("--names", "no_hfib"))  # the rows of earlier commands stay in the table
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert text.startswith("# Ablations: 3 subjects\n") and capsys.readouterr().out.endswith(text + "\n")
    assert "The truth's own 0.5 to 99.5 percentile" in text and "Mode mean" in text
    table = cells(text)
    head = ["FLAIR PSNR ↑", "FLAIR SSIM ↑", "FLAIR Dice ↑", "all PSNR ↑", "all SSIM ↑", "all Dice ↑", study.REAL]
    assert table["network"] == [*head, "steps", "commit"]
    # subjects 24, 25 and 26 dB on FLAIR, 10 dB more on T2
    common = ["0.510 ± 0.010", "0.600 ± 0.100"]
    last = ["0.900 ± 0.000", "40", "012345678+"]
    assert table["full model"] == ["25.00 ± 1.00", *common, "30.00 ± 1.00", *common, *last]
    assert table["without HFIB"] == ["28.00 ± 1.00", *common, "33.00 ± 1.00", *common, *last]
    copied = ["25.00 ± 1.00", "0.510 ± 0.010", "-", "30.00 ± 1.00", "0.510 ± 0.010", "-", "0.900 ± 0.000", "-", "-"]
    assert table[study.FLOORS["copy"]] == copied
    assert study.FLOORS["copy_oracle"] not in table


def test_methods_without_code_keep_a_row(words, ran):
    study.main(words("--list", "baselines", "--names", "full", "unet"))
    options = study.parse(words("--list", "baselines"))
    text = study.table(study.baselines(), options)
    table = cells(text.split("### ")[0])
    assert {"MSG-LDM", study.FLOORS["copy"]} < set(table) and "Dice of the real contrasts" in table["network"]
    assert "| 3 | MISA-LDM (2-D LDM), not run | 29.01 ± 2.02 |" in text and "| 3-D CycleGAN, not run | 23.740" in text
    assert "not run" not in study.table(study.ablations()[:1], study.parse(words()))


def test_without_a_segmenter_there_is_no_dice(words, ran):
    with_dice = ran.results
    ran.results = lambda name: {
        **with_dice(name),
        "results": [{k: v for k, v in row.items() if k != "dice"} for row in with_dice(name)["results"]],
    }
    study.main(words("--names", "full"))
    options = study.parse(words())
    assert "Dice" not in study.table(study.ablations()[:1], options)
    assert "FLAIR PSNR" not in study.table(study.ablations()[:1], study.parse(words("--target", "t2")))


def test_rows_that_the_mode_leaves_as_they_are(words, ran, capsys):
    study.main(words("--names", "full", "no_sa"))
    assert {name for name, _ in ran.seen} == {"full"}
    assert "no_sa: left out, it differs from the full model with --mode sample only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("further", "line"),
    [
        (("--names", "hfib"), "there is no row 'hfib' in ablations. Use --names with some of full, neighbours"),
        (("--batchsize", "8"), "option --batchsize is unknown to the configs"),
        (("--epoch", "8"), "option --epoch is unknown to the configs"),
        (("--weights", "w.pt"), "option --weights is set by the study"),
        (("--override_file", "nowhere.json"), "nowhere.json: cannot be read as JSON"),
    ],
)
def test_faults_at_the_start(words, ran, further, line):
    with pytest.raises(InputError) as fault:
        study.main(words(*further))
    assert line in str(fault.value) and not ran.seen


def test_a_study_as_the_user_types_it(tmp_path):
    """One row, trained for two steps and evaluated, by the command from another folder."""
    for name in ("a", "b", "c"):
        write_subject(tmp_path / "in" / name, CONTRASTS, SHAPE, AFFINE)
        lesion = np.zeros(SHAPE, np.uint8)
        lesion[25:40, 30:50, 5:15] = 1
        nib.save(nib.Nifti1Image(lesion, AFFINE), tmp_path / "in" / name / f"{name}_seg.nii.gz")
    split = {"training": ["a"], "validation": ["b"], "test": ["c"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    command = [sys.executable, "-m", "scripts.study", "--dataset_dir", "in", "--split_file", "split.json"]
    command += ["--output_dir", "out", "--names", "no_decoupling", "--epochs", "1", "--segmenter", "branch"]
    command += ["--override_file", str(ROOT / "configs/tiny.json"), "--visits_per_epoch", "2"]
    command += ["--subjects_per_batch", "1", "--measures", "['psnr','ssim']"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    logs = "".join(file.read_text() for file in (tmp_path / "out").glob("*/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs[-3000:]
    line = cells(done.stdout)["without decoupling and MMSF"]
    assert line[-2] == "2"
    results = json.loads((tmp_path / "out/no_decoupling/evaluation/results.json").read_text())
    flair = next(r for r in results["results"] if r["target"] == "flair" and r["method"] == "network")
    assert flair["given"] == ["t1", "t1ce", "t2"] and line[0].startswith(f"{flair['psnr']:.2f}")
    assert results["reference_subjects"] == ["a"] and study.FLOORS["copy"] in cells(done.stdout)
    assert line[2].startswith(f"{flair['dice']:.3f}") and results["gates"] == []
    assert (tmp_path / "out/table.md").read_text().startswith("# Ablations: 1 subject\n")
    assert len(list((tmp_path / "out/cache").iterdir())) == 1 and not (tmp_path / "out/no_decoupling/cache").exists()
