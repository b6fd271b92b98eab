"""One model runs with and without a lesion mask, from the files of a subject to its volume."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

from tests.conftest import ROOT
from tests.phantom import affine_of, write_subject

SHAPE = (64, 84, 20)
AFFINE = affine_of(SHAPE, (1, 1, 3))


def complete(folder: Path, region_mask: bool) -> np.ndarray:
    """The T2 that a tiny untrained model makes of the subject in `folder`/in."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs/inference.json"), str(ROOT / "configs/tiny.json")])
    parser.update(
        {
            "dataset_dir": str(folder / "in"),
            "output_dir": str(folder / "out"),
            "weights": str(folder / "model.pt"),
            "region_mask": region_mask,
            "overwrite": True,
            "targets": ["t2"],
        }
    )
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    assert [record["status"] for record in evaluator.records] == ["done"]
    return nib.load(folder / "out" / "a" / "a_t2_synth.nii.gz").get_fdata()


def test_the_mask_of_a_subject_reaches_the_network(tmp_path: Path) -> None:
    write_subject(tmp_path / "in" / "a", ["t1", "flair"], SHAPE, AFFINE)
    without = complete(tmp_path, region_mask=True)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[25:40, 30:50, 5:15] = 1
    nib.save(nib.Nifti1Image(lesion, AFFINE), tmp_path / "in" / "a" / "a_seg.nii.gz")
    given = complete(tmp_path, region_mask=True)
    assert np.abs(given - without)[25:40, 30:50, 6:14].max() > 1e-3
    sidecar = json.loads((tmp_path / "out" / "a" / "a.json").read_text())
    assert sidecar["region_mask"] is True and "label" in sidecar["inputs_sha256"]


def test_a_model_without_region_mask_never_opens_the_label(tmp_path: Path) -> None:
    write_subject(tmp_path / "in" / "a", ["t1", "flair"], SHAPE, AFFINE)
    lesion = np.ones(SHAPE, np.uint8)
    nib.save(nib.Nifti1Image(lesion, AFFINE), tmp_path / "in" / "a" / "a_seg.nii.gz")
    complete(tmp_path, region_mask=False)
    assert "label" not in json.loads((tmp_path / "out" / "a" / "a.json").read_text())["inputs_sha256"]
