import json

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from tests.conftest import ROOT
from tests.engines.average import AverageNetwork
from tests.phantom import affine_of, write_subject

SHAPE = (64, 84, 54)
NO_LEVEL = {"flair": {"intensity": {"percentiles": [0.5, 99.5]}}}


class AverageOfVolumes(AverageNetwork):
    """The mean of the sources, as `AverageNetwork`, for volumes; no box is needed."""

    divisor = 1

    def forward(self, x):
        depth = x.shape[-1]
        return super().forward(x.flatten(-2)).unflatten(-1, (-1, depth))


def evaluator(folder, monkeypatch, **options):
    """The evaluator of the inference config, with a stub for the network."""
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config("configs/aldm/inference.json")
    network = AverageOfVolumes(("t1", "t1ce", "t2", "flair"))
    parser.update({
        "network_def": network, "network": network, "checksum": "0", "dataset_dir": str(folder / "scans"),
        "output_dir": str(folder / "out"), "targets": ["flair"], "amp": False, "mode": "mean",
        "spacing": 2.0, "slice_size": 128, **options,
    })  # fmt: skip
    return parser.get_parsed_content("evaluator")


@pytest.fixture
def scans(tmp_path):
    write_subject(tmp_path / "scans" / "A", ["t1", "t2"], SHAPE, affine_of(SHAPE, (1, 1, 1), "LPS", (10, 5)))
    write_subject(tmp_path / "scans" / "B", ["t2"], SHAPE, affine_of(SHAPE, (1, 1, 1)))
    return tmp_path


@pytest.mark.parametrize("large", [False, True])
def test_each_source_beside_their_mean(scans, monkeypatch, large):
    if large:  # read and written slab by slab
        monkeypatch.setattr("bundle.data.scan_file.AT_ONCE", 64 * 84 * 20)
        monkeypatch.setattr("bundle.data.scan_file.SLAB", 64 * 84 * 10)
    made = evaluator(scans, monkeypatch, each_source=True, registry=NO_LEVEL)
    made.run()
    assert [record["status"] for record in made.records] == ["done", "done"]
    names = {path.name for path in (scans / "out" / "A").glob("*.nii.gz")}
    assert names == {"A_flair_synth.nii.gz", "A_flair_from_t1_synth.nii.gz", "A_flair_from_t2_synth.nii.gz"}
    mean, *alone = (nib.load(scans / "out" / "A" / name).get_fdata() for name in sorted(names, key=len))
    np.testing.assert_allclose(mean, sum(alone) / 2, atol=1e-5)
    given = nib.load(scans / "scans" / "A" / "A_t1.nii.gz")
    written = nib.load(scans / "out" / "A" / "A_flair_from_t2_synth.nii.gz")
    assert written.shape == given.shape and np.array_equal(written.affine, given.affine)
    assert set(json.loads((scans / "out" / "A" / "A.json").read_text())["files"]) > names
    assert len(list((scans / "out" / "B").glob("*.nii.gz"))) == 1  # one source: its prediction is the result


def test_a_single_prediction_is_what_its_source_alone_gives(scans, monkeypatch):
    evaluator(scans, monkeypatch, each_source=True).run()
    beside = nib.load(scans / "out" / "A" / "A_flair_from_t1_synth.nii.gz").get_fdata()
    evaluator(scans, monkeypatch, sources=["t1"], output_dir=str(scans / "alone")).run()
    alone = nib.load(scans / "alone" / "A" / "A_flair_synth.nii.gz").get_fdata()
    assert alone.max() > 0.3
    np.testing.assert_allclose(beside, alone, atol=1e-5)


def test_results_without_the_single_predictions_are_made_again(scans, monkeypatch):
    for each_source, status in ((False, "done"), (True, "done"), (True, "skipped"), (False, "skipped")):
        made = evaluator(scans, monkeypatch, each_source=each_source)
        made.run()
        assert {record["status"] for record in made.records} == {status}


def test_a_chosen_source(scans, monkeypatch):
    made = evaluator(scans, monkeypatch, sources=["t1"])
    made.run()
    assert [record["status"] for record in made.records] == ["done", "failed"]
    assert "Give at least one of t1" in made.records[1]["reason"]
    assert list(json.loads((scans / "out" / "A" / "A.json").read_text())["inputs"]) == ["t1"]


def test_geometry_round_trip(scans, monkeypatch):
    """The mean of T1 and T2, which follow one pattern, comes back to the scanner's grid where it was."""
    made = evaluator(scans, monkeypatch, spacing=1.0, slice_size=96, registry=NO_LEVEL)
    made.run()
    t1, t2, flair = (
        nib.load(scans / folder / "A" / f"A_{name}.nii.gz").get_fdata()
        for folder, name in (("scans", "t1"), ("scans", "t2"), ("out", "flair_synth"))
    )
    inside = (t1 > 0) & (flair > 0)
    scaled = [
        np.clip((x - np.percentile(x[x > 0], 0.5)) / np.ptp(np.percentile(x[x > 0], [0.5, 99.5])), 0, 1)
        for x in (t1, t2)
    ]
    assert inside.sum() > 0.97 * (t1 > 0).sum()
    assert np.abs(flair - sum(scaled) / 2)[inside].mean() < 0.01
