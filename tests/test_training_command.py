"""The training command as a user types it, at the tiny size, on subjects of which none is complete."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.data.contrasts import select
from bundle.transforms.intensity import limits
from scripts.score_demo import score

ROOT = Path(__file__).parents[1]
STAGES = ("autoencoder", "disentanglement", "diffusion")
CONTRASTS = ("t1", "t1ce", "t2", "flair")


def command(run_id, *options):
    """The words of a command of the tiny size."""
    configs = {"training": "train", "inference": "inference"}[run_id]
    files = f"['configs/{configs}.json','configs/tiny.json']"
    return [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files, *options]


def start(words, log):
    return subprocess.Popen(
        words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's subjects: folders `scans` (no subject has all four contrasts, none a lesion mask) and `truth`."""
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run(
        [sys.executable, "-m", "scripts.make_subjects", "--demo", "--output_dir", folder], cwd=ROOT, check=True
    )
    return folder


@pytest.fixture(scope="module")
def trained(demo, tmp_path_factory):
    """A training that was killed in its second stage, and the same command again.

    The folder of its results; what the second printed; the scalars that the first left; when its first stage ended.
    """
    folder = tmp_path_factory.mktemp("trained")
    out = folder / "out"
    words = command("training", "--dataset_dir", str(demo / "scans"), "--output_dir", str(out))
    with open(folder / "first.log", "w") as log:
        process = start(words, log)
        checkpoint = out / "disentanglement" / "last.pt"
        until = time.monotonic() + 900
        while not checkpoint.is_file():
            assert process.poll() is None and time.monotonic() < until, (folder / "first.log").read_text()[-3000:]
            time.sleep(0.2)
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        process.wait()
    first = scalars(out / "disentanglement")
    ended = (out / "autoencoder" / "finished.pt").stat().st_mtime_ns
    with open(folder / "second.log", "w") as log:
        status = start(words, log).wait(timeout=1800)
    second = (folder / "second.log").read_text()
    assert status == 0, second[-3000:]
    return out, second, first, ended


def scalars(folder):
    """What is in the event files of a stage: tag -> [(step, value)] in the order of writing."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.*")):
        events = accumulator.EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return found


def losses(folder):
    """(step, loss) of the iterations: the scalar with the most values."""
    return sorted(max(scalars(folder).values(), key=len))


def copy_of_best(given, truth, contrast, folder):
    """PSNR of the available scan, scaled to [0, 1] as it is, that comes closest to a missing one."""
    found = []
    for name, path in given.items():
        image = nib.load(path)
        values = image.get_fdata(dtype=np.float32)
        low, high, _ = limits(values[values > 0], select([name])[0])
        copied = folder / f"{name}_as_{contrast}.nii.gz"
        nib.save(nib.Nifti1Image(np.clip((values - low) / (high - low), 0, 1) * (values > 0), image.affine), copied)
        found.append(score(copied, truth, contrast)[0])
    return max(found)


def test_no_subject_is_complete_or_annotated(demo):
    """What the paper's training needs is not there: this is what the other tests of this file train on."""
    scans = [path.name for path in (demo / "scans").rglob("*.nii.gz")]
    assert len(scans) == 7 and not [name for name in scans if "seg" in name or "label" in name]


