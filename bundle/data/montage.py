"""A picture per subject of truth, synthesis and error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.data.qc import GIVEN, MADE, draw_plane

LARGEST_ERROR = 0.3  # of the truth's range; shown as white


def write_montage(
    path: Path, title: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], brain: np.ndarray
) -> None:
    """Draw an axial slice through the middle of the brain of each truth, its synthesis, and their absolute difference.

    Args:
        path: of the PNG file.
        title: printed above.
        pairs: what a row is called -> (truth, synthesis), each ``(X, Y, Z)`` in [0, 1], axes R, A, S, cubic voxels.
        brain: mask ``(X, Y, Z)``.
    """
    figure = Figure(figsize=(9.6, 0.6 + 3.4 * len(pairs)), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}\nradiological view: the patient's right is on the left", color="white", fontsize=10)
    axes = figure.subplots(len(pairs), 3, squeeze=False)
    names = ("truth", "SYNTHETIC", f"error, white = {LARGEST_ERROR}")
    for number, (line, (name, (truth, synthesis))) in enumerate(zip(axes, pairs.items(), strict=True)):
        line[0].set_ylabel(name, color=GIVEN, fontsize=11, fontweight="bold")
        pictures = ((truth, 1, "gray"), (synthesis, 1, "gray"), (np.abs(synthesis - truth), LARGEST_ERROR, "inferno"))
        for ax, (volume, highest, colours), what in zip(line, pictures, names, strict=True):
            draw_plane(ax, volume, brain, np.ones(3), "axial", highest, colours)
            colour = MADE if what == "SYNTHETIC" else GIVEN
            if number == 0:
                ax.set_title(what, color=colour, fontsize=9)
            if what == "SYNTHETIC":  # in every picture itself: parts get copied elsewhere
                ax.text(0.02, 0.03, what, transform=ax.transAxes, color=colour, fontsize=8)
            for spine in ax.spines.values():
                spine.set_color(colour)
    figure.savefig(path, dpi=100, facecolor="black")
