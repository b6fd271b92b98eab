"""A picture per subject of what was given and what was made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel.orientations import apply_orientation, io_orientation

from bundle.data.checks import load_nifti
from bundle.data.scan_file import slabs

# plane -> the axis (of R, A, S) that it cuts, and the letters at its left, right, top and bottom border. The patient's
# right is on the left of the picture, as radiologists have it.
PLANES = {"axial": (2, "RLAP"), "coronal": (1, "RLSI"), "sagittal": (0, "APSI")}
GIVEN, MADE = "white", "#ffb000"
SHARP = 256  # voxels along an axis: the brain then has about half as many as a panel has pixels


class Sketch:
    """What a picture needs of volumes that come slab by slab: of those with several slabs, every n-th voxel.

    Args:
        reference: a NIfTI file on the grid of the volumes.

    Attributes:
        volumes: what is kept, ``(C, X', Y', Z')``, by name.
        affine: voxel to millimetres, RAS, of what is kept.
    """

    def __init__(self, reference: str | Path) -> None:
        image = load_nifti(reference)
        shape = image.shape[:3]
        self.whole = len(slabs(shape)) == 1
        self.steps = [1 if self.whole else math.ceil(length / SHARP) for length in shape]
        self.shape = [math.ceil(length / step) for length, step in zip(shape, self.steps)]
        self.affine = image.affine @ np.diag([*self.steps, 1])
        self.volumes: dict[str, np.ndarray] = {}

    def add(self, start: int, part: Mapping[str, np.ndarray]) -> None:
        """Take of slabs ``(C, X, Y, n)``, by name, that begin at a plane along the last axis."""
        x, y, z = self.steps
        if self.whole:  # nothing to put together
            self.volumes = dict(part)
            return
        for name, slab in part.items():
            if name not in self.volumes:
                self.volumes[name] = np.empty((len(slab), *self.shape), slab.dtype)
            some = slab[:, ::x, ::y, -start % z :: z]
            first = math.ceil(start / z)
            self.volumes[name][..., first : first + some.shape[3]] = some


def write_qc(
    path: Path,
    title: str,
    volumes: Mapping[str, np.ndarray],
    made: Sequence[str],
    uncertainty: Mapping[str, np.ndarray],
    brain: np.ndarray,
    affine: np.ndarray,
) -> None:
    """Draw three planes of every contrast, then of every uncertainty, through the middle of the brain.

    Args:
        path: of the PNG file.
        title: printed above.
        volumes: contrasts ``(X, Y, Z)`` in [0, 1], in the order of the rows; white is each one's 99.5 percentile.
        made: which of them are synthetic.
        uncertainty: standard deviations of those made, where there are samples; each has its own scale, printed.
        brain: mask ``(X, Y, Z)``.
        affine: voxel to millimetres, RAS, of all volumes.
    """
    turn = io_orientation(affine)
    spacing = nib.affines.voxel_sizes(affine)[np.argsort(turn[:, 0])]
    counts = projections(apply_orientation(brain, turn))
    # a row: name, volume, what it is, its largest value, its colours
    rows = [(n, v, "SYNTHETIC" if n in made else "given", top(v), "gray") for n, v in volumes.items()]
    rows += [(n, v, f"uncertainty, white = {top(v):.3f}", top(v), "inferno") for n, v in uncertainty.items()]
    figure = Figure(figsize=(9.6, 0.5 + 3.1 * len(rows)), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}\nradiological view: the patient's right is on the left", color="white", fontsize=10)
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, (name, volume, what, highest, colours) in zip(axes, rows, strict=True):
        upright = apply_orientation(volume, turn)
        colour = GIVEN if what == "given" else MADE
        line[0].set_ylabel(f"{name}\n{what}", color=colour, fontsize=11, fontweight="bold")
        for ax, plane in zip(line, PLANES, strict=True):
            draw_plane(ax, upright, counts, spacing, plane, highest, colours)
            if what != "given":  # in the picture itself: parts of it get copied elsewhere
                ax.text(0.02, 0.03, "SYNTHETIC", transform=ax.transAxes, color=MADE, fontsize=8)
            for spine in ax.spines.values():
                spine.set_color(colour)
    figure.savefig(path, dpi=100, facecolor="black")


def draw_plane(
    ax: Axes,
    volume: np.ndarray,
    counts: Sequence[np.ndarray],
    spacing: np.ndarray,
    plane: str,
    highest: float,
    colours: str,
) -> None:
    """Show one plane of a volume whose axes are R, A, S, cropped to the brain, in true proportions.

    Args:
        counts: the brain's `projections`, which tell where it lies.
    """
    axis, letters = PLANES[plane]
    box = tuple(slice(max(line[0] - 2, 0), line[-1] + 3) for line in map(np.flatnonzero, counts))
    middle = round(float(np.average(np.arange(len(counts[axis])), weights=counts[axis])))
    across, up = (a for a in range(3) if a != axis)
    picture = np.moveaxis(volume, axis, 0)[middle][box[across], box[up]].T
    ax.imshow(
        picture,
        cmap=colours,
        vmin=0,
        vmax=highest,
        origin="lower",
        aspect=spacing[up] / spacing[across],
        interpolation="nearest",
    )
    ax.invert_xaxis()  # axes grow towards R and A, which belong on the left
    ax.set_xticks([])
    ax.set_yticks([])
    for letter, place in zip(letters, ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04)), strict=True):
        ax.text(*place, letter, transform=ax.transAxes, color="#80c0ff", fontsize=8, ha="center", va="center")


def projections(brain: np.ndarray) -> list[np.ndarray]:
    """How many voxels of the mask each position along each axis has."""
    return [brain.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]


def top(volume: np.ndarray) -> float:
    """The 99.5 percentile of what is above 0, 1 where nothing is: what a picture shows as white."""
    values = volume[volume > 0]
    return float(np.percentile(values, 99.5)) if values.size else 1.0
