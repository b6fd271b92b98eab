"""The scanner of generated subjects: a drawn protocol's signal of each tissue, then coil, slices and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from bundle.data import mr_signal
from bundle.phantoms.fields import blur, smooth_noise
from bundle.phantoms.label_maps import TISSUES
from bundle.phantoms.lesions import PARTS

CONTRASTS = ("t1", "t1ce", "t2", "flair")
NAMES = (*TISSUES, *PARTS)
FLUIDS = [NAMES.index(name) for name in ("csf", "ventricle")]


@dataclass(frozen=True)
class Like:
    """A tissue by another one of `mr_signal.TISSUES`: ranges of the factors on its T1, T2 and proton density."""

    base: str
    t1: mr_signal.Range = (1.0, 1.0)
    t2: mr_signal.Range = (1.0, 1.0)
    pd: mr_signal.Range = (1.0, 1.0)
    gd: mr_signal.Range | None = None


# Grey nuclei hold iron and myelin, which shorten T1 and T2: Bojorquez et al., Magn Reson Imaging 35:69 (2017).
LIKE = {
    "outside": Like("gm", t1=(0.5, 1.0), t2=(0.3, 0.6), pd=(0.5, 0.9), gd=(0.1, 0.5)),  # dura, marrow of the skull
    "white matter": Like("wm", t2=(1.0, 1.18)),
    "cortex": Like("gm"),
    "deep grey": Like("gm", t1=(0.86, 0.97), t2=(0.82, 0.98)),
    "thalamus": Like("gm", t1=(0.78, 0.9), t2=(0.84, 0.97), pd=(0.95, 1.0)),
    "pallidum": Like("gm", t1=(0.65, 0.8), t2=(0.6, 0.8), pd=(0.9, 0.97)),
    "cerebellar white matter": Like("wm", t1=(1.0, 1.1), t2=(0.98, 1.1)),
    "cerebellar cortex": Like("gm", t1=(0.92, 1.02), t2=(0.95, 1.05)),
    "brain stem": Like("wm", t1=(1.0, 1.2), t2=(1.0, 1.15), pd=(1.0, 1.04)),
    "csf": Like("csf"),
    "ventricle": Like("csf"),
    "choroid plexus": Like("gm", t1=(1.1, 1.5), t2=(1.2, 2.5), pd=(1.0, 1.1), gd=(0.3, 1.2)),
    "vessel": Like("blood"),
    "lesion": Like("lesion", t1=(0.95, 1.05), t2=(0.95, 1.2), pd=(0.95, 1.0)),
    "oedema": Like("oedema"),
    "enhancing": Like("enhancing"),
    "necrosis": Like("necrosis"),
    "diffuse": Like("oedema", t1=(1.0, 1.35), t2=(1.0, 1.6)),
    "fluid": Like("necrosis", t1=(1.2, 1.6), t2=(1.8, 4.0), pd=(1.0, 1.05)),
    "blood products": Like("wm", t1=(0.5, 0.9), t2=(0.35, 0.8), pd=(1.0, 1.1)),
    "plaque": Like("lesion", t1=(0.98, 1.1), t2=(1.02, 1.25), pd=(0.92, 0.98)),
}
Sequence = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shown:
    """What one contrast shows of the `NAMES`: signal (K,), and its change with a relative change of T1 and of T2."""

    signal: np.ndarray
    by_t1: np.ndarray
    by_t2: np.ndarray


def draw_protocol(rng: np.random.Generator) -> dict[str, Shown]:
    """The contrasts of one examination: relaxation times of the tissues, field strength, sequences, contrast agent."""
    pd, t1, t2, gd = _tissues(rng)
    t1_ce, t2_ce = mr_signal.enhance(t1, t2, gd, r1=rng.uniform(3.0, 5.0), r2=rng.uniform(4.0, 6.0))
    before = _t1_weighted(rng)
    after = before if rng.random() < 0.6 else _t1_weighted(rng)
    heavy = {"tr": rng.uniform(2200, 6500), "te": rng.uniform(78, 112)}
    dark = {"tr": rng.uniform(7000, 10000), "te": rng.uniform(85, 140)}
    dark["ti"] = mr_signal.nulling_time(float(t1[FLUIDS[1]]), dark["tr"]) * rng.uniform(0.94, 1.03)
    shown = {
        "t1": _shown(before, pd, t1, t2),
        "t1ce": _shown(after, pd, t1_ce, t2_ce),
        "t2": _shown(lambda p, a, b: mr_signal.spin_echo(p, a, b, **heavy), pd, t1, t2),
        "flair": _shown(lambda p, a, b: mr_signal.inversion_recovery(p, a, b, **dark), pd, t1, t2),
    }
    vessel = NAMES.index("vessel")  # blood that flows into the slice is bright, blood that leaves it is dark
    shown["t1"].signal[vessel] *= rng.uniform(0.3, 1.8)
    for name in ("t2", "flair"):
        shown[name].signal[vessel] *= rng.uniform(0.1, 0.6)
    return shown


def _tissues(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Proton density, T1 and T2 in ms and contrast agent in mM of the `NAMES`, each (K,)."""
    base = {name: {key: rng.uniform(*getattr(t, key)) for key in ("pd", "t1", "t2")} for name, t in _BASES.items()}
    low_field = rng.random() < 0.35  # 1.5 T: T1 of tissue is shorter, T2 a little longer
    by_t1, by_t2 = (rng.uniform(0.7, 0.82), rng.uniform(1.02, 1.15)) if low_field else (1.0, 1.0)
    rows = []
    for name in NAMES:
        like = LIKE[name]
        factor_t1, factor_t2 = (1.0, 1.0) if like.base == "csf" else (by_t1, by_t2)
        times = base[like.base]
        rows.append(
            (
                min(1.0, times["pd"] * rng.uniform(*like.pd)),
                times["t1"] * factor_t1 * rng.uniform(*like.t1),
                times["t2"] * factor_t2 * rng.uniform(*like.t2),
                rng.uniform(*(like.gd or _BASES[like.base].gd)),
            )
        )
    pd, t1, t2, gd = np.array(rows).T
    return pd, t1, t2, gd


