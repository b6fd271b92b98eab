"""The inference command as a user types it, with a stub for the network."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run
from nibabel.processing import resample_from_to

from bundle.errors import input_error_in
from tests.engines.average import AverageNetwork
from tests.phantom import affine_of, scan, write_subject

ROOT = Path(__file__).parents[1]
CONTRASTS = ["t1", "t1ce", "t2", "flair"]
STUB = "{'_target_': 'tests.engines.average.AverageNetwork', 'contrasts': '@contrasts', 'seconds': %s}"
SHAPE, SLAB = (64, 84, 54), (70, 90, 16)
AFFINE = affine_of(SHAPE, (1, 1, 1))


def command(dataset, output, weights, *options, seconds=0.0):
    """The words of the command."""
    return [
        *(sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.json"),
        *("--dataset_dir", str(dataset), "--output_dir", str(output), "--weights", str(weights)),
        *("--network_def", STUB % seconds, *options),
    ]


def start(*arguments, **keywords):
    """The command, started in the root of the bundle as in a shell."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command(*arguments, **keywords), cwd=ROOT, env=environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(AverageNetwork(CONTRASTS).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory, weights):
    """One run over good and bad subjects: (folder, exit status, standard output, standard error)."""
    folder = tmp_path_factory.mktemp("many")
    scans = folder / "in put"
    write_subject(
        scans / "Jos\u00e9 M\u00fcller 1", ["t1", "flair"], SLAB, affine_of(SLAB, (0.9, 0.9, 3.6), "PIR", (14, -9))
    )
    write_subject(scans / "flat LPS", ["t2"], SHAPE, affine_of(SHAPE, (1, 1, 1), "LPS"))
    write_subject(scans / "complete", CONTRASTS, SHAPE, AFFINE)
    cut = Path(write_subject(scans / "cut", ["t1"], SHAPE, AFFINE)["t1"])
    cut.write_bytes(cut.read_bytes()[:-800])
    apart = write_subject(scans / "apart", ["t1", "t2"], SHAPE, AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 300
    nib.save(nib.Nifti1Image(scan(SHAPE, AFFINE).get_fdata(), moved), apart["t2"])
    (scans / "circle").mkdir()
    (scans / "circle" / "circle").symlink_to(scans / "circle")
    (scans / "photo").mkdir()
    nib.save(scan(SHAPE, AFFINE), scans / "photo" / "photo_x.nii.gz")
    process = start(scans, folder / "out", weights, "--num_samples", "2", "--seed", "3")
    out, err = process.communicate(timeout=300)
    print(out, err)
    return folder, process.returncode, out, err


def test_every_subject_is_accounted_for(many):
    folder, status, out, err = many
    assert status == 1
    rows = {
        row["subject"]: row for row in csv.DictReader((folder / "out" / "summary.csv").read_text("utf-8").splitlines())
    }
    assert {name: row["status"] for name, row in rows.items()} == {
        "Jos\u00e9 M\u00fcller 1": "done", "flat LPS": "done", "complete": "nothing missing",
        "cut": "failed", "apart": "failed", "circle": "failed", "photo": "failed",
    }  # fmt: skip
    assert "cut_t1.nii.gz: is truncated" in rows["cut"]["reason"]
    assert "apart_t2.nii.gz: does not overlap" in rows["apart"]["reason"]
    assert "circle/circle: is a link" in rows["circle"]["reason"] and "photo_x.nii.gz" in rows["photo"]["reason"]
    assert len(json.loads((folder / "out" / "summary.json").read_text("utf-8"))) == 7
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "Jos\u00e9 M\u00fcller 1", "flat LPS", "report.html", "summary.csv", "summary.json"
    ]  # fmt: skip


def test_what_is_printed(many):
    _, _, out, err = many
    lines = out.splitlines()
    assert sum(line.startswith("[") for line in lines) == 7
    assert "Traceback" not in out + err
    # MONAI warns of its own config language before anything of this bundle runs
    rest = [line for line in err.splitlines() if "parsing config_file" not in line and "create_workflow(" not in line]
    assert len(rest) == 1 and rest[0].startswith("4 of 7 subjects failed, see ")


def test_results(many):
    folder, *_ = many
    for subject, reference, made in (
        ("Jos\u00e9 M\u00fcller 1", "t1", ["t1ce", "t2"]), ("flat LPS", "t2", ["t1", "t1ce", "flair"])
    ):  # fmt: skip
        results = folder / "out" / subject
        given = nib.load(folder / "in put" / subject / f"{subject}_{reference}.nii.gz")
        volumes = [f"{subject}_{name}_{kind}.nii.gz" for name in made for kind in ("synth", "uncertainty")]
        assert sorted(path.name for path in results.iterdir()) == sorted(
            [*volumes, f"{subject}_qc.png", f"{subject}.json"]
        )
        for name in volumes:
            image = nib.load(results / name)
            assert image.shape == given.shape and image.get_data_dtype() == np.float32
            assert np.array_equal(image.affine, given.affine)
            for code in ("qform_code", "sform_code", "xyzt_units"):
                assert image.header[code] == given.header[code]
        report = json.loads((results / f"{subject}.json").read_text("utf-8"))
        assert report["targets"] == made and report["reference"] == reference and report["seed"] == 3
        assert (report["mode"], report["num_samples"], report["num_steps"]) == ("mean", 2, 8)
        assert set(report) >= {
            "bundle_version",
            "weights_sha256",
            "seconds",
            "warnings",
            "intensity_scale",
            "inputs",
        }

        brain = given.get_fdata() > 0
        scaled = []
        for name, scale in report["input_intensities"].items():
            scan = resample_from_to(nib.load(report["inputs"][name]), given, order=1).get_fdata()
            scaled.append(np.clip((scan - scale["low"]) / (scale["high"] - scale["low"]), 0, 1))
        mean = np.mean(scaled, axis=0)
        plain = f"{subject}_{'t2' if 't2' in made else 't1'}_synth.nii.gz"  # T1CE and FLAIR are held to a level
        error = np.abs(nib.load(results / plain).get_fdata() - mean)[brain & (mean > 0.2) & (mean < 0.8)]
        print(f"{subject}: mean error {error.mean():.4f} of 1")
        assert error.mean() < 0.06  # the noise of the stub's two samples


