"""Results of an evaluation as a table to read and a table to compute with."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from numpy import mean

COLUMNS = ("subject", "protocol", "given", "target", "method", "source", "psnr", "ssim")


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per row, columns `COLUMNS`; the names in "given" are divided by blanks."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "given": " ".join(row["given"])} for row in rows)
    return table.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]], protocols: Mapping[str, str], caption: str) -> str:
    """PSNR / SSIM per target, protocol and method: mean over a subject's rows, then over subjects.

    Args:
        rows: with the keys `COLUMNS`.
        protocols: the protocols in the order of the tables, with what each means.
        caption: what the figures are, printed above the tables.
    """
    subjects, methods, targets = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("subject", "method", "target")
    )
    lines = [f"# Evaluation of {counted(len(subjects))}", "", caption]
    for protocol, meaning in protocols.items():
        lines += ["", f"## {protocol}: {meaning}", ""]
        lines += [f"| target | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
        for target in [*targets, "all"]:
            chosen = [row for row in rows if row["protocol"] == protocol and target in (row["target"], "all")]
            cells = [cell([row for row in chosen if row["method"] == method], len(subjects)) for method in methods]
            lines.append(f"| {target} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(rows: Sequence[Mapping[str, Any]], expected: int) -> str:
    """Means over subjects as text, with the number of subjects where it is not the expected one."""
    by_subject = defaultdict(list)
    for row in rows:
        by_subject[row["subject"]].append((row["psnr"], row["ssim"]))
    if not by_subject:
        return "-"
    psnr, ssim = mean([mean(values, axis=0) for values in by_subject.values()], axis=0)
    fewer = f" ({counted(len(by_subject))})" if len(by_subject) < expected else ""
    return f"{psnr:.2f} dB / {ssim:.3f}{fewer}"


def counted(subjects: int) -> str:
    """The number of subjects in words."""
    return f"{subjects} subject{'' if subjects == 1 else 's'}"