_BASES = mr_signal.TISSUES


def _t1_weighted(rng: np.random.Generator) -> Sequence:
    """MPRAGE, spin echo, a 3D turbo spin echo (as SPACE) or an inversion-prepared spin echo (T1 FLAIR)."""
    kind = rng.choice(["mprage", "spin echo", "turbo", "prepared"], p=[0.5, 0.25, 0.17, 0.08])
    if kind == "mprage":
        tr, ti, flip = rng.uniform(1700, 2400), rng.uniform(850, 1050), rng.uniform(7, 11)
        return lambda pd, t1, t2: mr_signal.mprage(pd, t1, tr=tr, ti=ti, flip=flip)
    if kind == "prepared":
        times = {"tr": rng.uniform(1900, 2400), "te": rng.uniform(8, 20)}
        times["ti"] = rng.uniform(0.36, 0.42) * times["tr"] + 60
        return lambda pd, t1, t2: mr_signal.inversion_recovery(pd, t1, t2, **times)
    turbo = kind == "turbo"
    tr, te = rng.uniform(*((450, 680) if turbo else (400, 650))), rng.uniform(*((11, 25) if turbo else (8, 15)))
    return lambda pd, t1, t2: mr_signal.spin_echo(pd, t1, t2, tr=tr, te=te)


def _shown(sequence: Sequence, pd: np.ndarray, t1: np.ndarray, t2: np.ndarray) -> Shown:
    signal = sequence(pd, t1, t2)
    return Shown(signal, (sequence(pd, t1 * 1.01, t2) - signal) / 0.01, (sequence(pd, t1, t2 * 1.01) - signal) / 0.01)


@dataclass(frozen=True)
class Grid:
    """How a contrast is scanned: in slices of a thickness (mm) across an axis, or as a whole (no thickness)."""

    axis: int
    thickness: float = 0.0


def draw_grids(rng: np.random.Generator) -> dict[str, Grid]:
    """T2 and FLAIR are often scanned in thick slices, T1 and T1CE seldom; mostly all in the same direction."""
    usual = int(rng.choice(3, p=[0.12, 0.18, 0.7]))
    grids = {}
    for name in CONTRASTS:
        axis = usual if rng.random() < 0.8 else int(rng.choice(3))
        thick = rng.random() < (0.5 if name in ("t2", "flair") else 0.25)
        grids[name] = Grid(axis, float(rng.uniform(2, 6)) if thick else 0.0)
    return grids


def acquire(image: Tensor, reference: float, grid: Grid, rng: np.random.Generator, generator: Generator) -> Tensor:
    """What a scanner makes of an image of signals (X, Y, Z): uneven coil, slices, Rician noise, a slight blur.

    Args:
        image: signals, at least 0.
        reference: signal of white matter, by which noise and units are scaled.
        grid: the slices.
        rng, generator: what is drawn.

    Returns:
        (X, Y, Z), above 0, in arbitrary units.
    """
    image = blur(image[None], float(rng.uniform(0.35, 0.6)))
    image *= torch.exp(float(0.02 + 0.14 * rng.random() ** 1.5) * smooth_noise(image.shape[1:], 40, generator))
    image *= 1 + float(rng.uniform(0.005, 0.04)) * smooth_noise(image.shape[1:], 2, generator)
    shape = image.shape[1:]
    if grid.thickness:
        image = in_slices(image, grid, float(rng.uniform(0, 0.05)), generator)
    noise = torch.randn((2, *image.shape[1:]), generator=generator, device=image.device)
    noise *= reference / float(rng.uniform(15, 60))
    image = torch.hypot(image + noise[:1], noise[1:])
    if grid.thickness:
        image = functional.interpolate(image[None], shape, mode="trilinear", align_corners=False)[0]
    widths = rng.uniform(0.25, 0.6, 3) if rng.random() < 0.85 else rng.uniform(0.6, 1.0, 3)
    return blur(image, widths.tolist())[0] * float(rng.uniform(200, 1500) / reference) + 1e-3


def in_slices(image: Tensor, grid: Grid, uneven: float, generator: Generator) -> Tensor:
    """The slices of (1, X, Y, Z), each averaged over its thickness and brighter or darker by a factor of its own."""
    fewer = list(image.shape[1:])
    fewer[grid.axis] = max(2, round(fewer[grid.axis] / grid.thickness))
    slices = functional.interpolate(image[None], tuple(fewer), mode="area")[0]
    gains = torch.randn(fewer[grid.axis], generator=generator, device=image.device)
    return slices * (1 + uneven * gains).view([-1 if axis == grid.axis else 1 for axis in range(3)])