def test_real_scans(shared_data, tmp_path, weights):
    """Thick slices with skull, each contrast on its own grid, and stripped scans with spline overshoot."""
    for subject, files in (
        ("thick", [f"open_ms_longitudinal/patient01/raw/study1_{name}.nii.gz" for name in ("T1W", "FLAIR")]),
        ("overshoot", [f"open_ms/patient26/{name}.nii.gz" for name in ("T1", "T2")]),
    ):
        (tmp_path / "in" / subject).mkdir(parents=True)
        for file in files:
            (tmp_path / "in" / subject / file.rsplit("_")[-1].rsplit("/")[-1]).symlink_to(shared_data / file)
    process = start(tmp_path / "in", tmp_path / "out", weights, "--targets", "['t1ce']")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    for subject, line in (("thick", "still have their skull"), ("overshoot", "were below 0, as a spline overshoots")):
        report = json.loads((tmp_path / "out" / subject / f"{subject}.json").read_text("utf-8"))
        assert [warning for warning in report["warnings"] if line in warning]
        assert line in out
        given = nib.load(report["inputs"]["t1"])
        made = nib.load(tmp_path / "out" / subject / f"{subject}_t1ce_synth.nii.gz")
        assert made.shape == given.shape and np.array_equal(made.affine, given.affine)
        values = made.get_fdata()
        assert 0.05 < np.mean(values > 0) < 0.6 and values.max() <= 1
        # the stub's average has a part of the reference in it, which has to be at its place
        here = np.corrcoef(values[values > 0], given.get_fdata()[values > 0])[0, 1]
        mirrored = np.corrcoef(values[values > 0], given.get_fdata()[::-1][values > 0])[0, 1]
        assert here > 0.25 and here > mirrored + 0.1


def test_ctrl_c(tmp_path, weights):
    for number in range(4):
        write_subject(tmp_path / "in" / f"s{number}", ["t1"], SHAPE, AFFINE)
    process = start(tmp_path / "in", tmp_path / "out", weights, seconds=0.5)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    next(line for line in lines if line.startswith("[1/4] s0: "))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["s0", "summary.csv", "summary.json"]
    assert len(list((tmp_path / "out" / "s0").iterdir())) == 5


def test_fault_at_the_start_is_one_line(tmp_path, weights):
    process = start(tmp_path / "nowhere", tmp_path / "out", weights)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    lines = [line for line in err.splitlines() if "parsing config_file" not in line and "create_workflow(" not in line]
    assert len(lines) == 1 and lines[0].startswith(f"error: {tmp_path / 'nowhere'}: does not exist. ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"targets": ["t7"]}, "target 't7' is unknown"),
        ({"num_steps": 2000}, "num_steps is 2000. Use --num_steps with a whole number from 1 to 1000"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"mode": "best"}, "mode 'best' is unknown"),
        ({"overwrite": "perhaps"}, "overwrite is 'perhaps'"),
        ({"amp": "perhaps"}, "amp is 'perhaps'"),
        ({"contrasts": ["t1", "t9"]}, "unknown contrast 't9'"),
        ({"weights": "nowhere.pt"}, "nowhere.pt: the file with the network's weights is missing"),
        ({"dataset_dir": "{folder}/empty"}, "empty: holds no NIfTI file"),
        ({"output_dir": "{folder}/in/out"}, "lies inside the input folder"),
        ({"output_dir": "{folder}/a file/out"}, "cannot write to the output folder"),
    ],
)
def test_faults_at_the_start(tmp_path, weights, monkeypatch, overrides, line):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which the config replaces
    monkeypatch.chdir(ROOT)
    write_subject(tmp_path / "in" / "a", ["t1"], (16, 20, 12), affine_of((16, 20, 12), (4, 4, 4)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").touch()
    settings = {
        "dataset_dir": str(tmp_path / "in"),
        "output_dir": str(tmp_path / "out"),
        "weights": str(weights),
        "network_def": {"_target_": "tests.engines.average.AverageNetwork", "contrasts": "@contrasts"},
        **{key: value.format(folder=tmp_path) if isinstance(value, str) else value for key, value in overrides.items()},
    }
    with pytest.raises(Exception) as error:  # noqa: PT011  MONAI wraps what is raised in a config
        run(run_id="inference", config_file="configs/inference.json", logging_file=False, **settings)
    fault = input_error_in(error.value)
    assert fault is not None and line in str(fault) and "\n" not in str(fault)
    assert not (tmp_path / "out" / "a").exists()
