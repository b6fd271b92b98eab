"""Train and evaluate a list of networks on one split with one budget, and print their table: ablations or baselines.

    python -m scripts.study --list ablations --dataset_dir SUBJECTS --split_file SPLIT --output_dir STUDY

What is done stays done: the same command goes on where it was interrupted, and repeats what failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from bundle.command_line import top_level
from bundle.data.output import as_json, write_text
from bundle.engines.evaluation import SEGMENTED
from bundle.errors import InputError, report_plainly
from bundle.metrics.measures import select
from bundle.metrics.tables import by_subject, caption, cell, counted, grid, label, published

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STAGES = {"autoencoder": "autoencoder", "disentanglement": "disentanglement", "diffusion": "train::trainer"}
STAGES_OF_MODE = {"mean": ["disentanglement"], "sample": list(STAGES)}  # those that a mode needs
EXPORT = {
    "_target_": "bundle.engines.stage.export",
    "model": "@network_def",
    "path": "$@output_dir + '/model.pt'",
}
FLOORS = {"copy": "histogram-matched copy", "copy_oracle": "copy with the histogram of the truth (oracle)"}
REAL = "Dice of the real contrasts"
NOT_RUN = ("Table 1", "ALDM's protocol")  # the tables whose `published` rows are of methods without code here
# ids that the study sets by itself
OWN = (
    *("config_file", "weights", "training", "protocol", "reference_dir", "reference_part"),
    *("row", "row_mode", "row_training"),
)
AGAIN = "Mend this, then run the same command again: what is done stays"


@dataclass(frozen=True)
class Row:
    """A network of the study.

    Attributes:
        name: of its folder.
        title: in the table.
        training, evaluation: override files, merged after train.json and evaluate.json.
        variant: whether it is MSG-LDM in some form, of which stages and mode can be chosen.
        mode: the only mode in which it differs from the full model; None: both.
    """

    name: str
    title: str
    training: tuple[Path, ...] = ()
    evaluation: tuple[Path, ...] = ()
    variant: bool = True
    mode: str | None = None


def ablations() -> list[Row]:
    """The full model, and one row per file of configs/ablations."""
    rows = [Row("full", "full model")]
    for file in sorted((CONFIGS / "ablations").glob("*.json")):
        config = read(file)
        rows.append(Row(file.stem, config["row"], (file,), (file,), mode=config.get("row_mode")))
    return rows


def baselines() -> list[Row]:
    """The full model, and one row per network of configs/baselines.

    NAME_network.json is its network. It is trained as NAME.json says; where that file is missing, or has no `training`
    of its own, as gan.json says, or the file that `row_training` names in NAME_network.json, and then NAME.json.
    """
    rows = [Row("full", "MSG-LDM")]
    folder = CONFIGS / "baselines"
    for network in sorted(folder.glob("*_network.json")):
        name = network.stem.removesuffix("_network")
        own = folder / f"{name}.json"
        config, files = read(network), [own] if own.is_file() else []
        if not files or "training" not in read(own):
            files.insert(0, folder / f"{config.get('row_training', 'gan')}.json")
        rows.append(Row(name, config.get("row", name), (network, *files), (network,), variant=False))
    return rows


LISTS = {"ablations": ablations, "baselines": baselines}


def commands(row: Row, options: argparse.Namespace) -> dict[str, list[str]]:
    """What is run for a row, in this order: the words behind `monai.bundle run`."""
    folder = options.output_dir / row.name
    common = ["--dataset_dir", str(options.dataset_dir), "--split_file", str(options.split_file)]
    training = [*common, "--output_dir", str(folder)]
    for part in ("train", "validate"):  # one for all rows: the file names tell what was prepared, and how
        training += [f"--{part}::dataset::cache_dir", str(options.output_dir / "cache")]
    evaluation = [*common, "--output_dir", str(folder / "evaluation"), "--weights", str(folder / "model.pt")]
    evaluation += ["--protocol", "['rest']"]
    evaluation += ["--reference_dir", str(options.dataset_dir), "--reference_part", "training"]
    if options.epochs is not None:
        training += ["--disentanglement_epochs", str(options.epochs)]
    if options.initial_weights is not None:
        training += ["--initial_weights", str(options.initial_weights)]
    if row.variant:
        training += ["--training", str([*(f"$@{STAGES[name]}.run()" for name in options.stages), EXPORT])]
        evaluation += ["--mode", options.mode]
    words = {"training": training, "evaluation": evaluation}
    return {
        step: ["--config_file", str([str(file) for file in files]), *words[step], *known_to(files, options.further)]
        for step, files in configs(row, options).items()
    }


def configs(row: Row, options: argparse.Namespace) -> dict[str, list[Path]]:
    """The config files of a row's training and of its evaluation, in the order in which they are merged."""
    return {
        "training": [CONFIGS / "train.json", *options.override_file, *row.training],
        "evaluation": [CONFIGS / "evaluate.json", *options.override_file, *row.evaluation],
    }


