"""What real scans show of each tissue: intensities with which generated anatomies are painted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from bundle.data.anatomy import SHAPE, Template
from bundle.data.real_anatomy import anatomy_of, freed_of_bias, prepare
from bundle.data.simulate import CONTRASTS, TISSUES
from bundle.errors import InputError

PURE = 0.6  # share of a voxel that makes it one of its tissue
LEAST = 100  # mm^3 of a tissue from which its intensity is told
JITTER = 0.04  # standard deviation of the logarithm of a drawn intensity

Signals = dict[str, np.ndarray]


def read_signals(item: Mapping[str, Any]) -> Signals:
    """What each scan of a real exam shows of each tissue: the median of the voxels that are mostly of it.

    Args:
        item: of `find_subjects`, skull-stripped, with all four contrasts; "label" is used where it is there.

    Returns:
        contrast -> (9,), in units of its white matter: the intensities of the `mr_signal.TISSUES`, nan for those that
        the exam hardly has, then the change where the texture of `Template` is 1.

    Raises:
        InputError: a contrast is missing, a scan cannot be used, or still has its skull.
    """
    missing = [name for name in CONTRASTS if name not in item]
    if missing:
        raise InputError(f"has no {', '.join(missing)}", "Leave it out: the tissues are compared between contrasts")
    exam = prepare(item, CONTRASTS)
    even = {name: freed_of_bias(exam, name) for name in CONTRASTS}
    brain = anatomy_of(exam, even["t1"])
    pure = [part > PURE for part in _fractions(brain)]
    if min(part.sum() for part in pure[:2]) < LEAST:
        raise InputError("white and grey matter cannot be told apart in T1", "Leave it out", item["t1"])
    found = {}
    for name, scan in even.items():
        levels = np.array([np.median(scan[part]) if part.sum() >= LEAST else np.nan for part in pure])
        found[name] = np.append(levels, _slope(scan, brain.maps[-1], pure[:2], levels)) / levels[0]
    return found


def _fractions(brain: Template) -> list[np.ndarray]:
    """Fractions (X, Y, Z) of the `mr_signal.TISSUES`; the fluid is that of the ventricles, which is nothing else."""
    wm, gm, _, ventricle, blood, _, _ = brain.maps
    none = np.zeros(SHAPE, np.float32)
    healthy = 1 - np.clip(sum(brain.lesions.values(), none), 0, 1)
    tissue = healthy * (1 - blood)
    fluid = ndimage.minimum_filter(ventricle, 3) * tissue
    known = {"wm": wm * tissue, "gm": gm * tissue, "csf": fluid, "blood": blood * healthy, **brain.lesions}
    return [known.get(name, none) for name in TISSUES]


def _slope(image: np.ndarray, texture: np.ndarray, pure: Sequence[np.ndarray], levels: np.ndarray) -> float:
    """By how much white and grey matter differ from their levels where the texture is 1: least squares."""
    deviations = np.concatenate([image[part] - level for part, level in zip(pure, levels)])
    textures = np.concatenate([texture[part] for part in pure])
    return float(deviations @ textures / (textures @ textures))


def draw_signals(rng: np.random.Generator, exams: Sequence[Signals]) -> Signals:
    """The intensities of a scanner somewhere between two real ones; what an exam does not show is as in the others.

    Args:
        rng: what is drawn: the two, how near to which, and some per cent for each tissue and contrast.
        exams: of `read_signals`, at least one.

    Returns:
        As `read_signals`; nan for what no exam shows.
    """
    one, other = rng.integers(len(exams), size=2)
    share = rng.random()
    drawn = {}
    for name in CONTRASTS:
        known = np.stack([exam[name] for exam in exams])
        usual = np.ma.masked_invalid(known).mean(axis=0).filled(np.nan)
        full = np.where(np.isnan(known), usual, known)
        drawn[name] = share * full[one] + (1 - share) * full[other]
        drawn[name][:-1] *= np.exp(rng.normal(0, JITTER, len(TISSUES)))
    return drawn
