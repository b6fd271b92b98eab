"""Subject by subject: what is made, kept, skipped, and what happens where something is wrong."""

import csv
import errno
import json
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

import bundle.engines.synthesis as synthesis
from bundle.errors import InputError, input_error_in
from tests.engines.average import AverageNetwork
from tests.networks.models import tiny
from tests.phantom import affine_of, scan, within, world_of, write_subject

CONFIG = Path(__file__).parents[2] / "configs" / "inference.json"
SHAPE = (64, 84, 20)
AFFINE = affine_of(SHAPE, (1, 1, 3), "LPS", (6, 4))
CONTRASTS = ["t1", "t1ce", "t2", "flair"]


@pytest.fixture
def run(tmp_path):
    """Build the evaluator of the shipped config with overrides, run it, and return it."""
    torch.save(AverageNetwork(CONTRASTS).state_dict(), tmp_path / "model.pt")

    def run_(**overrides):
        parser = ConfigParser()
        parser.read_config(CONFIG)
        parser.update(
            {
                "dataset_dir": str(tmp_path / "in"),
                "output_dir": str(tmp_path / "out"),
                "weights": str(tmp_path / "model.pt"),
                "network_def": {"_target_": "tests.engines.average.AverageNetwork", "contrasts": "@contrasts"},
                **overrides,
            }
        )
        evaluator = parser.get_parsed_content("evaluator")
        evaluator.run()
        return evaluator

    return run_


def sidecar(tmp_path, subject):
    return json.loads((tmp_path / "out" / subject / f"{subject}.json").read_text(encoding="utf-8"))


def volume(tmp_path, subject, name):
    return nib.load(tmp_path / "out" / subject / f"{subject}_{name}.nii.gz").get_fdata()


def statuses(evaluator):
    return {record["subject"]: record["status"] for record in evaluator.records}


def test_missing_contrasts_are_made(tmp_path, run):
    paths = write_subject(tmp_path / "in" / "a", ["t1", "flair"], SHAPE, AFFINE)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), tmp_path / "in" / "a" / "a_seg.nii.gz")  # not needed
    write_subject(tmp_path / "in" / "complete", CONTRASTS, SHAPE, AFFINE)
    evaluator = run()
    assert statuses(evaluator) == {"a": "done", "complete": "nothing missing"}
    evaluator.exit_on_failure()
    names = ["a.json", "a_qc.png", "a_t1ce_synth.nii.gz", "a_t2_synth.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "out" / "a").iterdir()) == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a",
        "report.html",
        "summary.csv",
        "summary.json",
    ]

    # the average of both scans, each in its scale, 0 outside the brain
    made = volume(tmp_path, "a", "t2_synth")
    scales = sidecar(tmp_path, "a")["input_intensities"]
    truth = {name: nib.load(paths[name]).get_fdata() for name in ("t1", "flair")}
    scaled = [
        np.clip((image - scales[name]["low"]) / (scales[name]["high"] - scales[name]["low"]), 0, 1)
        for name, image in truth.items()
    ]
    brain = truth["t1"] > 0
    assert np.abs(made - np.mean(scaled, axis=0))[brain].mean() < 0.03
    assert made.min() == 0 and made.max() <= 1 and np.mean(made[~brain] > 0) < 0.05
    enhanced = volume(tmp_path, "a", "t1ce_synth")  # the same, but its upper quartile is held to its scale
    assert np.percentile(enhanced[brain], 75) == pytest.approx(0.4, abs=0.01)
    np.testing.assert_allclose(enhanced, made * (0.4 / np.percentile(made[brain], 75)), atol=0.02)

    report = sidecar(tmp_path, "a")
    assert report["targets"] == ["t1ce", "t2"] and report["reference"] == "t1"
    assert report["inputs"] == paths and set(report["inputs_sha256"]) == {"t1", "flair"}
    assert len(report["inputs_sha256"]["t1"]) == len(report["weights_sha256"]) == 64
    assert report["files"] == ["a_t1ce_synth.nii.gz", "a_t2_synth.nii.gz", "a_qc.png"]
    assert [line for line in report["warnings"] if "t1ce is synthetic: it shows no real uptake" in line]
    assert report["intensity_scale"]["t2"] == "0 and 1 stand for the 0.5 and 99.5 percentile inside the brain"
    assert report["intensity_scale"]["t1ce"] == "0 and 0.4 stand for the 0.5 and 75 percentile inside the brain"
    assert set(report["seconds"]) == {"preprocessing", "synthesis", "postprocessing", "writing"}


