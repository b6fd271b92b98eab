"""The training command of each baseline as a user types it, with few channels, for two steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from bundle.networks.weights import load_weights
from tests.phantom import affine_of, write_subject

ROOT = Path(__file__).parents[1]
UNET = ("--unet_features", "[4,4,8,8,8,4]")
DENOISER = ("--denoiser_channels", "[8,16,32]")
BASELINES = {  # files beside NAME_network.json, name of the stage, few channels
    "unet": (["unet"], "regression", UNET),
    "pix2pix": (["gan"], "adversarial", UNET),
    "mmgan": (["gan", "mmgan"], "adversarial", UNET),
    "resvit": (
        ["gan"],
        "adversarial",
        ("--resvit_channels", "4", "--resvit_hidden_size", "16", "--resvit_layers", "1"),
    ),
    "syndiff": (["gan", "syndiff"], "adversarial", DENOISER),
    "palette": (["palette"], "denoising", DENOISER),
    "voxel_mlp": (["unet", "voxel_mlp"], "regression", ("--mlp_units", "8")),
}


def files(config, name, *further):
    return [f"configs/{config}.json", *(f"configs/baselines/{file}.json" for file in (f"{name}_network", *further))]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two subjects: a complete one, and one that lacks T1CE."""
    folder, shape = tmp_path_factory.mktemp("scans"), (64, 84, 24)
    affine = affine_of(shape, (1, 1, 1))
    write_subject(folder / "A", ["t1", "t1ce", "t2", "flair"], shape, affine)
    write_subject(folder / "B", ["t1", "t2", "flair"], shape, affine)
    return folder


@pytest.mark.parametrize("name", BASELINES)
def test_training(scans, tmp_path, name, monkeypatch):
    further, stage, sizes = BASELINES[name]
    options = {
        "dataset_dir": scans, "output_dir": tmp_path, "slice_size": 96, "train_window": 32, "visits_per_epoch": 2,
        "slices_per_subject": 1, "disentanglement_epochs": 1, "validation_interval": 1, "validation_slices": 1,
        "num_steps": 2, **({"discriminator_channels": 4} if "gan" in further else {}),
    }  # fmt: skip
    words = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "training",
        "--config_file",
        str(files("train", name, *further)),
    ]
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(
        [*words, *sizes], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    state = torch.load(tmp_path / stage / "last.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 2 and state["schedule"]["last_epoch"] == 2

    # the weights fit the network of the evaluation, which completes an exam with them
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(files("evaluate", name))
    parser.update({key.removeprefix("--"): eval(value) for key, value in zip(sizes[::2], sizes[1::2])})
    network = parser.get_parsed_content("network_def").eval()
    load_weights(network, tmp_path / "model.pt")
    x = torch.rand(1, 8, 32, 32)
    x[:, 4:] = torch.tensor([0.0, 1, 1, 0])[:, None, None]
    network.num_steps = 2
    with torch.inference_mode():
        made = network(x)
    assert made.isfinite().all() and torch.equal(made[:, 1:3], x[:, 1:3])
    options = parser.get_parsed_content("options")
    assert options.mode == ("sample" if name in ("syndiff", "palette") else "mean")


@pytest.mark.parametrize("name", BASELINES)
def test_sizes_and_budget(name, monkeypatch):
    """Near the U-Net's 2.0 M parameters, but for the perceptron; as many epochs, at the same learning rate."""
    monkeypatch.chdir(ROOT)
    further, stage, _ = BASELINES[name]
    parser = ConfigParser()
    parser.read_config(files("train", name, *further))
    network = parser.get_parsed_content("network_def")
    size = sum(weight.numel() for weight in network.parameters())
    assert size == 45_316 if name == "voxel_mlp" else 1.0e6 < size < 4.0e6
    assert parser.get(f"{stage}::max_epochs") == "@disentanglement_epochs"
    assert parser.get(f"{stage}::learning_rate") == "@disentanglement_learning_rate"
    for part in ("train_loader", "val_loader", "val_prepare_batch", "ema_momentum", "val_interval", "seed"):
        assert parser.get(f"{stage}::{part}") == UNET_STAGE[part]


UNET_STAGE = ConfigParser.load_config_file(ROOT / "configs" / "baselines" / "unet.json")["regression"]


def test_the_methods_differ_in_what_they_should(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = {}
    for name, (further, *_) in BASELINES.items():
        parser = ConfigParser()
        parser.read_config(files("train", name, *further))
        found[name] = parser
    prepare = {
        name: found[name].get_parsed_content("adversarial::prepare_batch") for name in ("pix2pix", "mmgan", "resvit")
    }
    assert {name: batch.curriculum for name, batch in prepare.items()} == {
        "pix2pix": False,
        "mmgan": True,
        "resvit": False,
    }
    shapes = {}
    for name in ("pix2pix", "mmgan", "resvit", "syndiff"):
        loss = found[name].get_parsed_content("adversarial::loss")
        shapes[name] = [loss.discriminator.network.initial_conv.conv.in_channels,
                        loss.discriminator.network.final_conv.conv.out_channels]  # fmt: skip
        assert loss.weight == 0.01 and loss.reconstruction.sa.frequency_weight == 0.1
    assert shapes == {"pix2pix": [12, 1], "mmgan": [8, 4], "resvit": [12, 1], "syndiff": [9, 1]}
    assert found["mmgan"].get_parsed_content("network_def").network.conv_0.conv_0.conv.in_channels == 4
    assert (
        found["syndiff"].get_parsed_content("adversarial::network")
        is found["syndiff"].get_parsed_content("network_def").generator
    )
