"""Generated subjects: T1, T1CE, T2 and FLAIR of a deformed template brain with a lesion, from the signal equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from bundle.data import mr_signal
from bundle.data.anatomy import SHAPE, Anatomy, Template, individual, load_template, smooth_noise
from bundle.data.lesions import draw_mass, label_of, plaques, tumour

CONTRASTS = ("t1", "t1ce", "t2", "flair")
TISSUES = tuple(mr_signal.TISSUES)
Lesion = Literal["plaques", "tumour", "none"]
# contrast -> signal of each of the TISSUES, and by how much it changes where the texture is 1
Shown = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Subject:
    """A complete generated exam.

    Attributes:
        images: contrast -> (176, 208, 155) float32, arbitrary units, 0 outside the brain and above 0 inside.
        label: (176, 208, 155) uint8, BraTS 2023 labels (1 necrosis, 2 oedema or plaque, 3 enhancing).
        affine: (4, 4), RAS, 1 mm.
    """

    images: dict[str, np.ndarray]
    label: np.ndarray
    affine: np.ndarray


def simulate(
    seed: int,
    lesion: Lesion = "plaques",
    template: Template | None = None,
    missing_slices: float = 0.0,
    signals: Mapping[str, np.ndarray] | None = None,
) -> Subject:
    """Generate one subject; the same seed gives the same bytes.

    Args:
        seed: at least 0.
        lesion: "plaques" (as in multiple sclerosis), "tumour" (ring-enhancing, with oedema) or "none", which leaves the
            template's own.
        template: the brain that is made another person's; None: that of nilearn, which is healthy.
        missing_slices: probability, for each contrast, that it lacks some axial slices, which are 0 then.
        signals: what each contrast shows of each tissue (`real_signal.draw_signals`); None, and where it is nan: what
            the signal equations and relaxation times say.
    """
    template = template or load_template()
    stream = [seed, ("plaques", "tumour", "none").index(lesion)]
    rng = np.random.default_rng(stream)
    push, radius = draw_mass(rng) if lesion == "tumour" else (None, 0.0)
    anatomy = individual(rng, push, template)
    parts = anatomy.lesions
    if push is not None:
        parts = tumour(rng, anatomy, push.centre, radius)
    elif lesion == "plaques":
        parts = plaques(rng, anatomy, count=int(rng.integers(8, 45)))
    images = _scan(rng, _mix(anatomy, parts), anatomy, signals)
    # drawn apart: what slices there are is the same with and without
    lacking = np.random.default_rng([*stream, 1])
    for image in images.values():
        if lacking.random() < missing_slices:
            image[..., lost_slices(lacking, anatomy.brain)] = 0
    return Subject(images=images, label=label_of(parts) * anatomy.brain, affine=template.affine)


def lost_slices(rng: np.random.Generator, brain: np.ndarray) -> np.ndarray:
    """Which axial slices a scan lacks: a tenth to a third of the brain at its top or bottom, or up to four within."""
    filled = np.flatnonzero(brain.any((0, 1)))
    if rng.random() < 0.5:
        count = int(rng.uniform(0.1, 0.33) * len(filled))
        return filled[:count] if rng.random() < 0.5 else filled[-count:]
    first = int(rng.integers(len(filled) - 4))
    return filled[first : first + int(rng.integers(1, 5))]


def _mix(anatomy: Anatomy, parts: dict[str, np.ndarray]) -> np.ndarray:
    """Fractions (tissue, X, Y, Z) in the order of `TISSUES`: a lesion takes the place of what it grows in."""
    empty = np.zeros(SHAPE, np.float32)
    ill = sum(parts.values(), empty)
    healthy = np.clip(1 - ill / np.maximum(anatomy.cover, 1e-3), 0, 1)
    known = {name: getattr(anatomy, name) * healthy for name in ("wm", "gm", "csf", "blood")}
    return np.stack([known.get(name, parts.get(name, empty)) for name in TISSUES])


def _scan(
    rng: np.random.Generator,
    fractions: np.ndarray,
    anatomy: Anatomy,
    signals: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Image the tissue: signals mixed by volume, texture, coil, resolution, noise."""
    shown = _simulated(rng) if signals is None else _painted(signals, _simulated(rng))
    texture = np.clip(anatomy.texture, -0.08, 0.08)
    fine = 0.012 * smooth_noise(rng, 1.1)[0]
    uneven = -0.2 * np.clip(1 + smooth_noise(rng, 2.5)[0], 0, 2.5) * fractions[TISSUES.index("enhancing")]
    images = {}
    for name in CONTRASTS:
        signal, slope = shown(name)
        image = np.tensordot(signal.astype(np.float32), fractions, axes=1)
        image += np.tensordot(slope.astype(np.float32), fractions, axes=1) * texture
        image *= 1 + fine + uneven * (name == "t1ce")
        images[name] = _acquire(rng, image, anatomy.brain, reference=float(signal[0]))
    return images


