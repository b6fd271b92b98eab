"""Results of an evaluation as a table to compute with and tables to read.

A row of results is a flat mapping with the keys `KEYS` and a number for each measure that could be told.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bundle.metrics.conventions import CONVENTIONS
from bundle.metrics.measures import MEASURES, Measure

KEYS = ("subject", "given", "available", "target", "method", "source")
QUALITY = ("psnr", "ssim", "dice")  # what the paper's tables show
# how the parts of a measure's name are printed; all others are acronyms
WORDS = {word: word for word in ("volume", "lesion", "outside", "sharpness", "gradient", "stripes", "xy", "z")}
WORDS |= {word: word for word in ("correlation", "error", "contrast")}
WORDS |= {"brasyn": "BraSyn", "dice": "Dice"}
PUBLISHED = Path(__file__).with_name("published.json")

Row = Mapping[str, Any]
Where = Mapping[str, Any]  # the rows that have these values; under "measure", which of their numbers


@dataclass(frozen=True)
class Table:
    """A table to print; lines and columns without any number are left out, and so is a table without any.

    Attributes:
        title, text: what it shows, and which rows of a subject are averaged.
        heads: names of the columns that name the line.
        lines: what names the line -> its rows.
        columns: name of the column -> its rows; a cell holds what both ask for.
    """

    title: str
    text: str
    heads: Sequence[str]
    lines: Mapping[tuple[str, ...], Where]
    columns: Mapping[str, Where]


def as_csv(rows: Sequence[Row]) -> str:
    """One line per row: `KEYS`, then a column per measure; the names in "given" are divided by blanks."""
    table = io.StringIO()
    writer = csv.DictWriter(table, [*KEYS, *measures_in(rows)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "given": " ".join(row["given"])} for row in rows)
    return table.getvalue()


def as_markdown(rows: Sequence[Row], contrasts: Sequence[str], measures: Mapping[str, Measure], notes: str = "") -> str:
    """The tables of the field: mean and standard deviation over subjects.

    Args:
        rows: those of all subjects.
        contrasts: in the order of the tables.
        measures: what the numbers are called in `rows` -> what they are.
        notes: what else the reader must know, printed above the tables.
    """
    subjects = len({row["subject"] for row in rows})
    parts = [f"# Evaluation of {counted(subjects)}", notes]
    targets = {row["target"] for row in rows}
    for table in tables(rows, contrasts, measures):
        if text := printed(table, rows, measures):
            parts += [text, *published(table.title, targets)]
    return "\n\n".join(part for part in parts if part) + "\n"


def tables(rows: Sequence[Row], contrasts: Sequence[str], measures: Mapping[str, Measure]) -> list[Table]:
    """The tables that these rows may fill."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    sizes = sorted({row["available"] for row in rows})
    further = [name for name in measures if name not in QUALITY]
    by_method: dict[tuple[str, ...], Where] = {(method,): {"method": method} for method in methods}
    to_target = {t.upper(): {"target": t} for t in contrasts}
    pairs = {f"{a.upper()} → {b.upper()}": {"given": [a], "target": b} for a, b in (("t1", "flair"), ("flair", "t1"))}

    def each(groups: Mapping[str, Where], names: Sequence[str]) -> dict[str, Where]:
        chosen = [name for name in names if name in measures]
        return {
            f"{group} {label(measures[name])}": {**where, "measure": name}
            for (group, where), name in product(groups.items(), chosen)
        }

    return [
        Table(
            "Table 1: by the number of available contrasts",
            "The paper's Table 1. Of a subject, the mean over its subsets of that many available contrasts.",
            ("available", "method"),
            {(str(k), m): {"available": k, "method": m} for k, m in product(sizes, methods)},
            each(to_target, QUALITY),
        ),
        Table(
            "Table 2: T1/FLAIR pairs",
            "T1/FLAIR pairs (the paper's Table 2 uses WMH; these are the subjects of this folder).",
            ("method",),
            by_method,
            each(pairs, QUALITY),
        ),
        Table(
            "BraSyn's protocol: each contrast from the other three",
            "SSIM in 3-D as the BraSyn challenge takes it, in and outside the lesion.",
            ("method",),
            {line: {**where, "available": 3} for line, where in by_method.items()},
            each(to_target, ["ssim_brasyn_outside", "ssim_brasyn_lesion", "dice"]),
        ),
        Table(
            "ALDM's protocol: one source to one target",
            "As Table 2 of ALDM (Kim and Park, WACV 2024), on whole 3-D volumes.",
            ("method", "source"),
            {(m, s.upper()): {"method": m, "given": [s]} for m, s in product(methods, contrasts)},
            each(to_target, ["psnr_volume", "nmse_volume", "ssim_volume"]),
        ),
        Table(
            "All further measures",
            "Of a subject, the mean over all subsets of available contrasts. ↑: the higher the better; ↓: the lower.",
            ("target", "measure"),
            {(t.upper(), label(measures[m])): {"target": t, "measure": m} for t, m in product(contrasts, further)},
            {method: {"method": method} for method in methods},
        ),
    ]


