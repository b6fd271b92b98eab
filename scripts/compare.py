"""Compare two evaluations of the same subjects: mean difference, confidence interval, Wilcoxon signed-rank test."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.data.output import write_text
from bundle.errors import InputError, report_plainly
from bundle.metrics.compare import BOOTSTRAP_FROM, Comparison, Pair, changed_scans, compare, pair
from bundle.metrics.conventions import CONVENTIONS
from bundle.metrics.measures import Measure, select

NOTES = f"""\
Each subject counts once: first the mean over the given contrasts, in the line "all" then over the targets. The 95 %
confidence intervals of the mean difference are over subjects, by Student's t and, from {BOOTSTRAP_FROM} subjects on, by
bootstrap (BCa, 9999 resamples). Wilcoxon's signed-rank test is two-sided; p is not corrected for the number of lines. A
pair is one target from the same given contrasts of one subject."""
WARNING = "**Warning**: A and B may have read different scans (their checksums differ or are not recorded):"
HEAD = ("target", "subjects", "A", "B", "B - A", "95 % (t)", "95 % (bootstrap)", "Wilcoxon p", "B better in")


def read_results(path: Path) -> dict[str, Any]:
    """What an evaluation wrote.

    Raises:
        InputError: the file is missing, or not what an evaluation writes.
    """
    remedy = "Give a results.json that `evaluation` wrote"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", remedy, path) from error
    except ValueError as error:
        raise InputError("is not JSON", remedy, path) from error
    if not isinstance(results, dict) or results.get("convention") not in CONVENTIONS:
        raise InputError(f"names none of the conventions {', '.join(CONVENTIONS)}", remedy, path)
    rows, keys = results.get("results"), {"subject", "given", "target", "method"}
    if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
        raise InputError("holds no rows of results", remedy, path)
    return results


def report(path_a: Path, path_b: Path, measures: Sequence[str]) -> str:
    """The comparison as Markdown.

    Raises:
        InputError: the files cannot be compared.
    """
    a, b = read_results(path_a), read_results(path_b)
    convention = a["convention"]
    if path_a.read_bytes() == path_b.read_bytes():
        raise InputError(f"is the same as {path_a}", "Give the results of two evaluations", path_b)
    if convention != b["convention"]:
        fault = f"its convention is '{b['convention']}', but that of {path_a} is '{convention}'"
        raise InputError(fault, "Evaluate both networks with the same --convention", path_b)
    sections, subjects = [], dict[str, None]()
    for measure in select(measures, convention):
        pairs, alone = pair(a["results"], b["results"], measure.name)
        if not pairs:
            fault = f"has no row of method 'network' with {measure.name} in common with {path_a}"
            raise InputError(fault, "Evaluate both networks on the same subjects, with the same measures", path_b)
        sections.append(section(measure, pairs, alone))
        subjects.update(dict.fromkeys(each.subject for each in pairs))
    changed = changed_scans(a.get("inputs_sha256", {}), b.get("inputs_sha256", {}), subjects)
    parts = [
        f"# B against A: {len(subjects)} subject{'' if len(subjects) == 1 else 's'}",
        f"- A: {told(path_a, a)}\n- B: {told(path_b, b)}",
        *([f"{WARNING} {', '.join(changed)}."] if changed else []),
        *sections,
        NOTES,
    ]
    return "\n\n".join(parts) + "\n"


def section(measure: Measure, pairs: Sequence[Pair], alone: int) -> str:
    """The table of one measure: a line per target, and one of all where there are several."""
    chosen = {
        target: [each for each in pairs if each.target == target]
        for target in dict.fromkeys(each.target for each in pairs)
    }
    if len(chosen) > 1:
        chosen["all"] = list(pairs)
    found = {target: compare(part, measure.higher_is_better) for target, part in chosen.items()}
    caption = f"Convention '{measure.convention}': {CONVENTIONS[measure.convention]}"
    lines = [f"## {measure.name}: {measure.meaning}", "", caption, "", as_line(HEAD), "|---" * len(HEAD) + "|"]
    lines += [as_line(cells(target, each, measure)) for target, each in found.items()]
    if alone:
        lines += ["", f"Left out: {alone} row{'' if alone == 1 else 's'} of one file without a partner in the other."]
    return "\n".join(lines)


def told(path: Path, results: dict[str, Any]) -> str:
    """An evaluation in one line."""
    commit, changes = str(results.get("commit") or "unknown").partition("+")[::2]
    weights = str(results.get("weights_sha256") or "unknown")
    change = f" with {changes}" if changes else ""
    return f"`{path}`: {results.get('network', 'unknown')}, weights {weights[:12]}, commit {commit[:12]}{change}"


def cells(target: str, found: Comparison, measure: Measure) -> list[str]:
    """The figures of one target, in the order of `HEAD`."""
    figure = f".{measure.decimals}f"

    def interval(limits: tuple[float, float] | None) -> str:
        return "-" if limits is None else f"{limits[0]:+{figure}} to {limits[1]:+{figure}}"

    if found.p is not None:
        p = f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001"
    elif found.differing:
        p = f"- (n = {found.differing}: p is at least {2 / 2**found.differing:.2g})"
    else:
        p = "- (no subject differs)"
    return [
        target,
        str(found.subjects),
        f"{found.mean_a:{figure}}",
        f"{found.mean_b:{figure}}",
        f"{found.difference:+{figure}}",
        interval(found.interval),
        interval(found.bootstrap),
        p,
        f"{found.subjects_won} of {found.subjects} subjects, {found.pairs_won} of {found.pairs} pairs",
    ]


def as_line(row: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(row)} |"


def main(arguments: list[str] | None = None) -> None:
    """Print the comparison, and write it where asked."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path, metavar="A.json", help="results.json of the one evaluation")
    parser.add_argument("b", type=Path, metavar="B.json", help="results.json of the other; differences are B - A")
    parser.add_argument("--measures", nargs="+", default=["psnr", "ssim"], metavar="MEASURE")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the tables here (Markdown)")
    options = parser.parse_args(arguments)
    text = report(options.a, options.b, options.measures)
    print(text, end="")
    if options.output:
        try:
            write_text(options.output, text)
        except OSError as error:
            fault = f"cannot be written ({error.strerror})"
            raise InputError(fault, "Give --output a file in a folder that exists", options.output) from error


if __name__ == "__main__":
    main()
