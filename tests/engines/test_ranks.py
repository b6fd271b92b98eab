"""Two processes that train one network, and processes that share subjects; alone they do what one process does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn
from torch.utils.data import DistributedSampler

from bundle.engines import ranks
from bundle.errors import InputError
from tests.engines import train_together
from tests.engines.average import AverageNetwork
from tests.phantom import affine_of, write_subject

ROOT = Path(__file__).parents[2]


def torchrun(processes, *words, **environment):
    """A command in several processes of this machine, in the root of the bundle."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc_per_node", str(processes), *map(str, words)], cwd=ROOT, text=True, timeout=900,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def losses(folder, processes):
    """The mean of the processes' losses, step by step."""
    files = [folder / f"losses_{rank}_of_{processes}.json" for rank in range(processes)]
    return np.mean([json.loads(file.read_text()) for file in files], axis=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A training in one process."""
    folder = tmp_path_factory.mktemp("alone")
    train_together.run(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same training in two processes, ended after its first epoch."""
    folder = tmp_path_factory.mktemp("pair")
    done = torchrun(2, "-m", "tests.engines.train_together", folder, 1, 0)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def test_two_processes_learn_what_one_learns(alone, pair):
    expected, found = losses(alone, 1), losses(pair, 2)
    assert len(found) == 3 and len(expected) == 9
    parts = [json.loads((pair / f"losses_{rank}_of_2.json").read_text()) for rank in (0, 1)]
    assert np.abs(np.subtract(*parts)).max() > 1e-3  # each saw slices of its own
    np.testing.assert_allclose(found, expected[:3], rtol=1e-3)


def test_one_checkpoint_and_one_log(pair):
    names = sorted(path.name for path in (pair / "disentanglement").iterdir())
    assert [name for name in names if not name.startswith("events.")] == ["best.pt", "last.pt"]
    writers = {name.split(".")[-2] for name in names if name.startswith("events.")}  # their process ids
    assert len(writers) == 1


def test_one_process_goes_on_where_two_ended(alone, pair):
    made = train_together.run(pair, seed=5)
    np.testing.assert_allclose(made.losses, losses(alone, 1)[3:], rtol=1e-3)
    result, expected = (
        torch.load(folder / "disentanglement" / "finished.pt", weights_only=True) for folder in (pair, alone)
    )
    trained = [name for name in expected if name.startswith("disentanglement.") and name.endswith("weight")]
    for name in trained:  # not biases in front of a normalisation: their gradient is 0, and Adam follows its rounding
        torch.testing.assert_close(result[name], expected[name], atol=2e-3, rtol=0)


def test_alone_nothing_is_shared():
    assert ranks.share_numbers(3) == range(3) and ranks.gather([1, 2]) == [1, 2]
    assert ranks.is_first() and ranks.share_of_batch(3) == 3
    used, unused = nn.Linear(2, 1), nn.Linear(2, 1)
    used(torch.ones(1, 2)).sum().backward()
    ranks.average([used, unused])
    assert used.weight.grad.tolist() == [[1, 1]] and unused.weight.grad is None


def test_a_batch_that_cannot_be_divided(monkeypatch):
    monkeypatch.setattr(idist, "get_world_size", lambda: 4)
    assert ranks.share_of_batch(8) == 2
    for size in (2, 6):
        with pytest.raises(InputError, match=f"a batch of {size} cannot be divided among 4 processes"):
            ranks.share_of_batch(size)


def test_processes_keep_their_numbers_under_slurm(tmp_path):
    """srun starts one torchrun per machine: SLURM's number is the same for all that this starts, or there is none."""
    script = tmp_path / "tell_ranks.py"
    script.write_text(
        "import os, ignite.distributed as idist\n"
        "from bundle.engines import ranks\n"
        "ranks.join()\n"
        "print(f'number {idist.get_rank()} {idist.get_local_rank()} {os.environ[\"LOCAL_RANK\"]}')\n"
        "idist.barrier()\n"
    )
    for local in ({"SLURM_LOCALID": "0"}, {}):
        environment = {"SLURM_JOB_ID": "1", "PYTHONPATH": str(ROOT), **local}
        done = torchrun(2, script, **environment)
        assert done.returncode == 0, done.stdout[-3000:]
        assert sorted(re.findall(r"number \d \d \d", done.stdout)) == ["number 0 0 0", "number 1 1 1"]


def test_training_needs_a_gpu_for_each_process(monkeypatch):
    joined = []
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *args, **kwargs: joined.append(args))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("atexit.register", lambda call: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(
        InputError, match="3 processes on this machine are to train, but it has 2 GPUs. Use --nproc_per"
    ):
        ranks.join(own_gpu=True)
    ranks.join()  # inference: they share
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    ranks.join(own_gpu=True)
    assert len(joined) == 2


def test_config_for_several_processes(tmp_path):
    """Merged last it changes only how a batch is shared: alone as many steps per epoch as without it, and in turn."""
    shape = (32, 40, 6)
    for number in range(3):
        write_subject(tmp_path / "in" / f"s{number}", ["t1", "t2"], shape, affine_of(shape, (2, 2, 6)))
    loaders, ids = [], {}
    for files in (["train"], ["train", "multi_gpu_train"]):
        parser = ConfigParser()
        parser.read_config([str(ROOT / "configs" / f"{name}.json") for name in files])
        parser.update({"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")})
        loaders.append(parser.get_parsed_content("train::dataloader"))
        ids[len(files)] = parser["initialize"], parser["training"]
        parser.get_parsed_content("initialize", instantiate=False, eval_expr=False)  # every reference is defined
    plain, shared = loaders
    assert isinstance(shared.sampler, DistributedSampler) and not isinstance(plain.sampler, DistributedSampler)
    assert len(plain) == len(shared) and plain.batch_size == shared.batch_size == 2
    for sampler in (plain.sampler, shared.sampler):
        assert sorted(sampler) == list(range(3 * 20)) and list(sampler) != sorted(sampler)
    for before, after in zip(ids[1], ids[2]):
        assert after[: len(before)] == before and len(after) == len(before) + 1


