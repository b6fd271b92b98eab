"""A picture per subject of truth, synthesis and error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bundle.data.qc import GIVEN, MADE, draw_plane, projections

HEIGHT = 3.4  # of a slice, in inches
LARGEST_ERROR = 0.3  # of the truth's range: where the scale of the error ends
# Black is no error. Blue against orange is told apart with any colour vision.
ERROR = LinearSegmentedColormap.from_list(
    "error", ("#c8ecff", "#2f96e8", "#08264a", "#000000", "#4a1c00", "#e87a1c", "#ffeac8")
)


def write_montage(
    path: Path,
    title: str,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    brain: np.ndarray,
    lesion: np.ndarray | None = None,
) -> None:
    """Draw an axial slice of each truth, its synthesis, and their difference; all rows share the scales.

    Args:
        path: of the PNG file.
        title: printed above.
        pairs: what a row is called -> (truth, synthesis), each ``(X, Y, Z)`` in [0, 1], axes R, A, S, cubic voxels.
        brain: mask ``(X, Y, Z)``.
        lesion: mask ``(X, Y, Z)`` where there is one: the slice is the one with most of it, and it is outlined beside
            the error. Otherwise the slice goes through the middle of the brain.
    """
    brain = brain > 0
    lesion = np.zeros_like(brain) if lesion is None else brain & (lesion > 0)
    level = slice_to_show(brain, lesion)
    box = around(brain[:, :, level].any(1)), around(brain[:, :, level].any(0)), slice(level, level + 1)
    what = "slice with most of the lesion (dashed)" if lesion.any() else "slice through the middle of the brain"
    title = f"{title}\naxial {what}; the patient's right is on the left"
    figure, axes, scales = canvas(title, len(pairs), *brain[box].shape[:2])
    for line, (name, (truth, synthesis)) in zip(axes, pairs.items(), strict=True):
        line[0].set_ylabel(name, color=GIVEN, fontsize=11, fontweight="bold")
        for ax, volume in zip(line, (truth, synthesis, synthesis - truth), strict=True):
            draw_plane(ax, volume[box], projections(brain[box]), np.ones(3), "axial", 1, "gray")
        line[2].images[0].set(cmap=ERROR, clim=(-LARGEST_ERROR, LARGEST_ERROR))
        if lesion.any():
            line[2].contour(lesion[box][..., 0].T, [0.5], colors="white", linewidths=0.7, linestyles="dashed")
        # in every picture itself: parts get copied elsewhere
        line[1].text(0.02, 0.03, "SYNTHETIC", transform=line[1].transAxes, color=MADE, fontsize=8)
    for column, name, colour in zip(axes.T, ("truth", "SYNTHETIC", "error"), (GIVEN, MADE, GIVEN), strict=True):
        column[0].set_title(name, color=colour, fontsize=11)
        for ax in column:
            ax.spines[:].set_color(colour)
    draw_scale(axes[0, 0], scales[0], "intensity, 0 to 1 over the truth's range", (0, 0.5, 1), "neither")
    ends = (-LARGEST_ERROR, 0, LARGEST_ERROR)
    draw_scale(axes[0, 2], scales[1], "synthesis \N{MINUS SIGN} truth (blue: too dark)", ends, "both")
    figure.savefig(path, dpi=150, facecolor="black", metadata={"Software": None})


def canvas(title: str, rows: int, across: int, up: int) -> tuple[Figure, np.ndarray, list[Axes]]:
    """A figure that fits its slices of across x up voxels: the axes ``(rows, 3)``, and two for the scales below."""
    width = HEIGHT * across / up
    left, bottom, above, gap = 0.4, 0.7, 0.8, 0.06
    size = (left + 3 * (width + gap), bottom + rows * (HEIGHT + gap) + above)
    figure = Figure(figsize=size, facecolor="black")
    FigureCanvasAgg(figure)
    figure.suptitle(title, y=1 - 0.08 / size[1], va="top", color="white", fontsize=10)
    edges = {"left": left / size[0], "right": 1 - gap / size[0], "bottom": bottom / size[1], "top": 1 - above / size[1]}
    spaces = {"wspace": gap / width, "hspace": gap / HEIGHT}
    axes = figure.subplots(rows, 3, squeeze=False, gridspec_kw={**edges, **spaces})
    boxes = [(left + 0.3 * width, 1.4 * width), (left + 2.1 * width + 2 * gap, 0.8 * width)]
    scales = [figure.add_axes((x / size[0], 0.48 / size[1], w / size[0], 0.12 / size[1])) for x, w in boxes]
    return figure, axes, scales


def slice_to_show(brain: np.ndarray, lesion: np.ndarray) -> int:
    """The axial slice with most of the lesion; without a lesion, through the middle of the brain."""
    area = lesion.sum((0, 1))
    if area.any():
        return int(area.argmax())
    return round(float(np.average(np.arange(brain.shape[2]), weights=brain.sum((0, 1)))))


def around(line: ArrayLike) -> slice:
    """The part of an axis that a mask reaches, and two voxels more on both sides."""
    found = np.flatnonzero(line)
    return slice(max(found[0] - 2, 0), found[-1] + 3)


def draw_scale(shown: Axes, place: Axes, name: str, ticks: Sequence[float], extend: str) -> None:
    """The colour bar of the image that some axes show."""
    bar = place.figure.colorbar(shown.images[0], cax=place, orientation="horizontal", extend=extend, ticks=ticks)
    bar.set_label(name, color="white", fontsize=9)
    bar.ax.tick_params(colors="white", labelsize=8)
    bar.outline.set_edgecolor("white")
