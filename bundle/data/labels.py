"""Lesion labels of several conventions as three overlapping regions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bundle.errors import InputError

REGIONS = ("whole tumour", "tumour core", "enhancing tumour")

# The values of each region, by convention; () where the convention has no truth for the region.
_VALUES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "brats": ((1, 2, 4), (1, 4), (4,)),  # 1 NCR, 2 ED, 4 ET
    "brats2023": ((1, 2, 3), (1, 3), (3,)),  # 1 NCR, 2 ED, 3 ET, and from 2024 on 4 resection cavity: no region
    "decathlon": ((1, 2, 3), (2, 3), (3,)),  # 1 ED, 2 non-enhancing, 3 ET
    "wmh": ((1,), (), ()),  # 1 white matter hyperintensity, 2 other pathology: no region
    "one to three": ((1, 2, 3), (), (3,)),  # BraTS 2023 or Decathlon, which differ in 1 and 2
}
_NO_REGION = {"brats2023": 4, "wmh": 2}
CONVENTIONS = ("auto", "binary", "brats", "decathlon", "wmh")


def regions(label: Tensor, convention: str = "auto", path: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Whole tumour, tumour core and enhancing tumour (each within the one before it) of a label map.

    Args:
        label: (...) whole numbers, 0 where nothing is marked.
        convention: what the numbers mean.
            "binary": every number is lesion (multiple sclerosis).
            "brats": 1 NCR, 2 ED, ET 4 (until 2021) or 3 (since 2023); both at once is BraTS 2024, where 4 is the
            resection cavity. (A case of 2024 with a cavity but no ET cannot be told from one of 2021.)
            "decathlon": 1 ED, 2 non-enhancing, 3 ET.
            "wmh": 1 white matter hyperintensity, 2 other pathology.
            "auto": as far as the numbers in the map themselves say it.
        path: its file, for the error message.

    Returns:
        (3, ...) uint8, and (3,) bool: which of the regions the label tells. A lesion that is no tumour is "whole
        tumour" only; where a region is not told it is 0.

    Raises:
        InputError: an unknown convention, or a number that it does not have.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"label convention '{convention}' is unknown", f"Use one of {', '.join(CONVENTIONS)}", path)
    present = {float(value) for value in label[label != 0].unique()}
    if convention == "binary" or (convention == "auto" and (len(present) <= 1 or present == {1, 2})):
        whole = label > 0
        return _as_regions([whole, torch.zeros_like(whole), torch.zeros_like(whole)], [True, False, False])

    known = _by_values(convention, present)
    values = _VALUES[known]
    strange = present - {*values[0], _NO_REGION.get(known)}
    if strange:
        shown = ", ".join(f"{value:g}" for value in sorted(strange)[:5])
        remedy = f"Map the labels to one of {', '.join(CONVENTIONS[1:])}, or leave the label file out"
        raise InputError(f"has labels ({shown}) that the convention '{convention}' does not know", remedy, path)
    return _as_regions([torch.isin(label, torch.tensor(v, dtype=label.dtype, device=label.device)) for v in values],
                       [bool(v) for v in values])  # fmt: skip


def _by_values(convention: str, present: set[float]) -> str:
    """The row of the table, where the numbers that are present decide between several."""
    if convention == "brats":
        return "brats2023" if 3 in present else "brats"
    if convention == "auto":
        return ("brats2023" if 3 in present else "brats") if 4 in present else "one to three"
    return convention


def _as_regions(masks: list[Tensor], told: list[bool]) -> tuple[Tensor, Tensor]:
    return torch.stack(masks).to(torch.uint8), torch.tensor(told)
