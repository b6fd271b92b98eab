"""Steps are counted and shared out as they were; how long they take is not tested."""

from __future__ import annotations

import json
import time

import pytest
import torch
from ignite.engine import Engine

from bundle.errors import InputError
from scripts import benchmark_training
from scripts.benchmark import Timing
from scripts.benchmark_training import Stopwatch, speeds

TINY = ["configs/tiny.json", "device=cpu", "amp=False", "subjects_per_batch=2", "slices_per_subject=1"]


def watched(seconds_of_data, seconds_of_step, batches=9):
    """Three counted steps, after a warm-up of one, of an engine that takes so long for each."""

    def loader():
        for _ in range(batches):
            time.sleep(seconds_of_data)
            yield {"image": torch.zeros(5, 1)}

    watch = Stopwatch(3, torch.device("cpu"), warm_up=1)
    engine = Engine(lambda engine, batch: time.sleep(seconds_of_step))
    watch.attach(engine)
    engine.run(loader(), max_epochs=1, epoch_length=batches)
    return watch, engine


def test_the_run_ends_after_the_steps_that_count():
    watch, engine = watched(0, 0)
    assert engine.state.iteration == 4
    assert len(watch.waits) == len(watch.steps) == 3 and watch.samples == 15


def test_a_slow_loader_is_waited_for():
    slow, fast = (speeds(watched(*seconds)[0])["waiting"] for seconds in ((0.05, 0.005), (0.005, 0.05)))
    assert 0 <= fast < 0.5 < slow <= 1


def test_speeds_by_hand():
    waits, steps = [Timing(1.0, 0.5), Timing(2.0, 0.5)], [Timing(3.0, 4.0), Timing(6.0, 7.0)]
    watch = Stopwatch(2, torch.device("cpu"), samples=6, waits=waits, steps=steps)
    assert speeds(watch) == {
        "samples_per_step": 3.0,
        "samples_per_second": 0.5,
        "waiting": 0.25,
        "cpu_seconds_per_sample": 2.0,
        "cpu_seconds_of_data_per_sample": pytest.approx(1 / 6),
    }


def test_table_holds_the_speeds():
    watch = Stopwatch(1, torch.device("cpu"), samples=4, waits=[Timing(1.0, 1.0)], steps=[Timing(3.0, 5.0)])
    rows = benchmark_training.table({"diffusion": speeds(watch)}).splitlines()
    assert rows[-1] == "| diffusion | 4 | 1.00 | 25.0% | 1.500 | 0.250 |"
    assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize("stage", ["autoencoder", "disentanglement", "diffusion"])
def test_a_stage_trains_on_made_up_subjects(stage, tmp_path):
    made = benchmark_training.TrainingBenchmark(TINY, (100, 100, 8), subjects=1, steps=1, folder=tmp_path)
    network = made.parser.get_parsed_content("network_def")
    before = {name: value.clone() for name, value in network.named_parameters()}
    found = speeds(made.time(stage))
    changed = {name.split(".")[0] for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {stage}
    assert found["samples_per_step"] == 2 and 0 < found["waiting"] < 1
    assert not (tmp_path / "out" / stage / "last.pt").exists()


def test_what_the_command_writes(tmp_path, capsys):
    words = ["--settings", *TINY, "--stages", "autoencoder", "--shape", "100", "100", "8", "--subjects", "1"]
    benchmark_training.main([*words, "--steps", "1", "--output", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["stages"]) == ["autoencoder"] and found["dtype"] == "float32"
    assert found["prepare_cpu_seconds"] > 0
    assert f"{found['stages']['autoencoder']['waiting']:.1%}" in capsys.readouterr().out


def test_faults():
    with pytest.raises(InputError, match="steps is 0"):
        benchmark_training.main(["--steps", "0"])
    with pytest.raises(InputError, match="subjects is 0"):
        benchmark_training.main(["--subjects", "0"])
    with pytest.raises(InputError, match="nowhere.json: is no file of settings"):
        benchmark_training.main(["--settings", "nowhere.json"])