@pytest.mark.parametrize("stage", STAGES)
def test_loss_falls(trained, stage):
    values = [value for _, value in losses(trained[0] / stage)]
    tenth = max(len(values) // 10, 1)
    print(f"{stage}: {np.mean(values[:tenth]):.4f} -> {np.mean(values[-tenth:]):.4f}")
    assert np.isfinite(values).all() and np.mean(values[-tenth:]) < 0.8 * np.mean(values[:tenth])


def test_a_killed_training_goes_on(trained):
    out, second, first, ended = trained
    assert (out / "autoencoder" / "finished.pt").stat().st_mtime_ns == ended
    assert "autoencoder: finished before" in second
    steps = [step for step, _ in losses(out / "disentanglement")]
    before = max(step for step, _ in max(first.values(), key=len))
    per_epoch = torch.load(out / "disentanglement" / "last.pt", weights_only=True)["trainer"]["epoch_length"]
    # every iteration is there; again are only those of the epoch in which it was killed
    assert set(steps) == set(range(1, max(steps) + 1)) and max(steps) % per_epoch == 0
    again = {step for step in steps if steps.count(step) > 1}
    assert all(step > before // per_epoch * per_epoch - per_epoch for step in again) and len(again) <= per_epoch
    assert 1 not in again


def test_files(trained):
    out = trained[0]
    for stage in STAGES:
        assert {path.name for path in (out / stage).glob("*.pt")} == {"last.pt", "best.pt", "finished.pt"}
        found = scalars(out / stage)
        assert {"psnr", "ssim"} < set(found)
    weights = torch.load(out / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    assert weights["latent_scale"] != 1 and weights["disentanglement.style_bank.mean"].any()


def test_trained_weights_beat_a_copy(trained, demo, tmp_path):
    """The missing contrasts, whose truth no training ever saw, by the inference command with the trained weights."""
    out, results = trained[0], tmp_path / "results"
    options = ("--dataset_dir", str(demo / "scans"), "--output_dir", str(results), "--weights", str(out / "model.pt"))
    done = subprocess.run(
        command("inference", *options), cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    synthesised, copied = [], []
    for truth in sorted((demo / "truth").glob("*/*.nii.gz")):
        subject, contrast = truth.parent.name, truth.name.removesuffix(".nii.gz").rsplit("_", 1)[1]
        if contrast == "label":
            continue
        given = json.loads((results / subject / f"{subject}.json").read_text())["inputs"]
        given = {name: path for name, path in given.items() if name in CONTRASTS}
        synthesised.append(score(results / subject / f"{subject}_{contrast}_synth.nii.gz", truth, contrast)[0])
        copied.append(copy_of_best(given, truth, contrast, tmp_path))
        print(f"{subject} {contrast}: {synthesised[-1]:.2f} dB, the best copy {copied[-1]:.2f} dB")
    assert len(synthesised) == 5
    print(f"mean: {np.mean(synthesised):.2f} dB, the best copies {np.mean(copied):.2f} dB")
    assert np.mean(synthesised) > np.mean(copied)


@pytest.mark.parametrize("contrasts", [("t1", "flair"), ("t1", "t1ce", "t2", "flair", "pd", "swi")])
def test_other_contrasts_are_a_setting(demo, tmp_path, contrasts, monkeypatch):
    """Two or six contrasts by `--contrasts` alone: one batch through each stage."""
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(["configs/train.json", "configs/tiny.json"])
    scans = tmp_path / "scans" / "DEMO-001"
    shutil.copytree(demo / "scans" / "DEMO-001", scans)
    if "pd" in contrasts:
        shutil.copy(scans / "DEMO-001-t2w.nii.gz", scans / "DEMO-001-pd.nii.gz")
    parser.update({
        "contrasts": list(contrasts), "dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "out"),
        "visits_per_epoch": 1, "subjects_per_batch": 1, "slices_per_subject": 2,
        **{f"{stage}_epochs": 1 for stage in STAGES}, "validation_interval": 9,
    })  # fmt: skip
    network = parser.get_parsed_content("network_def")
    m = len(contrasts)
    assert network.in_channels == 2 * m and len(network.disentanglement.decoders) == m
    for stage in STAGES:
        trainer = parser.get_parsed_content("train::trainer" if stage == "diffusion" else stage).trainer
        trainer.run()
        assert trainer.state.iteration == 1 and np.isfinite(trainer.state.output["loss"].item())
        assert trainer.state.batch["image"].shape[:2] == (2, m)
        exists = trainer.state.batch["exists"][0].tolist()
        assert exists == [float(name in ("t1", "t2", "flair", "pd")) for name in contrasts]
    with torch.no_grad():
        maps = torch.zeros(1, m, 96, 96)
        maps[:, 0] = 1
        assert network.eval()(torch.cat([torch.rand_like(maps), maps], dim=1)).shape == (1, m, 96, 96)
