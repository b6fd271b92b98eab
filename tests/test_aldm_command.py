"""ALDM's three commands, at the tiny size."""

import io
import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run

from bundle.errors import input_error_in
from tests.conftest import ROOT
from tests.phantom import affine_of, write_subject

STAGES = ("autoencoder", "translation", "diffusion")
SHAPE = (64, 84, 54)
SHORT = {
    "visits_per_epoch": 2, "crops_per_visit": 2, "latent_copies": 2, "latent_visits": 1,
    "autoencoder_epochs": 2, "translation_epochs": 1, "diffusion_epochs": 1, "validation_interval": 1,
    "adversarial_start": 0.0,
}  # fmt: skip
SIZE = {"spacing": 2.0, "slice_size": 96, "num_steps": 2}


def command(run_id, config, further=None, **options):
    """A command, in this process: the tests of MSG-LDM's commands start it from a shell."""
    files = [f"configs/aldm/{name}.json" for name in (config, "tiny", further) if name]
    before = Path.cwd(), sys.excepthook
    os.chdir(ROOT)
    try:
        run(
            run_id,
            config_file=files,
            **{**SIZE, **{key: str(v) if isinstance(v, Path) else v for key, v in options.items()}},
        )
    finally:
        os.chdir(before[0])
        sys.excepthook = before[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scans of two subjects, a complete one and one that lacks two contrasts, and a training on them."""
    folder = tmp_path_factory.mktemp("aldm")
    write_subject(folder / "scans" / "A", ["t1", "t1ce", "t2", "flair"], SHAPE, affine_of(SHAPE, (1, 1, 1)))
    write_subject(folder / "scans" / "B", ["t1", "flair"], SHAPE, affine_of(SHAPE, (1, 1, 1), "PIR", (14, -9)))
    command("training", "train", dataset_dir=folder / "scans", output_dir=folder / "out", **SHORT)
    return folder


def test_training(folder):
    out = folder / "out"
    for stage in STAGES:
        assert {path.name for path in (out / stage).glob("*.pt")} == {"last.pt", "best.pt", "finished.pt"}
    assert len(list((out / "latents").glob("*.pt"))) == 4
    weights = torch.load(out / "model.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values()) and weights["latent_scale"] != 1
    assert weights["ms_spade.out.conv.weight"].any() and weights["diffusion.unet.out.2.conv.weight"].any()


def test_a_second_training_loads_what_is_finished(folder):
    weights = (folder / "out" / "model.pt").read_bytes()
    times = [(folder / "out" / stage / "finished.pt").stat().st_mtime_ns for stage in STAGES]
    command("training", "train", dataset_dir=folder / "scans", output_dir=folder / "out", **SHORT)
    assert [(folder / "out" / stage / "finished.pt").stat().st_mtime_ns for stage in STAGES] == times
    before, after = (
        torch.load(io.BytesIO(x), weights_only=True) for x in (weights, (folder / "out" / "model.pt").read_bytes())
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_inference(folder):
    options = {"dataset_dir": folder / "scans", "output_dir": folder / "made", "weights": folder / "out" / "model.pt"}
    command("inference", "inference", **options, num_samples=2)
    results = folder / "made" / "B"
    expected = {f"B_{name}_{kind}.nii.gz" for name in ("t1ce", "t2") for kind in ("synth", "uncertainty")}
    assert {path.name for path in results.iterdir()} == expected | {"B.json", "B_qc.png"}
    given = nib.load(folder / "scans" / "B" / "B_t1.nii.gz")
    for name in expected:
        image = nib.load(results / name)
        assert image.shape == given.shape and image.get_data_dtype() == np.float32
        assert np.array_equal(image.affine, given.affine)
        values = image.get_fdata()
        outside = given.get_fdata() == 0  # the brain's rim, known to half a voxel of 2 mm
        assert values.any() and (values[outside] > 0).mean() < 0.03 and values.max() <= 1
    report = json.loads((results / "B.json").read_text("utf-8"))
    assert report["targets"] == ["t1ce", "t2"] and (report["mode"], report["num_steps"]) == ("sample", 2)
    assert set(report["inputs"]) == {"t1", "flair"}
    assert "t1ce is synthetic" in " ".join(report["warnings"])
    command("inference", "inference", **options, num_samples=2)
    statuses = [row["status"] for row in json.loads((folder / "made" / "summary.json").read_text("utf-8"))]
    assert statuses == ["nothing missing", "skipped"]


def test_evaluation(folder):
    command(
        "evaluation", "evaluate", dataset_dir=folder / "scans", output_dir=folder / "scores",
        weights=folder / "out" / "model.pt", measures=["psnr", "psnr_volume"],
    )  # fmt: skip
    results = json.loads((folder / "scores" / "results.json").read_text("utf-8"))
    rows = [row for row in results["results"] if row["method"] == "network"]
    # every contrast from each one of the others: 12 of the complete subject, 2 of the other
    assert len(rows) == 14 and all(row["available"] == 1 for row in rows)
    assert all(0 < row["psnr"] < 60 for row in rows) and results["network"] == "ALDM"


def test_the_ceiling(folder):
    command(
        "evaluation", "evaluate", further="ceiling", dataset_dir=folder / "scans", output_dir=folder / "ceiling",
        weights=folder / "out" / "model.pt", measures=["psnr"],
    )  # fmt: skip
    results = json.loads((folder / "ceiling" / "results.json").read_text("utf-8"))
    rows = [row for row in results["results"] if row["method"] == "network"]
    assert len(rows) == 6 and "each contrast from itself" in results["network"]
    single = json.loads((folder / "scores" / "results.json").read_text("utf-8"))["results"]
    mean = {
        name: np.mean([row["psnr"] for row in part if row["method"] == "network"])
        for name, part in (("ceiling", rows), ("translated", single))
    }
    print(mean)
    assert 0 < mean["ceiling"] < 60


def test_weights_of_another_size_are_one_line(folder):
    options = {"dataset_dir": folder / "scans", "output_dir": folder / "no", "weights": folder / "out" / "model.pt"}
    with pytest.raises(RuntimeError) as raised:
        command("inference", "inference", **options, num_codes=64)
    assert "the weights are of another architecture" in str(input_error_in(raised.value))