def test_modes_and_samples(tmp_path, run):
    write_subject(tmp_path / "in" / "a", ["t1", "flair"], SHAPE, AFFINE)

    def made(name="t2_synth", **chosen):
        run(targets=["t2"], **chosen)
        return volume(tmp_path, "a", name)

    plain = made()
    one, two = made(mode="sample", seed=5), made(mode="sample", seed=6)
    brain = plain > 0
    assert 0.03 < (one - plain)[brain].std() < 0.06 and not np.array_equal(one, two)
    assert np.array_equal(made(mode="sample", seed=5), one)
    assert not (tmp_path / "out" / "a" / "a_t2_uncertainty.nii.gz").exists()

    # several samples: the one of the seed, or their mean; their deviation either way
    assert np.array_equal(made(mode="sample", seed=5, num_samples=2), one)
    deviation = volume(tmp_path, "a", "t2_uncertainty")
    inner = brain & (plain > 0.2) & (plain < 0.8)
    near = np.abs(deviation - np.abs(one - two) / np.sqrt(2))[inner]
    assert near.mean() < 0.01  # not 0: both were interpolated to the thick slices
    mean = made(mode="mean", seed=5, num_samples=2)
    np.testing.assert_allclose(mean[brain], (one + two)[brain] / 2, atol=1e-5)
    assert np.array_equal(volume(tmp_path, "a", "t2_uncertainty"), deviation)
    assert sidecar(tmp_path, "a")["num_samples"] == 2
    # the uncertainty of an earlier result goes with it, the results for other contrasts stay
    run(targets=["t1ce"])
    assert (tmp_path / "out" / "a" / "a_t2_uncertainty.nii.gz").exists()
    made(mode="mean")
    assert not (tmp_path / "out" / "a" / "a_t2_uncertainty.nii.gz").exists()
    assert (tmp_path / "out" / "a" / "a_t1ce_synth.nii.gz").exists()


def test_named_target_that_exists_is_not_seen(tmp_path, run):
    write_subject(tmp_path / "in" / "a", ["t1", "t2"], SHAPE, AFFINE)
    first = run(targets=["t1"])
    made = volume(tmp_path, "a", "t1_synth")
    assert sidecar(tmp_path, "a")["reference"] == "t2" and set(sidecar(tmp_path, "a")["inputs"]) == {"t2"}
    # whatever is in the hidden file
    blank = scan(SHAPE, AFFINE)
    nib.save(nib.Nifti1Image(1000 - blank.get_fdata(), AFFINE), tmp_path / "in" / "a" / "a_t1.nii.gz")
    assert statuses(run(targets=["t1"])) == {"a": "skipped"}
    run(targets=["t1"], overwrite="true")
    assert np.array_equal(volume(tmp_path, "a", "t1_synth"), made)
    assert statuses(first) == {"a": "done"}
    failed = run(targets=["t1", "t2"])
    assert "no scan is left to make t1, t2 from" in failed.records[0]["reason"]


def test_done_subjects_are_skipped(tmp_path, run):
    paths = write_subject(tmp_path / "in" / "a", ["t1"], SHAPE, AFFINE)
    file = tmp_path / "out" / "a" / "a_t2_synth.nii.gz"
    assert statuses(run()) == {"a": "done"}
    written = file.stat().st_mtime_ns
    (tmp_path / "out" / ".a.partial").mkdir()  # a run that was killed after its last file had moved leaves this
    assert statuses(run()) == {"a": "skipped"} and file.stat().st_mtime_ns == written
    assert not (tmp_path / "out" / ".a.partial").exists()
    scale = {"registry": {"t1": {"intensity": {"percentiles": [1, 99]}}}}
    for change in ({"seed": 3}, {"seed": 3, "targets": ["t2"]}, scale, {"overwrite": True}):
        assert statuses(run(**change)) == {"a": "done"}, change
    assert file.stat().st_mtime_ns > written
    assert statuses(run()) == {"a": "skipped"}
    # a file of the results is gone, an input has changed, or the weights have
    file.unlink()
    assert statuses(run()) == {"a": "done"} and file.exists()
    nib.save(scan(SHAPE, AFFINE, gain=2), paths["t1"])
    assert statuses(run()) == {"a": "done"}
    torch.save({"gain": torch.full((1,), 0.5)}, tmp_path / "model.pt")
    assert statuses(run()) == {"a": "done"}
    assert statuses(run()) == {"a": "skipped"}