def _simulated(rng: np.random.Generator) -> Shown:
    """What a scanner shows of tissues with drawn relaxation times, by the signal equations."""
    draw = {
        key: np.array([rng.uniform(*getattr(t, key)) for t in mr_signal.TISSUES.values()])
        for key in ("t1", "t2", "pd", "gd")
    }
    sequences = _protocol(rng, draw)

    def shown(name: str) -> tuple[np.ndarray, np.ndarray]:
        signal = sequences[name](1.0)
        # where the template is brighter than its tissue, T1 and T2 are shorter and there is less water
        slope = 1.2 * (sequences[name](0.99) - signal) / 0.01
        if name in ("t2", "flair"):  # flowing blood leaves the slice between excitation and echo
            signal[TISSUES.index("blood")] *= rng.uniform(0.15, 0.5)
        return signal, slope

    return shown


def _painted(signals: Mapping[str, np.ndarray], simulated: Shown) -> Shown:
    """What real scans show of the tissues, all of them with the same share of the texture."""

    def shown(name: str) -> tuple[np.ndarray, np.ndarray]:
        *levels, texture = signals[name]
        usual, _ = simulated(name)
        return np.where(np.isnan(levels), usual / usual[0], levels), np.full(len(TISSUES), texture)

    return shown


def _protocol(rng: np.random.Generator, draw: dict[str, np.ndarray]) -> dict[str, Callable[[float], np.ndarray]]:
    """One scanner's protocol: contrast -> signal of each tissue, as a function of a factor on T1, T2 and PD squared."""
    pd, t1, t2 = draw["pd"], draw["t1"], draw["t2"]
    t1_ce, t2_ce = mr_signal.enhance(t1, t2, draw["gd"], r1=rng.uniform(3.0, 5.0), r2=rng.uniform(4.0, 6.0))
    spin = {"tr": rng.uniform(400, 620), "te": rng.uniform(8, 14)}
    repetition, inversion = rng.uniform(1900, 2300), rng.uniform(880, 1050)
    long = {"tr": rng.uniform(4000, 6500), "te": rng.uniform(84, 106)}
    dark = {"tr": rng.uniform(8000, 10000), "te": rng.uniform(90, 130)}
    dark["ti"] = mr_signal.nulling_time(float(t1[2]), dark["tr"]) * rng.uniform(0.96, 1.02)
    use_prepared = rng.random() < 0.6
    same = rng.random() < 0.6

    def t1_weighted(mprage: bool, a: np.ndarray, b: np.ndarray) -> Callable[[float], np.ndarray]:
        if mprage:
            return lambda f: mr_signal.mprage(pd * f**0.5, a * f, tr=repetition, ti=inversion)
        return lambda f: mr_signal.spin_echo(pd * f**0.5, a * f, b * f, **spin)

    return {
        "t1": t1_weighted(use_prepared, t1, t2),
        "t1ce": t1_weighted(use_prepared == same, t1_ce, t2_ce),
        "t2": lambda f: mr_signal.spin_echo(pd * f**0.5, t1 * f, t2 * f, **long),
        "flair": lambda f: mr_signal.inversion_recovery(pd * f**0.5, t1 * f, t2 * f, **dark),
    }


def _acquire(rng: np.random.Generator, image: np.ndarray, brain: np.ndarray, reference: float) -> np.ndarray:
    """Coil sensitivity, Rician noise (SNR of white matter, `reference`: 20 to 50), a resampling's blur, units."""
    image = image * np.exp(rng.uniform(0.03, 0.13) * smooth_noise(rng, 45)[0])
    noise = rng.standard_normal((2, *SHAPE), dtype=np.float32) * (reference / rng.uniform(20, 50))
    magnitude = np.hypot(image + noise[0], noise[1])
    magnitude = ndimage.gaussian_filter(magnitude, (*[rng.uniform(0.4, 0.6)] * 2, rng.uniform(0.4, 0.9)), truncate=3)
    gain = rng.uniform(200, 1500) / reference
    return np.where(brain, np.maximum(magnitude * gain, 1e-3), 0).astype(np.float32)