def test_the_training_command(tmp_path):
    """As a user types it, all stages in two processes: half of the steps each, and one file of weights."""
    shape = (32, 40, 12)
    for number in range(3):
        contrasts = ["t1", "t1ce", "t2", "flair"]
        write_subject(tmp_path / "in" / f"s{number}", contrasts, shape, affine_of(shape, (2, 2, 6)))
    files = [f"configs/{name}.json" for name in ("train", "tiny", "multi_gpu_train")]
    epochs = [word for stage in ("autoencoder", "disentanglement", "diffusion") for word in (f"--{stage}_epochs", "1")]
    result = torchrun(
        *(2, "-m", "monai.bundle", "run", "training", "--config_file", str(files), *epochs),
        *("--dataset_dir", tmp_path / "in", "--output_dir", tmp_path / "out"),
        *("--subjects_per_batch", "2", "--visits_per_epoch", "4"),
    )
    assert result.returncode == 0, result.stdout[-3000:]
    for stage in ("autoencoder", "disentanglement", "diffusion"):
        state = torch.load(tmp_path / "out" / stage / "last.pt", weights_only=True)["trainer"]
        # three subjects, each visited four times, in batches of two over both processes
        assert state["iteration"] == state["epoch_length"] == 3 * 4 // 2
    assert result.stdout.count("inference weights: ") == 1
    weights = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())


STUB = "{'_target_': 'tests.engines.average.AverageNetwork', 'contrasts': '@contrasts', 'seconds': %s}"


def test_processes_share_the_subjects_and_a_death_costs_one(tmp_path):
    """Three processes; one is killed; the same command in two makes the rest, and one summary of all."""
    shape = (32, 40, 6)
    for number in range(6):
        write_subject(tmp_path / "in" / f"s{number}", ["t1"], shape, affine_of(shape, (2, 2, 6)))
    torch.save(AverageNetwork(["t1", "t1ce", "t2", "flair"]).state_dict(), tmp_path / "model.pt")
    words = [
        *("-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.json"),
        *("--dataset_dir", tmp_path / "in", "--output_dir", tmp_path / "out", "--weights", tmp_path / "model.pt"),
    ]
    kill = "[{'_target_': 'tests.engines.die.Die', 'rank': 1, 'after': 1}]"
    first = torchrun(2, *words, "--network_def", STUB % 0.2, "--handlers", kill)
    assert first.returncode != 0
    done = sorted(path.parent.name for path in (tmp_path / "out").glob("s*/*.json"))
    assert 1 <= len(done) < 6, first.stdout[-3000:]

    second = torchrun(2, *words, "--network_def", STUB % 0.2)
    assert second.returncode == 0, second.stdout[-3000:]
    records = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [record["subject"] for record in records] == [f"s{number}" for number in range(6)]
    assert [record["subject"] for record in records if record["status"] == "skipped"] == done
    assert {record["status"] for record in records} == {"skipped", "done"}
    assert not list((tmp_path / "out").glob(".*"))
    # each was looked at by one process
    assert sorted(re.findall(r"\[\d/6\] (s\d): ", second.stdout)) == [f"s{number}" for number in range(6)]
