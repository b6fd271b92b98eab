"""The demo's table of PSNR and SSIM."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError
from scripts import score_demo


@pytest.fixture
def demo(tmp_path):
    """Truth in scanner units of one subject with two contrasts, and what a perfect synthesis would write."""
    rng = np.random.default_rng(0)
    folders = tmp_path / "truth" / "DEMO-001", tmp_path / "output" / "DEMO-001"
    for folder in folders:
        folder.mkdir(parents=True)
    for contrast in ("t1", "label", "t2"):
        truth = np.zeros((24, 26, 22), np.float32)
        truth[4:-4, 4:-4, 4:-4] = rng.uniform(100, 900, (16, 18, 14))
        nib.save(nib.Nifti1Image(truth, np.eye(4)), folders[0] / f"DEMO-001_{contrast}.nii.gz")
        brain = truth > 0
        low, high = np.percentile(truth[brain], [0.5, 99.5])
        made = np.clip((truth - low) / (high - low), 0, 1) * brain
        if contrast != "label":
            nib.save(
                nib.Nifti1Image(made.astype(np.float32), np.eye(4)), folders[1] / f"DEMO-001_{contrast}_synth.nii.gz"
            )
    return tmp_path


def rewrite(path, change, affine=None):
    image = nib.load(path)
    values = change(image.get_fdata(dtype=np.float32))
    nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine if affine is None else affine), path)


def test_table_gives_the_error_that_was_put_in(demo, capsys):
    rewrite(demo / "output/DEMO-001/DEMO-001_t1_synth.nii.gz", lambda v: v + 0.1 * (v > -1))
    assert score_demo.report(demo / "truth", demo / "output") == 0
    text = capsys.readouterr().out
    assert re.search(r"DEMO-001\s+t1\s+20\.00\s+0\.\d{3}", text)
    assert re.search(r"DEMO-001\s+t2\s+(inf|[5-9]\d\.\d\d|1\d\d\.\d\d)\s+1\.000", text)
    assert "label" not in text
    assert "0.5 to 99.5 percentile" in text


def test_missing_volume_is_said_and_fails(demo, capsys):
    missing = demo / "output/DEMO-001/DEMO-001_t2_synth.nii.gz"
    missing.unlink()
    with pytest.raises(SystemExit) as stop:
        score_demo.main(["--truth_dir", str(demo / "truth"), "--output_dir", str(demo / "output")])
    assert stop.value.code == 1
    text = capsys.readouterr().out
    assert f"{missing}: was not synthesised" in text
    assert re.search(r"DEMO-001\s+t1\s+\S+\s+1\.000", text)  # the others are scored


def test_volume_on_another_grid_is_not_scored(demo, capsys):
    rewrite(demo / "output/DEMO-001/DEMO-001_t2_synth.nii.gz", lambda v: v, affine=np.diag([1.0, 1, 2, 1]))
    assert score_demo.report(demo / "truth", demo / "output") == 1
    assert "is not on the grid of" in capsys.readouterr().out


def test_no_truth_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="holds no truth"):
        score_demo.report(tmp_path, tmp_path)
