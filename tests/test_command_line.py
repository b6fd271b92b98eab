"""A mistyped option is refused, what MONAI and the configs know is not, and a path is the path that was typed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fire
import pytest
import torch
from monai.bundle import create_workflow

from bundle import command_line
from bundle.command_line import PATHS, check_options, named, plain_paths, refuse_unknown, typed_paths
from bundle.errors import InputError, input_error_in
from tests.engines.average import AverageNetwork
from tests.phantom import affine_of, write_subject

ROOT = Path(__file__).parents[1]
INFERENCE = ["inference", "--config_file", "configs/inference.json"]
CONFIGS = ["inference", "train", "evaluate", "aldm/inference", "aldm/train", "aldm/evaluate"]
NAMES = [
    *("2024", "20240305", "007", "1e5", "1_000", "0x10", "-1", "[1]", "Smith, J", "(a)", "{a}", "{'a': 1}", "'a'"),
    *("True", "$x", "$import os", "$1 +", "@b", "@seed", "a@#b", "result #1", "a::b", "50%", "./%x", "./~x", "a=b"),
    *("two  blanks", "\u8111\u90e8 \u626b\u63cf", "Zo\u00eb", 'a"b', "a;b&c|d", "a\nb", "/data/[1], #2/$x@b"),
]


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
    found = named(["inference", "--a", "--b", "x=y", "--c=1=2", "-5", "--d", "-1", "--e"])
    assert found == {"a": None, "b": "x=y", "c": "1=2", "d": "-1", "e": None}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_command_is_checked_before_anything_else_can_fail(config):
    steps = json.loads((ROOT / f"configs/{config}.json").read_text())["initialize"]
    assert steps[2] == {"_target_": "bundle.command_line.check_options"}
    assert steps[3:5] == ["$__local_refs.update(@typed_paths)", "$__local_refs.update(@paths)"]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_path_of_a_config_is_taken_as_typed(config):
    content = json.loads((ROOT / f"configs/{config}.json").read_text())
    paths = {name: value for name, value in content["paths"].items() if name != "_target_"}
    assert paths == {name: f"@{name}" for name in PATHS if name in content}
    ending = "(_root|_dir|_file|_weights|datalist|^weights|^segmenter)$"
    assert set(paths) == {name for name in content if re.search(ending, name)}


def parsed(monkeypatch, words):
    """The parser of the workflow that `python -m monai.bundle run` makes of these words."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", type("Spec", (), {"name": command_line.PROGRAM}))
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return fire.Fire({"run": create_workflow}, serialize=lambda _: "").parser


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_what_was_typed(name, monkeypatch):
    words = ["--config_file", "configs/evaluate.json", "--dataset_dir", name, f"--output_dir={name}", "--weights", "w"]
    parser = parsed(monkeypatch, [*words, "--split_file", name, "--reference-dir", name])
    for option in ("dataset_dir", "output_dir", "split_file", "reference_dir"):
        assert parser.get_parsed_content(option) == name
    settings = parser.get_parsed_content("evaluator::settings")  # what depends on them
    assert settings["split_file"] == settings["reference_dir"] == name and settings["weights"] == "w"
    assert settings["lpips_weights"] is None


@pytest.mark.parametrize("config", CONFIGS)
def test_a_path_is_what_was_typed_in_every_config(config, monkeypatch):
    names = [name for name in json.loads((ROOT / f"configs/{config}.json").read_text())["paths"] if name in PATHS]
    names = [name for name in names if name not in ("initial_weights", "bundle_root")]
    values = {name: f"{2024 + number}" for number, name in enumerate(names)}
    words = [f"--{name}={value}" for name, value in values.items()]
    parser = parsed(monkeypatch, ["--config_file", f"configs/{config}.json", *words])
    assert {name: parser.get_parsed_content(name) for name in names} == values


def test_a_path_that_is_part_of_another(monkeypatch):
    words = ["--config_file", "['configs/train.json','configs/multi_gpu_train.json']", "--output_dir", "result #1, [2]"]
    parser = parsed(monkeypatch, words)
    assert parser.get_parsed_content("training::3::path") == "result #1, [2]/model.pt"
    parser = parsed(monkeypatch, [*INFERENCE[1:], "--bundle_root", "/bundles/[2] #1"])
    assert parser.get_parsed_content("weights") == "/bundles/[2] #1/models/model.pt"
    assert sys.path[0] == "/bundles/[2] #1"