@pytest.mark.parametrize("read_ahead", [0, 2])
def test_a_bad_subject_does_not_stop_the_others(tmp_path, run, capsys, read_ahead):
    write_subject(tmp_path / "in" / "a", ["t1"], SHAPE, AFFINE)
    bad = write_subject(tmp_path / "in" / "b", ["t1", "t2"], SHAPE, AFFINE)
    far = AFFINE.copy()
    far[:3, 3] += 500
    nib.save(nib.Nifti1Image(scan(SHAPE, AFFINE).get_fdata(), far), bad["t2"])
    write_subject(tmp_path / "in" / "c", ["t1"], SHAPE, AFFINE)
    cut = Path(write_subject(tmp_path / "in" / "d", ["t1"], SHAPE, AFFINE)["t1"])
    cut.write_bytes(cut.read_bytes()[:-500])
    evaluator = run(read_ahead=read_ahead)
    assert statuses(evaluator) == {"a": "done", "b": "failed", "c": "done", "d": "failed"}
    told = capsys.readouterr().out.splitlines()
    line = next(line for line in told if line.startswith("[2/4] b: failed"))
    assert "b_t2.nii.gz: does not overlap" in line
    assert not (tmp_path / "out" / "b").exists()

    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["subject"], row["status"], row["made"]) for row in rows] == [
        ("a", "done", "t1ce t2 flair"), ("b", "failed", ""), ("c", "done", "t1ce t2 flair"), ("d", "failed", "")
    ]  # fmt: skip
    assert "d_t1.nii.gz" in rows[3]["reason"] and rows[3]["reason"].count("\n") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))[1]["status"] == "failed"
    with pytest.raises(SystemExit) as leaving:
        evaluator.exit_on_failure()
    assert leaving.value.code == 1
    assert "2 of 4 subjects failed" in capsys.readouterr().err


def test_reading_ahead_changes_no_byte(tmp_path, run):
    """The way back to the scan's grid undoes what another process has done."""
    for subject in "abc":
        write_subject(tmp_path / "in" / subject, ["t1", "flair"], SHAPE, AFFINE)
    run(mode="sample")
    write_subject(tmp_path / "in" / "done", CONTRASTS, SHAPE, AFFINE)
    ahead = run(mode="sample", read_ahead=1, output_dir=str(tmp_path / "ahead"))
    assert statuses(ahead) == {"a": "done", "b": "done", "c": "done", "done": "nothing missing"}
    for subject in "abc":
        for name in (f"{subject}_t2_synth.nii.gz", f"{subject}_qc.png"):
            one, other = (tmp_path / folder / subject / name for folder in ("out", "ahead"))
            assert one.read_bytes() == other.read_bytes(), name
    again = run(mode="sample", read_ahead=1, output_dir=str(tmp_path / "ahead"))
    assert statuses(again)["c"] == "skipped" and not again.prepared.begun
    with pytest.raises(RuntimeError) as raised:
        run(read_ahead=-1)
    said = "read_ahead is -1. Use --read_ahead with a whole number of at least 0"
    assert str(input_error_in(raised.value)) == said


def test_large_scans(tmp_path, run, monkeypatch):
    """Slab by slab come the same volumes, also where the reference scan is small and another one large."""
    for subject, other in (("a", SHAPE), ("b", (20, 24, 20))):
        folder = tmp_path / "in" / subject
        write_subject(folder, ["t1"], other, affine_of(other, 64 / other[0] * np.array([1, 1, 3]), "LPS", (6, 4)))
        write_subject(folder, ["flair"], SHAPE, AFFINE)
    options = {"mode": "sample", "num_samples": 2}
    run(**options)
    monkeypatch.setattr("bundle.data.scan_file.AT_ONCE", 20_000)
    monkeypatch.setattr("bundle.data.scan_file.SLAB", 64 * 84 * 3)
    large = run(**options, output_dir=str(tmp_path / "large"))
    assert statuses(large) == {"a": "done", "b": "done"}
    for subject in "ab":
        files = {path.name for path in (tmp_path / "out" / subject).iterdir()}
        assert files == {path.name for path in (tmp_path / "large" / subject).iterdir()} and len(files) == 6
        for name in (name for name in files if name.endswith(".nii.gz")):
            one, other = (nib.load(tmp_path / folder / subject / name) for folder in ("out", "large"))
            assert np.array_equal(one.affine, other.affine) and one.header == other.header
            one, other = one.get_fdata(), other.get_fdata()
            assert ((one > 0) != (other > 0)).mean() < 1e-4  # a voxel of the rim, of which just half lies in the brain
            both = (one > 0) & (other > 0)
            np.testing.assert_allclose(other[both], one[both], atol=2e-4)
        assert both.any()


