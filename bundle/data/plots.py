"""The plots of an evaluation, from what results.json holds."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bundle.metrics.conventions import CONVENTIONS
from bundle.metrics.tables import by_subject, counted

MEASURES = {"psnr": "PSNR (dB)", "ssim": "SSIM"}  # those that are drawn, with their axes' labels
# Okabe and Ito's colours, told apart with any colour vision, with a marker each for prints in grey
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# name and line of each
FLOORS: dict[str, tuple[str, Any]] = {"copy": ("copy", "--"), "copy_oracle": ("copy, oracle", ":")}
GREY, FAINT = "#777777", "#d9d9d9"
WIDTH = 7.2  # inches: two columns of a journal
BOX_FROM = 5  # values; quartiles of fewer say less than the values themselves
POINTS_TO = 30  # values per box that are drawn one by one

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def write_plots(results: Mapping[str, Any], folder: Path) -> list[str]:
    """Write a picture of each kind that the results have the numbers for.

    Args:
        results: as results.json holds them.
        folder: where the PNG files go; it exists.

    Returns:
        The names of the files written, of `quality_by_available.png`, `subsets.png`, `calibration.png` and
        `gates.png`.
    """
    rows = results["results"]
    measures = [name for name in MEASURES if any(row["method"] == "network" and name in row for row in rows)]
    figures = {}
    with rc_context(STYLE):
        if measures:
            figures["quality_by_available.png"] = draw_quality(results, measures)
            figures["subsets.png"] = draw_subsets(results, measures)
        if any((results.get("calibration") or {}).values()):
            figures["calibration.png"] = draw_calibration(results)
        if results.get("gates"):
            figures["gates.png"] = draw_gates(results)
        for name, figure in figures.items():
            figure.savefig(folder / name, dpi=200, metadata={"Software": None})
    return list(figures)


def draw_quality(results: Mapping[str, Any], measures: Sequence[str]) -> Figure:
    """Each measure (rows of axes) of each target (columns) against the number of given contrasts, with the floors."""
    rows = results["results"]
    targets, sizes = targets_of(rows, results), sorted({row["available"] for row in rows})
    text = "Mean over subjects, each first averaged over its subsets of that many given contrasts"
    several = len({row["subject"] for row in rows}) > 1
    text += "; bars: sample standard deviation over subjects." if several else "."
    sheet = page("Quality by number of given contrasts", text, results, measures, 1.8 * len(measures) + 0.5)
    axes = sheet.body.subplots(len(measures), len(targets), squeeze=False, sharex=True, sharey="row")
    for line, measure in zip(axes, measures, strict=True):
        usable = finite(rows, measure)
        line[0].set_ylabel(MEASURES[measure])
        for ax, target in zip(line, targets, strict=True):
            of_target = [row for row in usable if row["target"] == target]
            for method, (_, style) in FLOORS.items():
                x, means, _ = by_size(of_target, method, measure, sizes)
                ax.plot(x, means, color=GREY, linestyle=style, linewidth=1, marker="_" if len(x) == 1 else "")
            colour, marker = look(target, results)
            ax.errorbar(*by_size(of_target, "network", measure, sizes), color=colour, marker=marker, capsize=2.5)
            ax.grid(axis="y")
    for ax, target in zip(axes[0], targets, strict=True):
        ax.set_title(target.upper(), color=look(target, results)[0], fontweight="bold")
    axes[0, 0].set(xticks=sizes, xlim=(sizes[0] - 0.4, sizes[-1] + 0.4))
    sheet.body.supxlabel("number of given contrasts", fontsize=8)
    sheet.body.align_ylabels()
    drawn = {row["method"] for row in rows}
    handles = [Line2D([], [], color="black", marker="o", label="network")]
    handles += [Line2D([], [], color=GREY, linestyle=s, label=n) for key, (n, s) in FLOORS.items() if key in drawn]
    sheet.head.legend(handles=handles, loc="center right", ncols=len(handles), columnspacing=1.2)
    return sheet.figure


def by_size(
    rows: Sequence[Mapping[str, Any]], method: str, measure: str, sizes: Sequence[int]
) -> tuple[list[int], list[float], list[float]]:
    """Numbers of given contrasts that occur, and for each mean and standard deviation (NaN for one) over subjects."""
    found = {
        size: list(by_subject(rows, {"method": method, "available": size, "measure": measure}).values())
        for size in sizes
    }
    found = {size: values for size, values in found.items() if values}
    spread = [float(np.std(values, ddof=1)) if len(values) > 1 else nan for values in found.values()]
    return list(found), [float(np.mean(values)) for values in found.values()], spread


def draw_subsets(results: Mapping[str, Any], measures: Sequence[str]) -> Figure:
    """A box of each measure per subset of given contrasts, over subjects and targets; dots below tell the subset."""
    rows = [row for row in results["results"] if row["method"] == "network"]
    order = list(results["contrasts"])
    counts = Counter(tuple(row["given"]) for row in rows)
    subsets = sorted(counts, key=lambda given: (len(given), [order.index(name) for name in given]))
    places = [number + 0.6 * len(subset) for number, subset in enumerate(subsets)]  # a gap where the number changes
    few = max(counts.values()) <= POINTS_TO
    text = "A value per subject and target. " + ("Coloured: each of them." if few else "Coloured: means over subjects.")
    if max(counts.values()) >= BOX_FROM:
        text += f" Boxes, from {BOX_FROM} values on: quartiles and median; whiskers: the farthest values within 1.5 "
        text += "times the box's length."
    dots = 0.22 * len(order) + 0.35
    sheet = page("Quality by given contrasts", text, results, measures, 1.8 * len(measures) + dots)
    ratios = [1.8] * len(measures) + [dots]
    axes = sheet.body.subplots(len(ratios), sharex=True, gridspec_kw={"height_ratios": ratios})
    for ax, measure in zip(axes, measures, strict=False):
        usable = finite(rows, measure)
        ax.set_ylabel(MEASURES[measure])
        ax.grid(axis="y")
        ax.tick_params(axis="x", length=0)
        for place, subset in zip(places, subsets, strict=True):
            chosen = [row for row in usable if tuple(row["given"]) == subset]
            draw_box(ax, place, [row[measure] for row in chosen], show_outliers=not few)
            draw_points(ax, place, chosen, measure, results, only_means=not few)
    for size in sorted({len(subset) for subset in subsets}):
        middle = np.mean([place for place, subset in zip(places, subsets, strict=True) if len(subset) == size])
        across = axes[0].get_xaxis_transform()
        axes[0].text(middle, 1.02, f"{size} given", transform=across, ha="center", va="bottom")
    draw_dots(axes[-1], places, subsets, order)
    looks = {target: look(target, results) for target in targets_of(rows, results)}
    handles = [Line2D([], [], linestyle="", label="synthesised:")]
    handles += [
        Line2D([], [], linestyle="", color=colour, marker=marker, label=target.upper())
        for target, (colour, marker) in looks.items()
    ]
    sheet.head.legend(handles=handles, loc="center right", ncols=len(handles), handletextpad=0.1, columnspacing=1.2)
    sheet.body.align_ylabels(axes[:-1])
    return sheet.figure


def draw_box(ax: Axes, place: float, values: Sequence[float], show_outliers: bool) -> None:
    """A box of values, where there are enough."""
    if len(values) < BOX_FROM:
        return
    line = {"color": "#555555", "linewidth": 0.8}
    ax.boxplot(
        values,
        positions=[place],
        widths=0.7,
        patch_artist=True,
        boxprops={"facecolor": "#efefef", "edgecolor": "#555555", "linewidth": 0.8},
        medianprops={"color": "black", "linewidth": 1.4},
        whiskerprops=line,
        capprops=line,
        showfliers=show_outliers,
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": GREY},
        manage_ticks=False,
    )


def draw_points(
    ax: Axes,
    place: float,
    rows: Sequence[Mapping[str, Any]],
    measure: str,
    results: Mapping[str, Any],
    only_means: bool,
) -> None:
    """The values of a subset, or their means, with the targets side by side."""
    targets = targets_of(rows, results)
    for number, target in enumerate(targets):
        values = [row[measure] for row in rows if row["target"] == target]
        values = [float(np.mean(values))] if only_means else values
        colour, marker = look(target, results)
        x = place + 0.2 * (number - (len(targets) - 1) / 2)
        ax.plot([x] * len(values), values, marker, color=colour, markeredgecolor="white", markeredgewidth=0.4, zorder=3)


def draw_dots(ax: Axes, places: Sequence[float], subsets: Sequence[Sequence[str]], contrasts: Sequence[str]) -> None:
    """Which contrasts each subset holds: a column of dots per subset, a row per contrast."""
    ax.set(yticks=range(len(contrasts)), yticklabels=[name.upper() for name in contrasts])
    ax.set(ylim=(len(contrasts) - 0.4, -0.6), xticks=[], xlabel="given contrasts")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    middle, half = (places[0] + places[-1]) / 2, (places[-1] - places[0]) / 2
    ax.set_xlim(middle - max(half + 0.8, 4), middle + max(half + 0.8, 4))  # few boxes stay slim
    for number in range(0, len(contrasts), 2):
        ax.axhspan(number - 0.5, number + 0.5, color="#f4f4f4", linewidth=0)
    for place, subset in zip(places, subsets, strict=True):
        given = [number for number, name in enumerate(contrasts) if name in subset]
        ax.plot([place] * len(contrasts), range(len(contrasts)), "o", color=FAINT, markersize=5.5, markeredgewidth=0)
        ax.plot([place] * len(given), given, "o-", color="black", markersize=5.5, markeredgewidth=0, linewidth=1.2)


def draw_calibration(results: Mapping[str, Any]) -> Figure:
    """Error against uncertainty per target, and below it where the voxels are."""
    found = {name: result for name, result in results["calibration"].items() if result}
    text = (
        "Voxels inside the brain of all subjects and subsets of given contrasts, in bins of about equal numbers, by "
        "uncertainty: the standard deviation over samples (of a bin: root mean square). Both on the scale on which "
        "the truth's range is 1. On the dashed line uncertainty tells the error, above the line it is too small. "
        "ENCE: mean distance from the line over uncertainty, 0 at best. Spearman: rank correlation over voxels, 1 at "
        "best."
    )
    columns = max(len(found), 3)  # of about square axes
    sheet = page("Uncertainty against error", text, results, [], WIDTH / columns + 0.9)
    grid = {"height_ratios": [4, 1]}
    axes = sheet.body.subplots(2, columns, squeeze=False, sharex=True, sharey="row", gridspec_kw=grid)
    for ax in axes[:, len(found) :].flat:
        ax.set_visible(False)
    top = 1.05 * max(max(each["rmse"], each["uncertainty"]) for result in found.values() for each in result["bins"])
    top = top or 1
    ticks = MaxNLocator(3).tick_values(0, top)
    for (upper, lower), (target, result) in zip(axes.T, found.items(), strict=False):
        uncertainty, rmse, count = (
            np.array([each[key] for each in result["bins"]]) for key in ("uncertainty", "rmse", "count")
        )
        colour, marker = look(target, results)
        upper.set_title(target.upper(), color=colour, fontweight="bold")
        upper.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle="--")
        upper.plot(uncertainty, rmse, color=colour, marker=marker)
        upper.set(xticks=ticks, yticks=ticks, xlim=(0, top), ylim=(0, top))
        known = {"ENCE": result["ence"], "Spearman": result["spearman"]}
        lines = [f"{name} {value:.2f}" for name, value in known.items() if value is not None]
        upper.text(0.98, 0.03, "\n".join(lines), transform=upper.transAxes, ha="right", va="bottom", fontsize=7)
        lower.vlines(uncertainty, 0, 100 * count / count.sum(), color=colour, linewidth=1.5)
        lower.set_ylim(0)
    axes[0, 0].set_ylabel("error (RMSE)")
    axes[1, 0].set_ylabel("voxels (%)")
    for ax in axes[1]:
        ax.set_xlabel("uncertainty")
    sheet.body.align_ylabels()
    return sheet.figure


def draw_gates(results: Mapping[str, Any]) -> Figure:
    """How far the network opens for each given contrast at each scale, by the number of given contrasts."""
    rows = results["gates"]
    sizes, scales = sorted({len(row["given"]) for row in rows}), sorted({row["scale"] for row in rows})
    sources = [name for name in results["contrasts"] if any(row["source"] == name for row in rows)]
    text = (
        "Gate: how far MMSF opens for a given contrast, from 0 (ignored) to 1; mean over the voxels of the brain, then "
        "over the subsets of that many given contrasts. Scale 1 is the finest. The gates do not depend on the target."
    )
    sheet = page("Gates by number of given contrasts", text, results, [], 0.32 * len(sources) + 0.75)
    axes = sheet.body.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
    for ax, size in zip(axes, sizes, strict=True):
        found = defaultdict(list)
        for row in rows:
            if len(row["given"]) == size:
                found[row["source"], row["scale"]].append(row["gate"])
        means = np.array([[np.mean(found.get((source, scale), nan)) for scale in scales] for source in sources])
        image = ax.imshow(means, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (y, x), value in np.ndenumerate(means):
            if isfinite(value):
                ax.text(x, y, f"{value:.2f}", ha="center", va="center", color="black" if value < 0.6 else "white")
        ax.set(xticks=range(len(scales)), xticklabels=scales, xlabel="scale", title=f"{size} given")
        ax.set(yticks=range(len(sources)), yticklabels=[name.upper() for name in sources])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    bar = sheet.body.colorbar(image, ax=axes, label="mean gate", ticks=(0, 0.5, 1), aspect=12, pad=0.02)
    bar.outline.set_visible(False)
    return sheet.figure


@dataclass(frozen=True)
class Page:
    """A figure with a title and the number of subjects above, and what the numbers are below.

    Attributes:
        figure: all of it.
        head: the strip of the title; its right half is free for a legend.
        body: between title and footer.
    """

    figure: Figure
    head: SubFigure
    body: SubFigure


def page(title: str, text: str, results: Mapping[str, Any], measures: Sequence[str], height: float) -> Page:
    """Start a figure.

    Args:
        title: without the number of subjects.
        text: what the marks are.
        results: the evaluation.
        measures: those drawn.
        height: of the body, in inches.
    """
    convention = results["convention"]
    parts = [text, *(f"{name.upper()}: {results['measures'][name]}." for name in measures)]
    if measures:
        parts.append(f'Convention "{convention}": {CONVENTIONS[convention]}')
    lines = textwrap.wrap(" ".join(parts).replace("[0, 1]", "[0,\N{NO-BREAK SPACE}1]"), 140)
    heights = 0.35, height, 0.12 + 0.13 * len(lines)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    head, body, foot = np.asarray(figure.subfigures(3, height_ratios=heights))
    subjects = counted(len({row["subject"] for row in results["results"]}))
    head.text(0.01, 0.5, f"{title}: {subjects}", va="center", fontsize=10, fontweight="bold")
    foot.text(0.01, 0.5, "\n".join(lines), va="center", fontsize=6.5, color="#555555", linespacing=1.25)
    return Page(figure, head, body)


def targets_of(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> list[str]:
    """The targets of some rows, in the order of the contrasts."""
    return [name for name in results["contrasts"] if any(row["target"] == name for row in rows)]


def look(target: str, results: Mapping[str, Any]) -> tuple[str, str]:
    """Colour and marker of a target, the same in all plots."""
    number = list(results["contrasts"]).index(target)
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def finite(rows: Sequence[Mapping[str, Any]], measure: str) -> list[Mapping[str, Any]]:
    """The rows whose value can be drawn: a copy that equals the truth has an infinite PSNR."""
    return [row for row in rows if row.get(measure) is not None and isfinite(row[measure])]