def ids(files: Iterable[Path]) -> set[str]:
    """The ids at the top of config files."""
    return {top_level(key) for file in files for key in read(file)}


def known_to(files: Iterable[Path], further: Sequence[str]) -> list[str]:
    """Those of the further options, each with its value, whose id the configs have."""
    known, kept, wanted = ids(files), [], False
    for word in further:
        if word.startswith("--"):
            wanted = id_of(word) in known
        kept += [word] * wanted
    return kept


def id_of(option: str) -> str:
    """The id at the top of the config that an option changes: "train" of "--train::dataset::cache_dir=C"."""
    return top_level(option.removeprefix("--").partition("=")[0])


def complete(row: Row, options: argparse.Namespace) -> None:
    """Do what is not done yet of a row.

    Raises:
        InputError: the row's folder is another command's, or a step failed.
    """
    folder = options.output_dir / row.name
    record = folder / "study.json"
    wanted = commands(row, options)
    found: dict[str, Any] = read(record) if record.is_file() else {"commands": wanted, "done": []}
    if found["commands"] != wanted:
        raise InputError("is of another command", "Give another --output_dir, or remove this folder", folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(record, as_json(found))
    for step, words in wanted.items():
        if step in found["done"]:
            continue
        print(f"{row.name}: {step}, told in {folder / step}.log", flush=True)
        run([step, *words], folder / f"{step}.log")
        found["done"].append(step)
        write_text(record, as_json(found))


def run(words: Sequence[str], log: Path) -> None:
    """Run a command of the bundle, its output behind what the log holds; InputError with its last line if it fails."""
    with open(log, "a", encoding="utf-8") as file:
        command = [sys.executable, "-m", "monai.bundle", "run", *words]
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise InputError(f"{words[0]} ended with status {status} ({last.rstrip('.')})", AGAIN, log)


def table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Markdown: PSNR, SSIM and Dice of the target from all the other contrasts, then of all targets alike."""
    reports = {row: report for row in rows if (report := report_of(row, options)) is not None}
    if not reports:
        return f"# {options.list.capitalize()}: nothing is evaluated yet\n"
    first = next(iter(reports.values()))
    found = [result for report in reports.values() for result in report["results"]]
    subjects = len({result["subject"] for result in found})
    measures = {measure.name: measure for measure in select(["psnr", "ssim"], first["convention"])}
    if any("dice" in result for result in found):
        measures["dice"] = SEGMENTED["dice"]
    groups: dict[str, dict[str, str]] = {options.target.upper(): {"target": options.target}, "all": {}}
    columns = {
        f"{group} {label(measure)}": {"measure": name, **where}
        for (group, where), (name, measure) in product(groups.items(), measures.items())
    }
    if "dice" in measures:
        columns[REAL] = {"measure": "dice", "method": "real"}

    def line(title: str, results: Sequence[Mapping[str, Any]], method: str) -> list[str]:
        wanted = [{"method": method, **where} for where in columns.values()]
        return [title, *(cell(by_subject(results, where), measures[where["measure"]], subjects) for where in wanted)]

    lines = []
    for row in rows:
        if row in reports:
            steps = str(steps_of(options.output_dir / row.name))
            lines.append([*line(row.title, reports[row]["results"], "network"), steps, short(reports[row]["commit"])])
        else:
            lines.append([row.title, *["-"] * (len(columns) + 2)])
    methods = {result["method"] for result in first["results"]}
    lines += [[*line(FLOORS[name], first["results"], name), "-", "-"] for name in FLOORS if name in methods]
    text = (
        f"{options.target.upper()} (the paper's Table 3) and the mean of all targets, each from all the other "
        f"contrasts of a subject. Mode {options.mode}. Steps: of the optimiser, in all stages. -: there is none."
    )
    parts = [
        f"# {options.list.capitalize()}: {counted(subjects)}",
        caption(text, list(measures.values()), subjects),
        grid(["network", *columns, "steps", "commit"], lines),
    ]
    if options.list == "baselines":
        targets = {result["target"] for result in found}
        parts += [block for title in NOT_RUN for block in published(title, targets)]
    return "\n\n".join(parts) + "\n"


def report_of(row: Row, options: argparse.Namespace) -> dict[str, Any] | None:
    """What the evaluation of a row wrote; None where it is not done, or was another command's."""
    folder = options.output_dir / row.name
    record = folder / "study.json"
    if not record.is_file():
        return None
    found = read(record)
    done = "evaluation" in found["done"] and found["commands"] == commands(row, options)
    return read(folder / "evaluation" / "results.json") if done else None


def steps_of(folder: Path) -> int:
    """Steps of the optimiser in all stages of a training."""
    states = (torch.load(file, map_location="cpu", weights_only=True, mmap=True) for file in folder.glob("*/last.pt"))
    return sum(int(state["trainer"]["iteration"]) for state in states)


def short(commit: str | None) -> str:
    """The first letters of a commit's hash, with "+" where there were changes."""
    number, changes = (commit or "-").partition("+")[::2]
    return number[:9] + ("+" if changes else "")


def read(path: Path) -> dict[str, Any]:
    """A JSON file; InputError if it is damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("cannot be read as JSON", "Remove it, and what was made with it", path) from error
    return content


def chosen(options: argparse.Namespace) -> list[Row]:
    """The rows that are asked for; those that the mode leaves as they are are told and left out.

    Raises:
        InputError: a name or an override that nobody knows.
    """
    rows = {row.name: row for row in LISTS[options.list]()}
    for name in options.names or ():
        if name not in rows:
            raise InputError(
                f"there is no row '{name}' in {options.list}", f"Use --names with some of {', '.join(rows)}"
            )
    asked = [row for row in rows.values() if not options.names or row.name in options.names]
    known = ids({file for row in asked for files in configs(row, options).values() for file in files}) - set(OWN)
    for word in options.further:
        key = id_of(word)
        if word.startswith("--") and key not in known:
            fault = f"option --{key} is " + ("set by the study" if key in OWN else "unknown to the configs")
            raise InputError(fault, "See --help, and the ids of configs/train.json and configs/evaluate.json")
    for row in asked:
        if row.mode not in (None, options.mode):
            print(f"{row.name}: left out, it differs from the full model with --mode {row.mode} only")
    return [row for row in asked if row.mode in (None, options.mode)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; what is none of them is kept as `further`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Further options are overrides, given to those configs that know them: --num_workers 2",
    )
    parser.add_argument("--list", choices=list(LISTS), default="ablations")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="only these rows (default: all)")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of subjects")
    parser.add_argument("--split_file", type=Path, required=True, help="which of them train, validate and test")
    parser.add_argument("--output_dir", type=Path, required=True, help="a folder per row, and table.md")
    parser.add_argument("--epochs", type=int, help="of the main stage of every row (disentanglement_epochs)")
    parser.add_argument("--initial_weights", type=Path, help="start each training from these; they must fit the row")
    parser.add_argument("--mode", choices=list(STAGES_OF_MODE), default="mean", help="of MSG-LDM's rows")
    parser.add_argument(
        "--stages", nargs="+", choices=list(STAGES), help="of MSG-LDM's rows (default: those that the mode needs)"
    )
    parser.add_argument("--target", default="flair", help="the contrast of the first columns (default: flair)")
    parser.add_argument(
        "--override_file", type=Path, action="append", default=[], help="merged after train.json and evaluate.json"
    )
    options, further = parser.parse_known_args(arguments)
    options.further = further
    options.stages = options.stages or STAGES_OF_MODE[options.mode]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Complete the rows and print the table after each; the exit status is 1 if one failed."""
    report_plainly()
    options = parse(arguments)
    rows = chosen(options)
    failed = 0
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for row in rows:
        try:
            complete(row, options)
        except InputError as fault:
            failed += 1
            print(f"{row.name} failed: {fault}", file=sys.stderr, flush=True)
        shown = [row for row in LISTS[options.list]() if row in rows or report_of(row, options)]
        write_text(options.output_dir / "table.md", table(shown, options))
    print((options.output_dir / "table.md").read_text(encoding="utf-8"))
    if failed:
        print(f"{failed} of {len(rows)} rows failed", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
