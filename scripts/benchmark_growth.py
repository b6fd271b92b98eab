"""How the cost of inference grows with one setting: each value is measured in a process of its own.

python -m scripts.benchmark_growth num_steps 1 2 4 8 --settings mode=sample
python -m scripts.benchmark_growth contrasts "['t1','flair']" "['t1','t2','flair']" --settings shared_encoder=True
python -m scripts.benchmark_growth slices 20 40 80
python -m scripts.benchmark_growth shape 160,160,40 200,200,60 240,240,80
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any

from tqdm import tqdm

from bundle.data.output import as_json, write_text
from bundle.errors import InputError, report_plainly
from scripts.benchmark import parse

COLUMNS = ("whole", "whole CPU", "network", "network CPU", "GFLOP", "memory", "parameters")
NOTES = """\
whole: the subject from its files to its results; network: all its slices. Seconds are medians of wall-clock time; CPU:
seconds of all threads. GFLOP: operations of the network, as scripts.benchmark counts them. Per unit: network CPU by the
size, to that of the first value. Size: the value, the length of a list, or the voxels of a shape. GiB: the most that
the process held; on a GPU, what the GPU held. Exponent: slope of the straight line through the logarithms of a column
and of the size; 1 is linear, below 1 is better."""


def size(key: str, value: Any) -> float:
    """How much a value asks for.

    Raises:
        InputError: the value is neither a number above 0 nor a list.
    """
    if isinstance(value, list | tuple):
        return math.prod(value) if key == "shape" else len(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InputError(f"{key} is {value!r}, which has no size", "Vary it over numbers above 0, or over lists")
    return value


def words(key: str, text: str, settings: Sequence[str], shape: Sequence[int]) -> list[str]:
    """The words of the benchmark's command for one value."""
    value, further = parse(f"{key}={text}")[1], [f"{key}={text}"]
    if key in ("slices", "shape"):
        shape, further = (*shape[:2], value) if key == "slices" else value, []
    return ["--shape", *map(str, shape), "--settings", *settings, *further]


def measured(command: Sequence[str]) -> dict[str, Any]:
    """What the benchmark finds in a process of its own, which has not held more memory before.

    Raises:
        SystemExit: it failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        program = [sys.executable, "-W", "ignore", "-m", "scripts.benchmark", *command, "--output", str(file)]
        done = subprocess.run(program, capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(done.stderr)
            raise SystemExit(done.returncode)
        result: dict[str, Any] = json.loads(file.read_text())["results"][0]
    return result


def costs(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one value's row."""
    whole, network, memory = result["parts"]["whole"], result["parts"]["network"], result["memory_gib"]
    seconds = (whole["seconds"], whole["cpu_seconds"], network["seconds"], network["cpu_seconds"])
    held = memory.get("device", memory["process"])
    return dict(zip(COLUMNS, (*seconds, network["gflop"], held, result["parameters"]["all"])))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the size that the values grow with: least squares on logarithms."""
    slope, _ = linear_regression([math.log(n) for n in sizes], [math.log(v) for v in values])
    return slope


def table(key: str, rows: Sequence[Mapping[str, Any]], exponents: Mapping[str, float]) -> str:
    """The rows and the exponents as Markdown."""
    names = [key, *COLUMNS[:5], "per unit", "GiB", "M parameters"]
    lines = [line(names), "|" + "---|" * len(names)]
    first = rows[0]["network CPU"] / rows[0]["size"]
    for row in rows:
        seconds = [f"{row[name]:.2f}" for name in COLUMNS[:4]]
        unit = row["network CPU"] / row["size"] / first
        cells = [*seconds, f"{row['GFLOP']:.1f}", f"{unit:.2f}", f"{row['memory']:.2f}"]
        cells.append(f"{row['parameters'] / 1e6:.3f}")
        lines.append(line([row["value"], *cells]))
    found = [f"{exponents[name]:.2f}" for name in COLUMNS]
    return "\n".join([*lines, line(["exponent", *found[:5], "", *found[5:]])]) + "\n"


def parameter_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The parts of the network whose parameters are not the same for every value, as Markdown; or nothing."""
    found = {name: [row["parameters_of"].get(name, 0) for row in rows] for name in rows[0]["parameters_of"]}
    changing = {name: counts for name, counts in found.items() if len(set(counts)) > 1}
    if not changing:
        return ""
    head = line(["parameters of", *(row["value"] for row in rows)])
    body = [line([name, *(f"{n:,}" for n in counts)]) for name, counts in changing.items()]
    return "\n".join([head, "|" + "---|" * (len(rows) + 1), *body]) + "\n"


def line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each value, print the tables, write the JSON file.

    Raises:
        InputError: fewer than two sizes, or a value without one.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("key", help="an id of configs/inference.json; or slices or shape, of the made-up scans")
    parser.add_argument("values", nargs="+", help="as in Python: 8, \"['t1','flair']\"; a shape as 240,240,40")
    parser.add_argument("--settings", nargs="*", default=[], help="what is the same for all, as for scripts.benchmark")
    parser.add_argument("--shape", nargs=3, type=int, default=(240, 240, 40), help="voxels, where they do not vary")
    parser.add_argument("--repeats", type=int, default=1, help="rounds that count")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    key = options.key
    sizes = [size(key, parse(f"{key}={text}")[1]) for text in options.values]
    if len(set(sizes)) < 2:
        raise InputError(f"{key} has {len(set(sizes))} size", "Name values of at least two sizes")
    rows: list[dict[str, Any]] = []
    for text, n in zip(tqdm(options.values, desc=key, unit="value"), sizes):
        command = words(key, text, options.settings, options.shape)
        result = measured([*command, "--repeats", str(options.repeats), "--skip", "start"])
        rows.append({"value": text, "size": n, **costs(result), "parameters_of": result["parameters"], "all": result})
    exponents = {name: exponent(sizes, [row[name] for row in rows]) for name in COLUMNS}
    print(table(key, rows, exponents))
    print(parameter_table(rows))
    print(NOTES)
    if options.output is not None:
        write_text(options.output, as_json({"key": key, "exponents": exponents, "rows": rows}))


if __name__ == "__main__":
    report_plainly()
    main()
