"""The table of measures: which metric, in which region, on which scale of intensities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan

import torch
from torch import Tensor

from bundle.errors import InputError
from bundle.metrics import conventions
from bundle.metrics.brain import HALF_WINDOW, psnr, ssim_brasyn, ssim_map
from bundle.metrics.sharpness import hfen, sharpness
from bundle.metrics.similarity import correlation, mae, ms_ssim, nmi, nmse
from bundle.metrics.stripes import gradient_xy, gradient_z, stripes
from bundle.metrics.tissues import contrast_kept, mean_difference

VolumeDistance = Callable[[Tensor, Tensor, Tensor], float]  # of prediction and truth inside the brain, as `LPIPS`


@dataclass(frozen=True)
class Measure:
    """A named number.

    Attributes:
        name: its key in a row of results.
        metric: a key of `METRICS`.
        region: where: volume, brain, lesion (within the brain), outside (the brain without the lesion) or csf.
        convention: a key of `CONVENTIONS`.
        unit: "dB" or "".
        higher_is_better: whether the larger of two values is the better one.
        decimals: how many to print.
        meaning: formula, range and region, a sentence without its full stop.
    """

    name: str
    metric: str
    region: str
    convention: str
    unit: str
    higher_is_better: bool
    decimals: int
    meaning: str


_IN = {
    "volume": "over the whole volume",
    "brain": "inside the brain",
    "lesion": "inside the lesion",
    "outside": "in the brain outside the lesion",
    "csf": "in deep CSF (the ventricles)",
}
_PSNR = "10 log10(1 / MSE), intensities in [0, 1], squared error averaged"
_SSIM = "structural similarity in 3-D (Gaussian window, sigma 1.5 voxels), intensities in [0, 1], map averaged"
_NMSE = "||pred - truth||^2 / ||truth||^2, 0 to infinity,"
_MAE = "mean absolute error of intensities in [0, 1]"
_GRADIENT_Z = "mean |d_z pred - d_z truth| between axial slices 1 mm apart, from 0, intensities in [0, 1],"
_GRADIENT_XY = "mean |d pred - d truth| between neighbours within axial slices, from 0, intensities in [0, 1],"
_STRIPES = "gradient_z with the differences averaged over each slice first: jumps of whole slices, from 0,"
_CSF = "mean intensity of the synthesis minus that of the truth, intensities in [0, 1], best 0, below 0 too dark,"
_CONTRAST = "median minus that of white matter, over the same of the truth: 1 all of the contrast, 0 none,"
_BRASYN = "BraSyn's SSIM: both images set to 0 except {}, map averaged over the whole volume"


def _measure(name: str, metric: str, region: str, higher: bool, decimals: int, formula: str, unit: str = "") -> Measure:
    return Measure(name, metric, region, "truth", unit, higher, decimals, f"{formula} {_IN[region]}")


MEASURES = {
    measure.name: measure
    for measure in [
        _measure("psnr", "psnr", "brain", True, 2, _PSNR, "dB"),
        _measure("ssim", "ssim", "brain", True, 3, _SSIM),
        _measure("ms_ssim", "ms_ssim", "brain", True, 3, "multi-scale structural similarity in 3-D, 0 to 1, averaged"),
        _measure("mae", "mae", "brain", False, 4, _MAE),
        _measure("nmse", "nmse", "brain", False, 4, _NMSE),
        _measure("nmi", "nmi", "brain", True, 3, "normalised mutual information, 1 (none) to 2, of the intensities"),
        _measure(
            "hfen", "hfen", "brain", False, 3, "high-frequency error norm: 0 (equal edges) to 1 (none) and above,"
        ),
        _measure(
            "sharpness", "sharpness", "brain", True, 2, "mean gradient over the truth's: 1 as sharp, below blurred,"
        ),
        _measure("gradient_xy", "gradient_xy", "brain", False, 4, _GRADIENT_XY),
        _measure("gradient_z", "gradient_z", "brain", False, 4, _GRADIENT_Z),
        _measure("stripes", "stripes", "brain", False, 4, _STRIPES),
        _measure("correlation", "correlation", "brain", True, 3, "Pearson's correlation of the intensities, -1 to 1,"),
        _measure("csf_error", "mean_difference", "csf", False, 3, _CSF),
        _measure("lesion_contrast", "contrast_kept", "lesion", True, 2, _CONTRAST),
        _measure("psnr_volume", "psnr", "volume", True, 2, _PSNR, "dB"),
        _measure("ssim_volume", "ssim", "volume", True, 3, _SSIM),
        _measure("nmse_volume", "nmse", "volume", False, 4, _NMSE),
        _measure("psnr_lesion", "psnr", "lesion", True, 2, _PSNR, "dB"),
        _measure("ssim_lesion", "ssim", "lesion", True, 3, _SSIM),
        _measure("mae_lesion", "mae", "lesion", False, 4, _MAE),
        _measure("psnr_outside", "psnr", "outside", True, 2, _PSNR, "dB"),
        _measure("ssim_outside", "ssim", "outside", True, 3, _SSIM),
        Measure("ssim_brasyn_lesion", "ssim_brasyn", "lesion", "own", "", True, 3, _BRASYN.format("inside the lesion")),
        Measure(
            "ssim_brasyn_outside", "ssim_brasyn", "outside", "own", "", True, 3, _BRASYN.format("outside the lesion")
        ),
        _measure("lpips", "lpips", "brain", False, 3, "learned perceptual distance, mean over axial slices,"),
    ]
}
TISSUES = {"csf_error": ("csf",), "lesion_contrast": ("white_matter",)}  # found in the subject's other contrasts
DEFAULTS = (
    "psnr",
    "ssim",
    "ms_ssim",
    "mae",
    "nmse",
    "nmi",
    "hfen",
    "sharpness",
    "gradient_xy",
    "gradient_z",
    "stripes",
)


def select(names: Sequence[str], convention: str = "truth") -> list[Measure]:
    """The measures of these names; those of `DEFAULTS` follow the given convention, the others keep their own.

    Raises:
        InputError: no such measure or convention.
    """
    conventions.check(convention)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise InputError(f"measures: there is no {unknown[0]!r}", f"Choose from {', '.join(MEASURES)}")
    return [replace(MEASURES[name], convention=convention) if name in DEFAULTS else MEASURES[name] for name in names]


def score(
    pred: Tensor,
    truth: Tensor,
    regions: Mapping[str, Tensor],
    names: Sequence[str],
    convention: str = "truth",
    lpips: VolumeDistance | None = None,
) -> dict[str, float]:
    """Name of each measure -> its value for a volume.

    Left out are measures whose region is absent or empty, or that are not defined (NaN, such as the correlation with a
    constant image), "lpips" without a network, BraSyn's for volumes thinner than the window of SSIM, and those between
    slices for a volume of one slice.

    Args:
        pred, truth: (X, Y, Z), intensities in [0, 1] as the convention "truth" has them.
        regions: masks (X, Y, Z), non-zero inside: "brain", and, where known, "volume", "lesion", "csf" and
            "white_matter"; a lesion counts where it lies in the brain.
        names: keys of `MEASURES`.
        convention: a key of `CONVENTIONS`, for the measures in `DEFAULTS`.
        lpips: what "lpips" is measured by.

    Raises:
        InputError: no such measure or convention.
        ValueError: shapes that differ, or a truth that is constant inside the brain.
    """
    masks = _masks(regions)
    metrics = METRICS if lpips is None else {**METRICS, "lpips": lambda pair, mask: lpips(pair.pred, pair.truth, mask)}
    usable = [
        m
        for m in select(names, convention)
        if m.metric in metrics and {m.region, *TISSUES.get(m.name, ())} <= set(masks)
    ]
    if min(truth.shape) <= 2 * HALF_WINDOW:
        usable = [m for m in usable if m.metric != "ssim_brasyn"]
    if truth.shape[-1] == 1:
        usable = [m for m in usable if m.metric not in ("gradient_z", "stripes")]
    pairs = {}
    for name in {m.convention for m in usable}:
        similar = [masks[m.region] for m in usable if m.convention == name and m.metric in ("ssim", "ms_ssim")]
        where = torch.stack(similar).any(0) if similar else masks["brain"]
        pairs[name] = _Pair(*conventions.apply(name, pred.float(), truth.float(), masks["brain"]), where, masks)
    values = {m.name: metrics[m.metric](pairs[m.convention], masks[m.region]) for m in usable}
    return {name: value for name, value in values.items() if not isnan(value)}


@dataclass
class _Pair:
    """Prediction and truth by one convention, where their similarity is asked for, and the masks of all regions."""

    pred: Tensor
    truth: Tensor
    where: Tensor
    masks: Mapping[str, Tensor]

    @cached_property
    def similarity(self) -> Tensor:
        """The map of SSIM, which is by far the most work, once for all measures."""
        return ssim_map(self.pred, self.truth, self.where)


METRICS: dict[str, Callable[[_Pair, Tensor], float]] = {
    "psnr": lambda pair, mask: psnr(pair.pred, pair.truth, mask),
    "ssim": lambda pair, mask: pair.similarity[mask].double().mean().item(),
    "ms_ssim": lambda pair, mask: ms_ssim(pair.pred, pair.truth, mask, similarity=pair.similarity),
    "mae": lambda pair, mask: mae(pair.pred, pair.truth, mask),
    "nmse": lambda pair, mask: nmse(pair.pred, pair.truth, mask),
    "correlation": lambda pair, mask: correlation(pair.pred, pair.truth, mask),
    "nmi": lambda pair, mask: nmi(pair.pred, pair.truth, mask),
    "hfen": lambda pair, mask: hfen(pair.pred, pair.truth, mask),
    "sharpness": lambda pair, mask: sharpness(pair.pred, pair.truth, mask),
    "gradient_xy": lambda pair, mask: gradient_xy(pair.pred, pair.truth, mask),
    "gradient_z": lambda pair, mask: gradient_z(pair.pred, pair.truth, mask),
    "stripes": lambda pair, mask: stripes(pair.pred, pair.truth, mask),
    "mean_difference": lambda pair, mask: mean_difference(pair.pred, pair.truth, mask),
    "contrast_kept": lambda pair, mask: contrast_kept(pair.pred, pair.truth, mask, pair.masks["white_matter"]),
    "ssim_brasyn": lambda pair, mask: ssim_brasyn(pair.pred, pair.truth, mask),
}


def _masks(regions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The regions that hold voxels, with "outside" where there is a lesion."""
    brain = regions["brain"] != 0
    masks = {"brain": brain}
    if "volume" in regions:
        masks["volume"] = regions["volume"] != 0
    masks |= {name: regions[name] & brain for name in ("csf", "white_matter") if name in regions}
    if "lesion" in regions:
        lesion = (regions["lesion"] != 0) & brain
        masks |= {"lesion": lesion, "outside": brain & ~lesion} if lesion.any() else {}
    return {name: mask for name, mask in masks.items() if mask.any()}
