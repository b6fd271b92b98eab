"""Label conventions become whole tumour, tumour core and enhancing tumour, where they tell them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.data.labels import regions
from bundle.errors import InputError

CASES = {
    # convention, values -> whole, core, enhancing (for the values in order), which regions are told
    ("brats", (0, 1, 2, 4)): ("0111", "0101", "0001", (True, True, True)),
    ("brats", (0, 1, 2, 3)): ("0111", "0101", "0001", (True, True, True)),
    ("brats", (0, 1, 2, 3, 4)): ("01110", "01010", "00010", (True, True, True)),
    ("brats", (0, 2)): ("01", "00", "00", (True, True, True)),
    ("decathlon", (0, 1, 2, 3)): ("0111", "0011", "0001", (True, True, True)),
    ("binary", (0, 1)): ("01", "00", "00", (True, False, False)),
    ("binary", (0, 7, 255)): ("011", "000", "000", (True, False, False)),
    ("wmh", (0, 1, 2)): ("010", "000", "000", (True, False, False)),
    ("auto", (0,)): ("0", "0", "0", (True, False, False)),
    ("auto", (0, 1)): ("01", "00", "00", (True, False, False)),
    ("auto", (0, 255)): ("01", "00", "00", (True, False, False)),
    ("auto", (0, 1, 2)): ("011", "000", "000", (True, False, False)),
    ("auto", (0, 1, 2, 3)): ("0111", "0000", "0001", (True, False, True)),
    ("auto", (0, 1, 2, 4)): ("0111", "0101", "0001", (True, True, True)),
}


@pytest.mark.parametrize(("convention", "values"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_regions(convention, values, dtype):
    label = torch.tensor(values, dtype=dtype).reshape(1, -1)
    masks, told = regions(label, convention)
    *expected, validity = CASES[convention, values]
    assert (masks.dtype, masks.shape) == (torch.uint8, (3, *label.shape))
    assert ["".join(map(str, row.flatten().tolist())) for row in masks] == expected
    assert (told.dtype, tuple(told.tolist())) == (torch.bool, validity)


@pytest.mark.parametrize(
    ("convention", "values"), [("brats", (0, 5)), ("decathlon", (0, 4)), ("wmh", (3,)), ("auto", (2, 41, 85))]
)
def test_numbers_of_another_convention(convention, values):
    with pytest.raises(InputError, match=r"seg.nii.gz: has labels .* does not know"):
        regions(torch.tensor(values), convention, "seg.nii.gz")


def test_unknown_convention():
    with pytest.raises(InputError, match="'brats2012' is unknown"):
        regions(torch.zeros(3), "brats2012")


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        ("brats_gli/BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii.gz", "brats"),
        ("msd_brain_tumour/labelsTr/BRATS_001.nii.gz", "decathlon"),
    ],
)
def test_real_tumours_are_nested(shared_data, name, convention):
    label = torch.from_numpy(np.asarray(nib.load(shared_data / name).dataobj))
    (whole, core, enhancing), told = regions(label, convention)
    assert told.all()
    assert whole.sum() > core.sum() > enhancing.sum() > 0
    assert (core <= whole).all() and (enhancing <= core).all()
    assert whole.sum() == (label > 0).sum()


def test_real_lesions_are_no_tumours(shared_data):
    path = shared_data / "open_ms" / "patient26" / "lesion_mask.nii.gz"
    masks, told = regions(torch.from_numpy(np.asarray(nib.load(path).dataobj)), "binary")
    assert masks[0].sum() / 1000 == pytest.approx(8.2, abs=0.1)  # cc, as the source gives it
    assert told.tolist() == [True, False, False] and not masks[1:].any()
