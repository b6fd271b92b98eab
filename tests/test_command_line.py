"""A mistyped option is refused, what MONAI and the configs know is not."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bundle import command_line
from bundle.command_line import check_options, named, refuse_unknown
from bundle.errors import InputError

ROOT = Path(__file__).parents[1]
INFERENCE = ["inference", "--config_file", "configs/inference.json"]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    "words",
    [
        ["--mode", "sample", "--mirrored", "True"],
        ["--num_steps=4", "--dataset-dir", "/scans"],
        ["--start_level", "-1", "--nomirrored"],
        ["--evaluator::overwrite", "True", "--evaluator#device", "cpu"],
        ["--+registry", "{'t1': {'role': 'input'}}"],
        ["--meta_file", "configs/metadata.json", "--logging_file", "configs/logging.conf", "--run_id", "inference"],
        ["--tracking", "mlflow", "--tracking_uri", "runs", "--experiment_name", "brains"],
    ],
)
def test_known_options_pass(words):
    refuse_unknown([*INFERENCE, *words])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--mirored", "True"], "option --mirored is unknown to configs/inference.json. Did you mean --mirrored?"),
        (["--num-step=4"], "option --num_step is unknown to configs/inference.json. Did you mean --num_steps?"),
        (["--evaluatr::device", "cpu"], "option --evaluatr::device is unknown .* Did you mean --evaluator?"),
        (["--xyz", "1"], "option --xyz is unknown to .* Use the ids at the top of the config"),
        (["--tracking_uri", "runs"], "option --tracking_uri is unknown"),
    ],
)
def test_unknown_options_are_refused(words, line):
    with pytest.raises(InputError, match=line.replace("?", r"\?")):
        refuse_unknown([*INFERENCE, *words])


def test_every_config_file_counts():
    words = ["training", "--config_file", "['configs/train.json','configs/baselines/unet.json']"]
    refuse_unknown([*words, "--regression::seed", "1"])
    with pytest.raises(InputError, match="--regression::seed is unknown"):
        refuse_unknown(["training", "--config_file", "configs/train.json", "--regression::seed", "1"])


def test_options_of_other_programs_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["server", "run", *INFERENCE, "--mirored", "True"])
    check_options()
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", type("Spec", (), {"name": command_line.PROGRAM}))
    with pytest.raises(InputError):
        check_options()


def test_an_argument_file_names_the_configs():
    refuse_unknown(["inference", "--args_file", "arguments.json", "--anything", "1"])


def test_values_are_no_options():
    found = named(["inference", "--a", "--b", "x=y", "--c=1=2", "-5"])
    assert found == {"a": "--b", "b": "x=y", "c": "1=2"}


@pytest.mark.parametrize("config", ["inference", "train", "evaluate", "aldm/inference", "aldm/train", "aldm/evaluate"])
def test_every_command_is_checked_before_anything_else_can_fail(config):
    steps = json.loads((ROOT / f"configs/{config}.json").read_text())["initialize"]
    assert steps[2] == {"_target_": "bundle.command_line.check_options"}


@pytest.mark.parametrize("config", ["inference", "aldm/train"])
def test_a_typo_ends_the_command_with_one_line(config, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", f"configs/{config}.json"]
    command += ["--dataset_dir", str(tmp_path), "--outputdir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = f"error: option --outputdir is unknown to configs/{config}.json. Did you mean --output_dir?"
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def documented() -> list[str]:
    """The commands of `monai.bundle run` in the documents."""
    files = [ROOT / "README.md", ROOT / "models/README.md", *sorted((ROOT / "docs").glob("*.md"))]
    whole = (file.read_text(encoding="utf-8").replace("\\\n", " ") for file in files)
    lines = [line for text in whole for line in text.splitlines()]
    return [found[1] for line in lines if (found := re.match(r" {4}.*monai\.bundle run (.*--config_file .*)", line))]


def test_documented_commands_know_their_options():
    commands = documented()
    assert len(commands) > 20
    for command in commands:
        refuse_unknown(shlex.split(command.replace("BUNDLE/", ""), comments=True))
