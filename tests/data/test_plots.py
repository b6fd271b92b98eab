"""What the plots of an evaluation show, read back from the figures."""

from __future__ import annotations

import math
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.legend import Legend
from matplotlib.patches import PathPatch
from PIL import Image

from bundle.data.plots import FLOORS, STYLE, draw_calibration, draw_gates, draw_quality, draw_subsets, write_plots
from bundle.metrics.conventions import CONVENTIONS
from bundle.metrics.measures import MEASURES

pytestmark = pytest.mark.filterwarnings("error")
CONTRASTS = ("t1", "t1ce", "t2", "flair")
NAMES = ["quality_by_available.png", "subsets.png", "calibration.png", "gates.png"]


def row(subject, given, target, psnr, method="network"):
    return {
        "subject": subject,
        "given": list(given),
        "available": len(given),
        "target": target,
        "method": method,
        "source": "",
        "psnr": psnr,
        "ssim": psnr / 40,
    }


@pytest.fixture(autouse=True)
def styled():
    with matplotlib.rc_context(STYLE):
        yield


def results(rows, **others):
    measures = {"psnr": "the ratio", "ssim": "the similarity"}
    return {"contrasts": CONTRASTS, "convention": "truth", "measures": measures, "results": rows, **others}


def all_rows(subjects, methods=("network", *FLOORS)):
    """Every target from every subset of the others; no two values of a method are equal."""
    tasks = [
        (given, target)
        for count in (1, 2, 3)
        for given in combinations(CONTRASTS, count)
        for target in CONTRASTS
        if target not in given
    ]
    return [
        row(f"s{s}", given, target, 20 + 0.5 * s + 0.1 * number - index, method)
        for s in range(subjects)
        for number, (given, target) in enumerate(tasks)
        for index, method in enumerate(methods)
    ]


def calibration(shift=0.0):
    bins = [{"uncertainty": 0.01 * n + shift, "rmse": 0.02 * n, "count": 100 * n} for n in (1, 2, 3)]
    return {"bins": bins, "ence": 1.0, "spearman": None, "voxels": 600}


GATES = [
    {"given": ["t1"], "source": "t1", "scale": 1, "gate": 0.9},
    {"given": ["t1"], "source": "t1", "scale": 2, "gate": 0.7},
    {"given": ["t1", "t2"], "source": "t1", "scale": 1, "gate": 0.2},
    {"given": ["t1", "t2"], "source": "t2", "scale": 1, "gate": 0.4},
    {"given": ["t1", "flair"], "source": "t1", "scale": 1, "gate": 0.3},
]


def plotted(ax):
    """Colour and line style -> the points of each line."""
    return {(to_hex(line.get_color()), line.get_linestyle()): line.get_xydata().tolist() for line in ax.get_lines()}


def texts(figure):
    return " ".join(text.get_text() for part in (figure, *figure.subfigs) for text in part.texts).replace("\n", " ")


def test_files(tmp_path):
    before = dict(matplotlib.rcParams)
    full = results(all_rows(2), calibration={"t1": calibration(), "t2": None}, gates=GATES)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        assert write_plots(full, folder) == NAMES
    for name in NAMES:
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes()
        assert b"Software" not in data
        picture = np.asarray(Image.open(tmp_path / "a" / name).convert("L"))
        assert picture.shape[1] == 1440 and picture.min() < 20 and picture.max() == 255
    assert dict(matplotlib.rcParams) == before


def test_only_what_there_are_numbers_for(tmp_path):
    assert write_plots(results(all_rows(1), calibration={"t1": None}, gates=[]), tmp_path) == NAMES[:2]
    assert write_plots(results([], calibration=None), tmp_path) == []
    other = [{key: value for key, value in each.items() if key not in ("psnr", "ssim")} for each in all_rows(1)]
    assert write_plots(results(other), tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES[:2])


def test_quality_is_the_mean_over_subjects_not_over_rows():
    rows = [
        *(row("a", given, "t2", psnr) for given, psnr in ((["t1"], 20), (["flair"], 24), (["t1", "flair"], 30))),
        row("b", ["t1"], "t2", 26),  # has one subset: 22 of a and 26 of b are 24, the three rows would be 23.33
        row("a", ["t1"], "t2", 15, "copy"),
        row("a", ["t1"], "t2", math.inf, "copy_oracle"),
        row("b", ["t1"], "t2", 19, "copy_oracle"),
    ]
    (psnr, ssim) = draw_quality(results(rows), ["psnr", "ssim"]).axes
    lines = plotted(psnr)
    assert lines["#009e73", "-"] == [[1, 24], [2, 30]]
    assert np.array(plotted(ssim)["#009e73", "-"]) == pytest.approx(np.array([[1, 0.6], [2, 0.75]]))
    assert lines["#777777", "--"] == [[1, 15]]
    assert lines["#777777", ":"] == [[1, 19]]  # an infinite PSNR cannot be drawn
    (bars,) = psnr.containers
    low, high = bars[2][0].get_segments()[0]
    assert high[1] - low[1] == pytest.approx(2 * np.std([22, 26], ddof=1))
    assert psnr.get_ylabel() == "PSNR (dB)" and psnr.get_title() == "T2" and list(psnr.get_xticks()) == [1, 2]


