"""Tables whose every figure can be worked out by hand."""

from __future__ import annotations

import csv
import json
import statistics

import pytest

from bundle.metrics.conventions import CONVENTIONS
from bundle.metrics.measures import MEASURES, select
from bundle.metrics.tables import PUBLISHED, as_csv, as_markdown, by_subject, label, published

CONTRASTS = ["t1", "t1ce", "t2", "flair"]


def row(subject, given, target, method="network", source="", **scores):
    given = given.split()
    key = {"subject": subject, "given": given, "available": len(given), "target": target}
    return {**key, "method": method, "source": source, **scores}


def sections(rows, names=("psnr", "ssim"), convention="truth", contrasts=CONTRASTS):
    """Title -> its lines, of tables of these measures."""
    measures = {measure.name: measure for measure in select(names, convention)}
    parts = as_markdown(rows, contrasts, measures, "notes").split("\n#")
    return {part.splitlines()[0].strip("# "): part.splitlines() for part in parts}


def cells(lines):
    """(Everything that names a line, column) -> its cell; the columns of figures are those that hold one."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, body = table[0], table[2:]
    first = next(i for i in range(len(head)) if any(line[i][:1] in "-i" or "±" in line[i] for line in body))
    return {(*line[:first], head[i]): line[i] for line in body for i in range(first, len(head))}


FOUR = [
    row("a", "t1", "t2", psnr=20.0, ssim=0.5),
    row("a", "flair", "t2", psnr=24.0, ssim=0.7),
    row("a", "t1 flair", "t2", psnr=30.0, ssim=0.9),
    row("b", "t1", "t2", psnr=10.0, ssim=0.2),
    row("b", "t1", "flair", psnr=16.0, ssim=0.4),
    row("b", "flair", "t1", psnr=18.0, ssim=0.6),
    row("a", "t1", "t2", "copy", "t1 inverted", psnr=12.0, ssim=0.1),
]


def test_mean_over_subsets_then_over_subjects():
    table = cells(sections(FOUR)["Table 1: by the number of available contrasts"])
    spread = statistics.stdev([22.0, 10.0])
    assert table["1", "network", "T2 PSNR ↑"] == f"16.00 ± {spread:.2f}"
    assert table["1", "network", "T2 SSIM ↑"] == f"0.400 ± {statistics.stdev([0.6, 0.2]):.3f}"
    assert table["2", "network", "T2 PSNR ↑"] == "30.00 ± - (n = 1)"
    assert table["1", "network", "FLAIR PSNR ↑"] == "16.00 ± - (n = 1)"
    assert table["1", "copy", "T2 PSNR ↑"] == "12.00 ± - (n = 1)"
    assert table["1", "copy", "FLAIR PSNR ↑"] == "-"
    assert {line[:2] for line in table} == {
        ("1", "network"),
        ("1", "copy"),
        ("2", "network"),
    }  # no line without figures
    assert not any("T1CE" in column for *_, column in table)  # nor such a column


def test_columns_are_in_channel_order_and_dice_where_there_is_some():
    measures = {m.name: m for m in select(["psnr"])} | {"dice": MEASURES["ssim"].__class__(
        "dice", "dice", "", "", "", True, 3, "Dice")}  # fmt: skip
    rows = [row("a", "t1", "t2", psnr=1.0), row("a", "t2", "t1", psnr=2.0, dice=0.25)]
    text = as_markdown(rows, CONTRASTS, measures)
    assert "| available | method | T1 PSNR ↑ | T1 Dice ↑ | T2 PSNR ↑ |\n" in text
    assert "| 1 | network | 2.00 ± - | 0.250 ± - | 1.00 ± - |\n" in text
    without = as_markdown([{k: v for k, v in each.items() if k != "dice"} for each in rows], CONTRASTS, measures)
    assert "Dice ↑" not in without.split("### Published")[0]


def test_two_contrasts():
    lines = sections(FOUR)["Table 2: T1/FLAIR pairs"]
    table = cells(lines)
    assert table["network", "T1 → FLAIR PSNR ↑"] == "16.00 ± -" and table["network", "FLAIR → T1 SSIM ↑"] == "0.600 ± -"
    text = "T1/FLAIR pairs (the paper's Table 2 uses WMH; these are the subjects of this folder)."
    assert lines[2].startswith(f"1 subject. {text} Mean ± standard deviation over subjects")
    assert "Table 2: T1/FLAIR pairs" not in sections(FOUR[:3])


def test_protocols_of_others():
    names = ["ssim_brasyn_outside", "ssim_brasyn_lesion", "psnr_volume", "ssim_volume", "nmse_volume"]
    scores = dict(zip(names, (0.9, 0.8, 25.0, 0.7, 0.1)))
    rows = [row("a", "t1 t1ce flair", "t2", **scores), row("a", "t1 flair", "t2", **dict.fromkeys(names, 0.0))]
    rows += [row("a", "flair", "t2", **{**scores, "psnr_volume": 20.0})]
    found = sections(rows, names)
    brasyn = found["BraSyn's protocol: each contrast from the other three"]
    assert cells(brasyn) == {
        ("network", "T2 SSIM BraSyn outside ↑"): "0.900 ± -", ("network", "T2 SSIM BraSyn lesion ↑"): "0.800 ± -"
    }  # fmt: skip
    assert any(CONVENTIONS["own"] in line for line in brasyn)
    assert cells(found["ALDM's protocol: one source to one target"]) == {
        ("network", "FLAIR", "T2 PSNR volume ↑"): "20.00 ± -",
        ("network", "FLAIR", "T2 NMSE volume ↓"): "0.1000 ± -",
        ("network", "FLAIR", "T2 SSIM volume ↑"): "0.700 ± -",
    }


def test_further_measures_average_all_subsets():
    rows = [row("a", "t1", "t2", mae=0.1), row("a", "t1 flair", "t2", mae=0.3), row("b", "t1", "t2", "copy", mae=0.4)]
    found = sections(rows, ["psnr", "mae"])
    assert list(found) == ["Evaluation of 2 subjects", "All further measures"]  # empty tables are left out
    table = cells(found["All further measures"])
    assert table == {("T2", "MAE ↓", "network"): "0.2000 ± - (n = 1)", ("T2", "MAE ↓", "copy"): "0.4000 ± - (n = 1)"}


def test_captions():
    title = "Table 1: by the number of available contrasts"
    lines = sections(FOUR, ["psnr", "ssim", "psnr_volume"], "max")[title]
    assert lines[2].startswith("2 subjects. ") and lines[2].endswith(
        "standard deviation over subjects (divided by n - 1)."
    )
    assert f'Convention "max": {CONVENTIONS["max"]}' in lines
    assert f"- PSNR ↑ (dB): {MEASURES['psnr'].meaning}." in lines and f"- SSIM ↑: {MEASURES['ssim'].meaning}." in lines
    assert not any("volume" in line for line in lines)
    alone = sections(FOUR[:3])[title]
    assert alone[2].startswith("1 subject. ") and alone[2].endswith(
        "(divided by n - 1); - : there is none of one subject."
    )


def test_infinite_quality():
    rows = [row("a", "t1", "t2", psnr=float("inf")), row("b", "t1", "t2", psnr=20.0)]
    table = cells(sections(rows)["Table 1: by the number of available contrasts"])
    assert table["1", "network", "T2 PSNR ↑"] == "inf ± -"


def test_published_figures_are_apart():
    text = as_markdown(FOUR, CONTRASTS, {m.name: m for m in select(["psnr", "ssim"])})
    title = "### Published on BraTS 2020 with another convention, not run here"
    wmh = "### Published on WMH with another convention, not run here"
    assert text.count(title) == 1 and text.index("## Table 1") < text.index(title) < text.index("## Table 2")
    assert (
        "29.01" not in text.split(title)[0]
        and "| 3 | MISA-LDM (2-D LDM), not run | 29.01 ± 2.02 |" in text.split(title)[1]
    )
    other = [row("a", "t1", "pd", psnr=1.0, ssim=0.1)]
    assert "Published" not in as_markdown(other, ["t1", "pd"], {m.name: m for m in select(["psnr"])})
    assert text.index("## Table 2") < text.index(wmh)  # and after a table that is printed only
    assert wmh not in as_markdown(FOUR[:3], CONTRASTS, {m.name: m for m in select(["psnr"])})
    block, *others = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert {len(line) for line in block["lines"]} == {len(block["head"])} == {14}
    assert all({len(line) for line in other["lines"]} == {len(other["head"])} for other in others)
    gain = [float(line[-3].split()[0]) for line in block["lines"] if line[1].startswith("MSG-LDM")]
    assert gain == [27.92, 28.96, 29.68]  # FLAIR, one to three available contrasts


def test_published_methods_of_a_protocol():
    (text,) = published("ALDM's protocol: one source to one target", CONTRASTS)
    assert "| 3-D pix2pix, not run | 25.181 ± 0.861 |" in text and "219 other subjects" in text
    assert published("ALDM's protocol", ["t1", "pd"]) == published("BraSyn's protocol", CONTRASTS) == []


def test_table_of_no_rows():
    assert as_markdown([], CONTRASTS, {m.name: m for m in select(["psnr"])}, "notes") == (
        "# Evaluation of 0 subjects\n\nnotes\n"
    )


def test_csv():
    rows = [
        row("a", "t1 flair", "t2", psnr=1.5, mine=2.0),
        row("a", "t1", "t2", "copy", "t1", mae_lesion=0.1, ssim=0.3),
    ]
    lines = list(csv.reader(as_csv(rows).splitlines()))
    head = ["subject", "given", "available", "target", "method", "source", "psnr", "ssim", "mae_lesion", "mine"]
    assert lines == [
        head,
        ["a", "t1 flair", "2", "t2", "network", "", "1.5", "", "", "2.0"],
        ["a", "t1", "1", "t2", "copy", "t1", "", "0.3", "0.1", ""],
    ]


def test_by_subject_takes_what_is_asked_for():
    assert by_subject(FOUR, {"measure": "psnr", "target": "t2", "method": "network"}) == {
        "a": pytest.approx((20 + 24 + 30) / 3), "b": 10.0
    }  # fmt: skip
    assert by_subject(FOUR, {"measure": "mae"}) == {}
    unknown = [row("a", "t1", "t2", psnr=None), row("a", "flair", "t2", psnr=3.0), row("b", "t1", "t2", psnr=None)]
    assert by_subject(unknown, {"measure": "psnr"}) == {"a": 3.0}


def test_labels():
    assert [label(MEASURES[name]) for name in ("ms_ssim", "mae_lesion", "ssim_brasyn_outside", "sharpness")] == [
        "MS SSIM ↑", "MAE lesion ↓", "SSIM BraSyn outside ↑", "sharpness ↑"
    ]  # fmt: skip
