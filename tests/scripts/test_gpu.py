"""Packing and training for a given time, on the CPU with the tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.data.packed import save_packed
from bundle.errors import InputError
from bundle.networks.weights import load_weights
from scripts import gpu, pack
from tests.phantom import affine_of, write_subject

CONFIGS = ["configs/train.json", "configs/tiny.json"]


def subjects(folder) -> None:
    """Four packed phantoms; the last lacks a contrast."""
    rng = np.random.default_rng(0)
    for k in range(4):
        image = rng.random((4, 40, 44, 40), dtype=np.float32)
        exists = np.array([1, k < 3, 1, 1], np.float32)
        item = {"image": image * exists[:, None, None, None], "exists": exists, "brain": np.ones((1, 40, 44, 40))}
        item |= {"regions": np.zeros((3, 40, 44, 40)), "valid": np.zeros(3)}
        save_packed(item, folder / f"S{k}.npz")


def test_it_trains_all_stages_and_leaves_weights_that_load(tmp_path, monkeypatch, capsys):
    packed, out = tmp_path / "packed", tmp_path / "out"
    packed.mkdir()
    subjects(packed)
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"training": ["S0", "S1", "S3"], "test": ["S2"]}))
    monkeypatch.setattr(gpu, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(gpu, "check", lambda model, device: check(model, device, (32, 32, 8)))
    words = ["--packed", packed, "--output_dir", out, "--split_file", split, "--config", "configs/tiny.json"]
    gpu.main([str(word) for word in [*words, "--seconds", 24, "--window", 32, "--batch_size", 2]])
    log = json.loads((out / "log.json").read_text())
    assert [row["stage"] for row in log["stages"]] == ["autoencoder", "disentanglement", "diffusion"]
    assert all(row["steps"] > 0 and row["windows_per_second"] > 0 for row in log["stages"])
    assert log["check"]["device"] == "CPU" and log["check"]["seconds_per_volume_float32"] > 0
    parser = ConfigParser()
    parser.read_config(CONFIGS)
    network = parser.get_parsed_content("network_def")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_weights(network, out / "model.pt")
    moved = {name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"autoencoder", "disentanglement", "diffusion", "latent_scale"}
    assert "autoencoder: ready" in capsys.readouterr().out


check = gpu.check


def test_too_little_time_is_one_clear_line(tmp_path, monkeypatch):
    subjects(tmp_path)
    monkeypatch.setattr(gpu, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(gpu, "check", lambda model, device: {})
    words = ["--packed", tmp_path, "--output_dir", tmp_path / "out", "--config", "configs/tiny.json", "--window", 32]
    with pytest.raises(InputError, match="Give it more --seconds"):
        gpu.main([str(word) for word in [*words, "--seconds", 0.01]])
    with pytest.raises(InputError, match="holds no label map"):
        gpu.main([str(word) for word in [*words, "--label_maps", tmp_path / "none"]])


def test_generated_subjects_join_the_real_ones_on_one_grid(tmp_path):
    subjects(tmp_path)
    real = gpu.load_packed(sorted(tmp_path.glob("*.npz")))
    voxels = np.full((5, 70, 30, 20), 9, np.uint8)
    extra = {"GEN-0000": {"voxels": voxels, "exists": np.ones(4, np.float32), "valid": np.ones(3, np.float32)}}
    both = gpu.together(real, extra)
    assert both.names == (*real.names, "GEN-0000") and both.voxels.shape == (5, 5, 80, 48, 48)
    for k in range(4):
        box = tuple(slice(int(a), int(b)) for a, b in zip(*both.corners[k]))
        old = tuple(slice(int(a), int(b)) for a, b in zip(*real.corners[k]))
        assert torch.equal(both.voxels[(k, slice(None), *box)], real.voxels[(k, slice(None), *old)])
    assert int((both.voxels[4] == 9).sum()) == voxels.size


def test_the_shares_of_real_and_generated_subjects_change_with_time(tmp_path):
    subjects(tmp_path)
    packed = gpu.load_packed(sorted(tmp_path.glob("*.npz")))
    loader = gpu.SliceLoader(packed, "cpu", 2, window=16)
    mixture = gpu.Mixture(loader, real=3, seconds=1e-9)
    batches = iter(mixture)
    next(batches)
    next(batches)
    torch.testing.assert_close(loader.weights, torch.tensor([0.8 / 3] * 3 + [0.2]))


def test_a_folder_is_packed_as_training_prepares_it(tmp_path, capsys):
    affine = affine_of((64, 84, 56), (1, 1, 1))
    for name in ("A", "B"):
        write_subject(tmp_path / "in" / name, ["t1", "t2"], (64, 84, 56), affine)
    (tmp_path / "in/B/B_t1.nii.gz").write_bytes(b"no scan")
    assert pack.main(["--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]) == 1
    made = sorted((tmp_path / "out").glob("*.npz"))
    packed = gpu.load_packed(made)
    assert packed.names == ("A",) and packed.exists[0].tolist() == [1, 0, 1, 0]
    sides = packed.corners[0, 1] - packed.corners[0, 0]
    assert (sides - torch.tensor([60, 80, 52])).abs().max() <= 3
    before = [path.stat().st_mtime_ns for path in made]
    pack.main(["--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")])
    assert [path.stat().st_mtime_ns for path in made] == before  # packed once
    printed = capsys.readouterr()
    assert "A.npz" in printed.out and printed.err.count("B: left out: ") == 2 and "B_t1.nii.gz" in printed.err