def test_footer_tells_subjects_measures_and_convention():
    found = texts(draw_quality(results(all_rows(3)), ["psnr", "ssim"])).replace("\xa0", " ")
    assert ": 3 subjects" in found and "PSNR: the ratio. SSIM: the similarity." in found
    assert CONVENTIONS["truth"] in found and "sample standard deviation over subjects" in found
    found = texts(draw_quality(results(all_rows(1)), ["psnr"]))
    assert ": 1 subject " in found and "standard deviation" not in found and "SSIM" not in found


def test_subsets_in_order_with_dots_below():
    axes = draw_subsets(results(all_rows(2)), ["psnr"]).axes
    assert len(axes) == 2
    given = [line.get_ydata() for line in axes[1].get_lines() if to_hex(line.get_color()) == "#000000"]
    expected = [subset for count in (1, 2, 3) for subset in combinations(range(4), count)]
    assert [tuple(subset) for subset in given] == expected
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["T1", "T1CE", "T2", "FLAIR"]
    assert [text.get_text() for text in axes[0].texts] == ["1 given", "2 given", "3 given"]
    places = [line.get_xdata()[0] for line in axes[1].get_lines() if to_hex(line.get_color()) == "#000000"]
    assert places == sorted(places)


def test_few_values_are_points_more_are_a_box():
    rows = all_rows(2)  # three targets from one given contrast: 6 values; two from two: 4; one from three: 2
    ax, _ = draw_subsets(results(rows), ["psnr"]).axes
    boxes = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
    assert len(boxes) == 4
    points = sorted(y for line in ax.get_lines() if line.get_marker() in tuple("os^D") for y in line.get_ydata())
    assert points == sorted(each["psnr"] for each in rows if each["method"] == "network")
    first = [each["psnr"] for each in rows if each["given"] == ["t1"] and each["method"] == "network"]
    heights = boxes[0].get_path().vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx(tuple(np.percentile(first, [25, 75])))


def test_many_values_are_a_box_and_the_mean_of_each_target():
    rows = all_rows(12, ["network"])
    ax, _ = draw_subsets(results(rows), ["psnr"]).axes
    assert len([patch for patch in ax.patches if isinstance(patch, PathPatch)]) == 14
    shown = sorted(
        line.get_ydata()[0] for line in ax.get_lines() if line.get_marker() in tuple("os^D") and len(line.get_xdata())
    )
    means = [
        np.mean([r["psnr"] for r in rows if (tuple(r["given"]), r["target"]) == task])
        for task in {(tuple(r["given"]), r["target"]) for r in rows}
    ]
    assert shown == pytest.approx(sorted(means)) and len(shown) == 28


def test_calibration():
    found = {"t1": calibration(), "t2": None, "flair": calibration(0.05)}
    axes = [ax for ax in draw_calibration(results(all_rows(2), calibration=found)).axes if ax.get_visible()]
    assert [ax.get_title() for ax in axes[:2]] == ["T1", "FLAIR"]
    assert np.array(plotted(axes[0])["#0072b2", "-"]) == pytest.approx(
        np.array([[0.01, 0.02], [0.02, 0.04], [0.03, 0.06]])
    )
    assert plotted(axes[1])["#cc79a7", "-"][0] == pytest.approx([0.06, 0.02])
    top = 1.05 * 0.08
    assert plotted(axes[0])["#777777", "--"] == [[0, 0], pytest.approx([top, top])]
    assert axes[0].get_xlim() == axes[0].get_ylim() == pytest.approx((0, top))
    assert axes[0].texts[0].get_text() == "ENCE 1.00"  # there is no Spearman
    shares = [segment[1][1] for segment in axes[2].collections[0].get_segments()]
    assert shares == pytest.approx([100 / 6, 200 / 6, 300 / 6])


def test_calibration_of_a_perfect_network():
    perfect = {"bins": [{"uncertainty": 0.0, "rmse": 0.0, "count": 9}], "ence": None, "spearman": None, "voxels": 9}
    axes = draw_calibration(results(all_rows(1), calibration={"t1": perfect})).axes
    assert axes[0].get_xlim() == (0, 1) and axes[0].texts[0].get_text() == ""


def test_gates():
    axes = draw_gates(results(all_rows(2), gates=GATES)).axes
    one, two = (np.asarray(ax.images[0].get_array().filled(np.nan)) for ax in axes[:2])
    assert one == pytest.approx(np.array([[0.9, 0.7], [np.nan, np.nan]]), nan_ok=True)
    assert two == pytest.approx(np.array([[0.25, np.nan], [0.4, np.nan]]), nan_ok=True)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["T1", "T2"]
    assert [text.get_text() for text in axes[1].texts] == ["0.25", "0.40"]
    assert [ax.get_title() for ax in axes[:2]] == ["1 given", "2 given"]


@pytest.mark.parametrize("draw", [draw_quality, draw_subsets])
def test_title_legend_and_footer_have_room(draw):
    rows = [{**each, "subject": f"s{number}"} for number, each in enumerate(all_rows(12, ["network", *FLOORS]))]
    longest = {"measures": {name: MEASURES[name].meaning for name in ("psnr", "ssim")}, "convention": "own"}
    figure = draw(results(rows, **longest), ["psnr", "ssim"])
    figure.draw_without_rendering()
    (head, *_) = figure.subfigs
    (legend,) = (child for child in head.get_children() if isinstance(child, Legend))
    title, legend = head.texts[0].get_window_extent(), legend.get_window_extent()
    assert title.x1 < legend.x0 and legend.x1 <= figure.bbox.width
    foot = figure.subfigs[-1]
    assert foot.texts[0].get_window_extent().x1 < figure.bbox.width
    assert foot.texts[0].get_window_extent().height < foot.bbox.height