def printed(table: Table, rows: Sequence[Row], measures: Mapping[str, Measure]) -> str:
    """A table in Markdown with its caption; empty where there is no number for it."""
    cells = {
        (line, column): {**where, **and_where}
        for (line, where), (column, and_where) in product(table.lines.items(), table.columns.items())
    }
    means = {place: by_subject(rows, where) for place, where in cells.items()}
    lines = [line for line in table.lines if any(means[line, column] for column in table.columns)]
    columns = [column for column in table.columns if any(means[line, column] for line in lines)]
    if not lines:
        return ""
    shown = [measures[name] for name in measures if any(means[p] and cells[p]["measure"] == name for p in cells)]
    subjects = {subject for found in means.values() for subject in found}
    body = [
        [*line, *(cell(means[line, c], measures[cells[line, c]["measure"]], len(subjects)) for c in columns)]
        for line in lines
    ]
    head = [*table.heads, *columns]
    return "\n\n".join([f"## {table.title}", caption(table.text, shown, len(subjects)), grid(head, body)])


def published(title: str, targets: Iterable[str]) -> list[str]:
    """What others have printed of the methods that are not run here, as Markdown.

    Args:
        title: of the table that the figures belong to, or how it begins.
        targets: contrasts that it shows; figures of other contrasts are left out.
    """
    return [
        f"### {block['title']}\n\n{block['text']}\n\n{grid(block['head'], block['lines'])}"
        for block in json.loads(PUBLISHED.read_text(encoding="utf-8"))
        if title.startswith(block["after"]) and set(targets) <= set(block["contrasts"])
    ]


def caption(text: str, measures: Sequence[Measure], subjects: int) -> str:
    """What a reader must know of a table: subjects, what is averaged, and each measure with its range and region."""
    lines = [f"{counted(subjects).capitalize()}. {text} Mean ± standard deviation over subjects (divided by n - 1)"]
    lines[0] += "." if subjects > 1 else "; - : there is none of one subject."
    for convention in dict.fromkeys(measure.convention for measure in measures):
        of = [measure for measure in measures if measure.convention == convention]
        scale = CONVENTIONS.get(convention)
        lines += ["", f'Convention "{convention}": {scale}'] if scale else [""]
        lines += ["", *(f"- {label(m)}{f' ({m.unit})' if m.unit else ''}: {m.meaning}." for m in of)]
    return "\n".join(lines)


def by_subject(rows: Sequence[Row], where: Where) -> dict[str, float]:
    """Subject -> mean of a measure over its rows that are asked for, where there are any.

    A value that is None is left out: an infinite PSNR, read back from results.json.
    """
    wanted = dict(where)
    measure = wanted.pop("measure")
    values = defaultdict(list)
    for row in rows:
        if row.get(measure) is not None and all(row[key] == value for key, value in wanted.items()):
            values[row["subject"]].append(row[measure])
    return {subject: float(np.mean(numbers)) for subject, numbers in values.items()}


def cell(means: Mapping[str, float], measure: Measure, expected: int) -> str:
    """Mean and standard deviation over subjects, with the number of subjects where it is not the expected one."""
    if not means:
        return "-"
    values = np.array(list(means.values()))
    spread = "-"
    if len(values) > 1 and np.isfinite(values).all():
        spread = f"{values.std(ddof=1):.{measure.decimals}f}"
    fewer = f" (n = {len(values)})" if len(values) < expected else ""
    return f"{values.mean():.{measure.decimals}f} ± {spread}{fewer}"


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def label(measure: Measure) -> str:
    """A measure's name as a heading, with the direction in which it gets better: "SSIM lesion ↑"."""
    words = [WORDS.get(part, part.upper()) for part in measure.name.split("_")]
    return " ".join([*words, "↑" if measure.higher_is_better else "↓"])


def measures_in(rows: Sequence[Row]) -> list[str]:
    """The measures that occur in rows, those of `MEASURES` first, in its order."""
    found = dict.fromkeys(name for row in rows for name in row if name not in KEYS)
    return [*(name for name in MEASURES if name in found), *(name for name in found if name not in MEASURES)]


def counted(subjects: int) -> str:
    """The number of subjects in words."""
    return f"{subjects} subject{'' if subjects == 1 else 's'}"
