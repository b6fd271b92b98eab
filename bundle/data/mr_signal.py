"""MR signal of brain tissue: relaxation times at 3 T and the equations of the usual sequences.

Times are in ms, proton densities relative to water, concentrations in mM. The ranges of `TISSUES` lie within what is
published for 3 T: white and grey matter, Wansapura et al., J Magn Reson Imaging 9:531 (1999), Stanisz et al., Magn
Reson Med 54:507 (2005) and the review of Bojorquez et al., Magn Reson Imaging 35:69 (2017), whose T1 of white matter
runs from 0.7 to 1.7 s (mostly a matter of magnetisation transfer; its short end is drawn here, because it is what
T1-weighted protocols show); blood, Stanisz et al. (2005). The relaxation times of lesions are set between those of
tissue and of free water: they vary more between lesions than between papers.

Contrast agent: r1 after Szomolanyi et al., Invest Radiol 54:559 (2019). The concentrations give the shortening of T1
seen after injection, about 0.8 s in enhancing glioblastoma, 0.1 s in its oedema and 0.03 s in normal tissue
("Quantitative T1 mapping indicates tumor infiltration beyond the enhancing part of glioblastomas", NMR Biomed 2020, 33
patients).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class Tissue:
    """Ranges of one tissue: T1 and T2 in ms, proton density in [0, 1], contrast agent after injection in mM."""

    t1: Range
    t2: Range
    pd: Range
    gd: Range = (0.0, 0.0)


TISSUES: dict[str, Tissue] = {
    "wm": Tissue(t1=(780, 1000), t2=(69, 79), pd=(0.68, 0.72), gd=(0.004, 0.012)),
    "gm": Tissue(t1=(1300, 1600), t2=(84, 99), pd=(0.80, 0.84), gd=(0.008, 0.02)),
    "csf": Tissue(t1=(3800, 4500), t2=(1200, 2000), pd=(0.98, 1.0)),
    "blood": Tissue(t1=(1550, 1950), t2=(60, 150), pd=(0.80, 0.88), gd=(1.0, 2.0)),
    "oedema": Tissue(t1=(1300, 1750), t2=(120, 180), pd=(0.82, 0.90), gd=(0.005, 0.03)),
    "enhancing": Tissue(t1=(1300, 1700), t2=(95, 140), pd=(0.82, 0.90), gd=(0.15, 0.7)),
    "necrosis": Tissue(t1=(1900, 3000), t2=(160, 350), pd=(0.90, 0.96), gd=(0.0, 0.03)),
    "lesion": Tissue(t1=(1200, 1700), t2=(115, 170), pd=(0.78, 0.88), gd=(0.004, 0.012)),
}


def spin_echo(pd: np.ndarray, t1: np.ndarray, t2: np.ndarray, *, tr: float, te: float) -> np.ndarray:
    """PD (1 - exp(-TR/T1)) exp(-TE/T2): spin echo, TE short against TR."""
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def inversion_recovery(
    pd: np.ndarray, t1: np.ndarray, t2: np.ndarray, *, tr: float, te: float, ti: float
) -> np.ndarray:
    """PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2): inversion recovery spin echo, magnitude image."""
    return pd * np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)


def nulling_time(t1: float, tr: float) -> float:
    """The inversion time at which a tissue of relaxation time `t1` gives no signal: T1 ln(2 / (1 + exp(-TR/T1)))."""
    return t1 * math.log(2 / (1 + math.exp(-tr / t1)))


def mprage(
    pd: np.ndarray, t1: np.ndarray, *, ti: float, tr: float, spacing: float = 7.0, echoes: int = 160, flip: float = 9.0
) -> np.ndarray:
    """Inversion-prepared gradient-echo train (MPRAGE) in its steady state, magnitude at the middle of the train.

    During the train M relaxes towards M0* = M0 T1*/T1 with the time constant T1*, 1/T1* = 1/T1 - ln(cos flip) / spacing
    (Deichmann et al., NeuroImage 12:112, 2000).

    Args:
        pd, t1: proton density and T1 (ms), broadcast together.
        ti: from the inversion to the middle of the train (ms); at least `spacing * echoes / 2`.
        tr: from inversion to inversion (ms).
        spacing: between two echoes (ms).
        flip: of each echo's pulse (degrees).
    """
    half = spacing * echoes / 2
    t1_star = 1 / (1 / t1 - math.log(math.cos(math.radians(flip))) / spacing)
    saturated = t1_star / t1
    before = np.exp(-(ti - half) / t1)
    train = np.exp(-2 * half / t1_star)
    after = np.exp(-(tr - ti - half) / t1)
    # what is there before the inversion, M, is there again a repetition later:
    # start = 1 - (1 + M) before,  end = M0* - (M0* - start) train,  M = 1 - (1 - end) after
    constant = 1 - after + after * (saturated * (1 - train) + train * (1 - before))
    steady = constant / (1 + after * train * before)
    start = 1 - (1 + steady) * before
    return pd * np.abs(saturated - (saturated - start) * np.exp(-half / t1_star))


def enhance(t1: np.ndarray, t2: np.ndarray, gd: np.ndarray, *, r1: float, r2: float) -> tuple[np.ndarray, np.ndarray]:
    """T1 and T2 with contrast agent: 1/T = 1/T0 + r C, with relaxivities `r1` and `r2` in 1/(mM s)."""
    return 1 / (1 / t1 + r1 * gd / 1000), 1 / (1 / t2 + r2 * gd / 1000)