def test_disk_full(tmp_path, run, monkeypatch):
    write_subject(tmp_path / "in" / "a", ["t1"], SHAPE, AFFINE)
    write_subject(tmp_path / "in" / "b", ["t1"], SHAPE, AFFINE)
    volume_file = synthesis.volume_file

    @contextmanager
    def full(path, *args):
        with volume_file(path, *args) as write:
            yield write
            if path.name == "a_t2_synth.nii.gz":
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synthesis, "volume_file", full)
    evaluator = run()
    assert statuses(evaluator) == {"a": "failed", "b": "done"}
    assert "no space is left. Free some" in evaluator.records[0]["reason"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "b",
        "report.html",
        "summary.csv",
        "summary.json",
    ]
    monkeypatch.undo()
    assert statuses(run()) == {"a": "done", "b": "skipped"}


def test_unforeseen_error_is_not_hidden(tmp_path, run, monkeypatch, caplog):
    write_subject(tmp_path / "in" / "a", ["t1"], SHAPE, AFFINE)

    def fail(self, x):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(AverageNetwork, "forward", fail)
    evaluator = run()
    assert evaluator.records[0]["reason"] == "unforeseen RuntimeError: two lines. Report it with the lines above"
    assert "Traceback" in caplog.text and "in fail" in caplog.text


def test_interrupted(tmp_path, run, monkeypatch):
    write_subject(tmp_path / "in" / "a", ["t1"], SHAPE, AFFINE)
    write_subject(tmp_path / "in" / "b", ["t1"], SHAPE, AFFINE)
    draw = synthesis.write_qc

    def interrupt(path, *args):
        if path.name == "b_qc.png":
            raise KeyboardInterrupt
        draw(path, *args)

    monkeypatch.setattr(synthesis, "write_qc", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "summary.csv", "summary.json"]
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["subject"], row["status"]) for row in rows] == [("a", "done")]


def test_two_contrasts(tmp_path, run):
    write_subject(tmp_path / "in" / "a", ["FLAIR"], SHAPE, AFFINE)
    run(contrasts=["t1", "flair"])
    assert sidecar(tmp_path, "a")["targets"] == ["t1"]


def test_given_mask(tmp_path, run):
    write_subject(tmp_path / "in" / "a", ["t1"], SHAPE, AFFINE)
    mask = np.zeros(SHAPE, np.uint8)
    mask[20:50, 20:60, 4:16] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "in" / "a" / "a_brain_mask.nii.gz")
    run(targets=["t2"])
    made = volume(tmp_path, "a", "t2_synth")
    assert "mask" in sidecar(tmp_path, "a")["inputs"]
    assert not made[mask == 0].any() and np.mean(made[mask == 1] > 0) > 0.9