def test_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parser = parsed(monkeypatch, [*INFERENCE[1:], "--output_dir", "~/x", "--dataset_dir", "~", "--bundle_root", "~/b"])
    found = [parser.get_parsed_content(name) for name in ("output_dir", "dataset_dir", "weights")]
    assert found == ["/home/me/x", "/home/me", "/home/me/b/models/model.pt"] and sys.path[0] == "/home/me/b"
    assert plain_paths(dataset_dir="~/x", output_dir="a~b") == {"dataset_dir": "/home/me/x", "output_dir": "a~b"}
    with pytest.raises(InputError, match="output_dir is '~nobody.1', and no user .* Use --output_dir './~nobody.1'"):
        plain_paths(output_dir="~nobody.1")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--output_dir"], "output_dir is True, which is not a path. Give --output_dir the path of a file or folder"),
        (["--output_dir", "--overwrite", "True"], "output_dir is True, which is not a path"),
        (["--output_dir", ""], "output_dir is '', which is not a path"),
    ],
)
def test_what_is_no_path_is_refused(words, line, monkeypatch):
    with pytest.raises(RuntimeError) as caught:
        parsed(monkeypatch, [*INFERENCE[1:], *words])
    assert str(input_error_in(caught.value)).startswith(line)


def test_none_is_an_option_that_is_not_given(monkeypatch):
    parser = parsed(monkeypatch, ["--config_file", "configs/evaluate.json", "--split_file", "None"])
    assert parser.get_parsed_content("split_file") is None and "split_file" not in typed_paths()


def test_a_macro_is_looked_up_before_any_code_of_the_bundle_runs(monkeypatch):
    with pytest.raises(KeyError, match="query key: x"):
        parsed(monkeypatch, [*INFERENCE[1:], "--output_dir", "%x"])


@pytest.mark.parametrize("name", ["$x", "@b", "%x", "result #1", "[1]", "2024"])
def test_a_path_from_python_is_taken_as_it_is(name):
    assert typed_paths() == {}  # this program is another
    workflow = create_workflow(config_file=str(ROOT / "configs/inference.json"), output_dir=Path(name))
    assert workflow.parser.get_parsed_content("output_dir") == name


def test_text_from_python_is_never_another_path():
    path = str(ROOT / "configs/inference.json")
    workflow = create_workflow(config_file=path, output_dir="Smith, J", dataset_dir="2024", bundle_root=Path("a #1"))
    found = {name: workflow.parser.get_parsed_content(name) for name in ("output_dir", "dataset_dir", "weights")}
    assert found == {"output_dir": "Smith, J", "dataset_dir": "2024", "weights": "a #1/models/model.pt"}
    with pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=path, output_dir="result #1")
    assert str(input_error_in(caught.value)) == (
        "output_dir is 'result ::1': MONAI reads # and :: in a config as separators. "
        "Give it as the option --output_dir, or in Python as pathlib.Path(...)"
    )


def test_a_command_writes_to_the_folder_that_was_typed(tmp_path):
    contrasts = ["t1", "t1ce", "t2", "flair"]
    write_subject(tmp_path / "$x" / "a", ["t1"], (40, 48, 32), affine_of((40, 48, 32), (3, 3, 3)))
    torch.save(AverageNetwork(contrasts).state_dict(), tmp_path / "@b")
    network = "{'_target_': 'tests.engines.average.AverageNetwork', 'contrasts': '@contrasts', 'seconds': 0}"
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *INFERENCE[:2]]
    command += [str(ROOT / "configs/inference.json"), "--bundle_root", str(ROOT), "--network_def", network]
    command += ["--dataset_dir", "$x", "--output_dir", "result #1, [2]", "--weights=@b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"$x", "@b", "result #1, [2]"}
    assert len(list((tmp_path / "result #1, [2]" / "a").glob("a_*_synth.nii.gz"))) == 3


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
