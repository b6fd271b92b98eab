"""The benchmark counts what it says it counts; how long things take is not tested."""

from __future__ import annotations

import json

import pytest
import torch

from bundle.engines.options import SynthesisOptions
from bundle.errors import InputError
from scripts import benchmark

TINY = ["configs/tiny.json", "device=cpu", "amp=False", "batch_size=2", "mode=sample", "num_steps=2"]
SHAPE = (64, 80, 6)
PARTS = ["read", "preprocess", "structure", "mean", "encode", "step", "decode", "network", "invert", "write", "whole"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two configurations, of which the second has twice the slices in a batch."""
    folder = tmp_path_factory.mktemp("benchmark")
    words = ["--settings", *TINY, "--against", *TINY, "batch_size=4", "--repeats", "2", "--skip", "start"]
    benchmark.main([*words, "--shape", *map(str, SHAPE), "--output", str(folder / "found.json")])
    return json.loads((folder / "found.json").read_text())


def test_every_part_is_timed_as_often_as_asked(compared):
    for result in compared["results"]:
        assert list(result["parts"]) == PARTS
        assert all(len(part["all_seconds"]) == 2 and part["seconds"] > 0 for part in result["parts"].values())
    first, second = compared["results"]
    assert (first["batch_size"], second["batch_size"]) == (2, 4) and first["mode"] == "sample"
    assert first["dtype"] == "float32" and first["num_steps"] == 2
    assert set(compared["ratios"]) == set(PARTS)


def test_operations_grow_with_the_batch(compared):
    first, second = (result["parts"] for result in compared["results"])
    for name in ("structure", "mean", "encode", "step", "decode"):
        assert second[name]["gflop"] == pytest.approx(2 * first[name]["gflop"], rel=0.01), name
        assert 0 < first[name]["share_of_peak"] < 1
    assert "gflop" not in first["read"]


@pytest.mark.parametrize("further", [[], ["neighbours=1"]])
def test_operations_of_a_volume_are_those_of_its_batches(tmp_path, further):
    made = benchmark.Benchmark([*TINY, "start_level=1.0", "num_steps=3", *further], SHAPE, tmp_path)
    counted = benchmark.flops(made)
    batch = sum(counted[name] for name in ("structure", "mean", "encode", "decode")) + 3 * counted["step"]
    assert counted["network"] == pytest.approx(batch * SHAPE[2] / made.batch_size, rel=0.01)


def test_operations_of_a_decoder_by_hand(tmp_path):
    """The convolutions of the autoencoder's decoder, counted from their weights and sizes."""
    made = benchmark.Benchmark([*TINY, "smallest_slice=192"], SHAPE, tmp_path)  # latents of 48x48
    counted = benchmark.flops(made)["decode"]
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += 2 * module.weight[0].numel() * output.numel()

    decoder = made.network.autoencoder
    hooks = [m.register_forward_hook(count) for m in decoder.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        made.network.decode(torch.zeros(2, made.network.autoencoder.latent_channels, 48, 48))
    assert hooks and counted == pytest.approx(total / 1e9, rel=1e-6)


def test_ratio_is_of_the_same_round():
    first, second = ({"parts": {"step": {"all_seconds": values}}} for values in ([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]))
    assert benchmark.ratios(first, second)["step"] == {"ratio": 1.0, "least": 0.5, "most": 2.0}


def test_values_of_settings():
    assert benchmark.parse("num_steps=8") == ("num_steps", 8)
    assert benchmark.parse("amp=False") == ("amp", False)
    assert benchmark.parse("mode=sample") == ("mode", "sample")
    assert benchmark.parse("device=cpu") == ("device", "$torch.device('cpu')")


@pytest.mark.parametrize(
    ("contrasts", "targets", "given"),
    [
        (["t1", "t1ce", "t2", "flair"], None, ["t1", "t2", "flair"]),
        (["t1", "flair"], None, ["t1"]),
        (["t1", "t1ce", "t2", "flair", "pd", "swi"], None, ["t1", "t2", "flair", "pd", "swi"]),
        (["t1", "t2", "flair"], ["t1", "flair"], ["t2"]),
        (["ct", "t1"], None, ["ct"]),
    ],
)
def test_the_made_up_subject_has_what_is_not_made(contrasts, targets, given):
    options = SynthesisOptions(contrasts, targets=targets)
    assert benchmark.given(options) == given
    assert options.plan(dict.fromkeys(given, "file")) == (given, [c for c in contrasts if c not in given])


def test_subject_is_written_as_configured(tmp_path):
    made = benchmark.Benchmark([*TINY, "contrasts=['t1','t2','flair']"], SHAPE, tmp_path)
    assert {file.name for file in (tmp_path / "scans" / "made_up").iterdir()} == {
        "made_up_t1.nii.gz",
        "made_up_flair.nii.gz",
    }
    assert made.evaluator.options.plan(made.evaluator.dataset.data[0]) == (["t1", "flair"], ["t2"])


def test_parameters_by_part():
    counted = benchmark.parameters(torch.nn.ModuleDict({"a": torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False))}))
    assert counted == {"all": 6, "a.0": 6}


def test_faults():
    with pytest.raises(InputError, match="repeats is 0"):
        benchmark.main(["--repeats", "0"])
    with pytest.raises(InputError, match="nowhere.json: is no file of settings"):
        benchmark.main(["--settings", "nowhere.json"])