def test_gate_maps(tmp_path, run):
    """Gates that are 1/2 everywhere: maps of the given contrasts, 1/2 in the brain, on the grid of the scan."""
    shape = (64, 84, 4)
    write_subject(tmp_path / "in" / "a", ["t1", "flair"], shape, affine := affine_of(shape, (1, 1, 3), "LPS"))
    network = tiny()
    for mmsf in network.disentanglement.mmsf:
        for weights in (*mmsf.gate_own.parameters(), *mmsf.gate_context.parameters()):
            torch.nn.init.zeros_(weights)
    torch.save(network.state_dict(), tmp_path / "tiny.pt")
    msgldm = {"network_def": network, "weights": str(tmp_path / "tiny.pt"), "amp": False}
    gates = ["a_t1_gate.nii.gz", "a_flair_gate.nii.gz"]
    assert "gate_maps" not in written(tmp_path, run(**msgldm)) and not (tmp_path / "out" / "a" / gates[0]).exists()
    report = written(tmp_path, run(**msgldm, gate_maps="true"))
    assert report["gate_maps"] is True and [name for name in report["files"] if "gate" in name] == gates
    made = volume(tmp_path, "a", "t2_synth") > 0
    for name in ("t1_gate", "flair_gate"):
        maps = volume(tmp_path, "a", name)
        assert maps[made] == pytest.approx(0.5, abs=1e-5) and not maps[within(world_of(shape, affine), 1.1) == 0].any()
    # who asks for none is content with them; made anew without them, they go
    assert statuses(run(**msgldm)) == {"a": "skipped"}
    written(tmp_path, run(**msgldm, overwrite=True))
    assert not (tmp_path / "out" / "a" / gates[0]).exists()
    with pytest.raises((InputError, RuntimeError)) as error:  # MONAI wraps what is raised in a config
        run(gate_maps=True)
    assert "AverageNetwork has no gates with these settings. Leave --gate_maps out" in str(input_error_in(error.value))


@pytest.mark.parametrize("option", ["mirrored", "three_planes"])
def test_views(tmp_path, run, option):
    write_subject(tmp_path / "in" / "a", ["t1", "flair"], SHAPE, AFFINE)
    network = tiny()
    torch.save(network.state_dict(), tmp_path / "tiny.pt")
    msgldm = {"network_def": network, "weights": str(tmp_path / "tiny.pt"), "amp": False}
    assert written(tmp_path, run(**msgldm))[option] is False
    plain = volume(tmp_path, "a", "t2_synth")
    evaluator = run(**msgldm, **{option: "true"})  # as it comes from the command line
    assert written(tmp_path, evaluator)[option] is True
    assert np.abs(volume(tmp_path, "a", "t2_synth") - plain).max() > 1e-4
    # left and right are exchanged, however the scan lies, and slices across the third axis are axial
    assert np.diag(evaluator.dataset[0]["image"].affine)[:3] == pytest.approx(1, abs=0.01)
    with pytest.raises((InputError, RuntimeError)) as error:  # MONAI wraps what is raised in a config
        run(**{option: True}, mode="sample")
    line = f"{option} is true, but AverageNetwork starts no sample from a mean of views. Leave --{option} out, or use"
    assert line in str(input_error_in(error.value))


def written(tmp_path, evaluator):
    """The sidecar of subject a, which was done."""
    assert statuses(evaluator) == {"a": "done"}, evaluator.records
    return sidecar(tmp_path, "a")


def test_results_inside_the_scans(tmp_path, run):
    write_subject(tmp_path / "in" / "a", ["t1"], SHAPE, AFFINE)
    with pytest.raises(InputError, match="lies inside the input folder"):
        run(output_dir=str(tmp_path / "in" / "out"))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a"]


def test_unused_files_are_reported_and_may_stop_a_synthesis(tmp_path, run):
    write_subject(tmp_path / "in" / "a", ["t1", "t2", "flair"], SHAPE, AFFINE)
    write_subject(tmp_path / "in" / "b", ["t1", "t2", "flair"], SHAPE, AFFINE)
    (tmp_path / "in" / "a" / "a_ADC.nii.gz").touch()
    (tmp_path / "in" / "b" / "b_T1Gd.mha").touch()
    evaluator = run()
    assert statuses(evaluator) == {"a": "done", "b": "failed"}
    line = f"{tmp_path / 'in' / 'a' / 'a_ADC.nii.gz'}: adc is not asked for"
    assert sidecar(tmp_path, "a")["unused"] == [line] and sidecar(tmp_path, "a")["warnings"][1:] == []
    reason = evaluator.records[1]["reason"]
    assert reason.startswith("b: b_T1Gd.mha may be the missing t1ce: .mha files are not read") and "list" in reason
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0]["unused"] == line and "b_T1Gd.mha: .mha files are not read" in rows[1]["unused"]
    assert "not used: " in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert statuses(run(ignore_unread=True)) == {"a": "skipped", "b": "done"}
    assert "b_T1Gd.mha" in sidecar(tmp_path, "b")["unused"][0]
