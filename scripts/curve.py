"""How fast networks learn: quality against the CPU time of the training, on one thread.

    python -m scripts.curve --dataset_dir DATA --split_file configs/splits/development.json --output_dir CURVE \\
        --minutes 5 10 20 40 --run full --run unet configs/baselines/unet_network.json configs/baselines/unet.json

Each run trains one stage with train.json and its override files until the last of the given minutes. At each of them
the averaged weights are kept, and evaluated with evaluate.json and the same files: each contrast from all the others.
The learning rate follows the CPU time: it is warmed up in the first 5 % and falls to 0, as a cosine, at the last of
them. So a point in the middle of a run is not what a shorter run would reach. Preparing the scans and the evaluation do
not count. Writes curve.csv, curve.png and, per run, the weights and their evaluation; a complete run is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.bundle import ConfigParser

from bundle.data.output import as_json, write_text
from bundle.data.splits import load_split
from bundle.engines.stage import Stage, save_atomically
from bundle.errors import InputError, report_plainly

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
MEASURES = ("psnr", "correlation", "csf_error")
AXES = {"psnr": "PSNR (dB)", "correlation": "correlation", "csf_error": "|error| of deep CSF"}
WARM_UP = 0.05  # of the time, as of the steps in `Stage`
NEVER = 10**9


class Checkpoints:
    """Keeps the averaged weights of a stage at given CPU times, ends it after the last, and steers its learning rate.

    Args:
        stage: what is trained.
        minutes: ascending.
        folder: gets a file per checkpoint, see `weights_at`.
    """

    def __init__(self, stage: Stage, minutes: Sequence[float], folder: Path) -> None:
        self.stage, self.minutes, self.folder = stage, list(minutes), folder
        self.start, self.steps = 0.0, list[int]()

    def attach(self, trainer: Engine) -> None:
        """Start the clock and follow the trainer, after its other handlers; nothing but the CPU time ends it."""
        groups = self.stage.schedule.lr_lambdas
        self.stage.schedule.lr_lambdas = [lambda _: factor(self.elapsed() / self.minutes[-1])] * len(groups)
        trainer.state.max_epochs = NEVER
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.check)
        self.start = time.process_time()

    def elapsed(self) -> float:
        """CPU minutes of this process since the training began."""
        return (time.process_time() - self.start) / 60

    def check(self, trainer: Engine) -> None:
        """Keep the weights if it is time; what that takes does not count."""
        asked = time.process_time()
        due = [minutes for minutes in self.minutes[len(self.steps) :] if self.elapsed() >= minutes]
        for minutes in due:
            self.steps.append(trainer.state.iteration)
            self.stage.swap_ema()
            save_atomically(self.stage.model.state_dict(), weights_at(self.folder, minutes))
            self.stage.swap_ema()
        self.start += time.process_time() - asked
        if len(self.steps) == len(self.minutes):
            trainer.terminate()


def factor(share: float) -> float:
    """Learning rate, of its highest, after a share of the time: a linear warm-up, then a cosine down to 0."""
    if share < WARM_UP:
        return share / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min((share - WARM_UP) / (1 - WARM_UP), 1)))


def weights_at(folder: Path, minutes: float) -> Path:
    """The file of a checkpoint."""
    return folder / f"model_{minutes:g}_minutes.pt"


def read(base: str, files: Sequence[str], changes: Mapping[str, Any]) -> ConfigParser:
    """A config with override files and changes of single ids."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / base), *files])
    parser.update(dict(changes))
    return parser


def stage_of(parser: ConfigParser, stage: str | None) -> Stage:
    """The stage that is trained: the one named, or the first of the config's training that is not the autoencoder's."""
    steps = [step.removeprefix("$@").removesuffix(".run()") for step in parser["training"] if isinstance(step, str)]
    names = [name for name in steps if name == (stage or name)]
    if not names:
        raise InputError(f"there is no stage {stage!r} in the training", f"Use --stage with one of {', '.join(steps)}")
    chosen = next((name for name in names if stage or name != "autoencoder"), names[0])
    found: Stage = parser.get_parsed_content(chosen)
    return found


def train(name: str, files: Sequence[str], split: Path, options: argparse.Namespace) -> list[int]:
    """Train until the last checkpoint is there; steps at each.

    Raises:
        InputError: the run's folder holds a run with other options, or one that was interrupted.
    """
    folder = options.output_dir / name
    record, asked = folder / "run.json", {"files": list(files), "minutes": options.minutes, "part": options.part}
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        steps: list[int] = found.pop("steps")
        if found != asked:
            raise InputError(
                "holds a run with other options", "Give the run another name, or remove the folder", folder
            )
        return steps
    if folder.exists():
        raise InputError("holds no complete run", "Give the run another name, or remove the folder", folder)
    places = {"dataset_dir": str(options.dataset_dir), "split_file": str(split), "output_dir": str(folder)}
    caches = {f"{part}::dataset::cache_dir": str(options.output_dir / "cache") for part in ("train", "validate")}
    parser = read("train.json", files, {**places, **caches, "validation_interval": NEVER, "device": "cpu"})
    parser.get_parsed_content("initialize")
    stage = stage_of(parser, options.stage)
    for index in range(len(parser.get_parsed_content("subjects")[0])):
        _ = stage.train_loader.dataset[index]  # prepares and caches it
    checkpoints = Checkpoints(stage, options.minutes, folder)
    stage.trainer.add_event_handler(Events.STARTED, lambda trainer: checkpoints.attach(trainer))
    stage.run()
    write_text(record, as_json({**asked, "steps": checkpoints.steps}))
    return checkpoints.steps


def evaluate(files: Sequence[str], weights: Path, split: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of the evaluation of a checkpoint."""
    folder = weights.with_suffix("")
    places = {"dataset_dir": str(options.dataset_dir), "split_file": str(split), "output_dir": str(folder)}
    part = "test" if options.part == ["test"] else "validation"
    asked = {"split_part": part, "measures": list(MEASURES), "protocol": ["rest"]}
    changes = {**places, **asked, "weights": str(weights), "device": "cpu"}
    results = folder / "results.json"
    if not results.is_file():
        read("evaluate.json", files, changes).get_parsed_content("evaluator").run()
    rows: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))["results"]
    return [row for row in rows if row["method"] == "network"]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Target, and "mean" of all targets -> mean over subjects of each measure; of `csf_error` without its sign."""
    result: dict[str, dict[str, float]] = {}
    for target in dict.fromkeys(row["target"] for row in rows):
        mine = [row for row in rows if row["target"] == target]
        values = {name: [row[name] for row in mine if row.get(name) is not None] for name in MEASURES}
        values["csf_error"] = [abs(value) for value in values["csf_error"]]
        result[target] = {name: float(np.mean(found)) if found else math.nan for name, found in values.items()}
    targets = list(result.values())
    result["mean"] = {name: nanmean([target[name] for target in targets]) for name in MEASURES}
    return result


def nanmean(values: Sequence[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is left."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def split_for(options: argparse.Namespace) -> Path:
    """The split file to use; one with the subjects that are held out in its validation part, if any."""
    if options.part == ["test"]:
        return Path(options.split_file)
    split = load_split(options.split_file)
    unknown = [name for name in options.part if name not in split["training"]]
    if unknown:
        fault = f"{unknown[0]} is not in the split's training part"
        raise InputError(fault, "Use --part test, or names of training subjects", options.split_file)
    split["training"] = [name for name in split["training"] if name not in options.part]
    path: Path = options.output_dir / "split.json"
    write_text(path, as_json({**split, "validation": options.part}))
    return path


def draw(points: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel per measure: the mean of all targets against CPU minutes, a line per run."""
    figure = Figure(figsize=(4.2 * len(AXES), 3.6), layout="constrained")
    for axes, (measure, label) in zip(figure.subplots(1, len(AXES)), AXES.items(), strict=True):
        for run in dict.fromkeys(point["run"] for point in points):
            mine = [point for point in points if point["run"] == run and point["target"] == "mean"]
            axes.plot([p["minutes"] for p in mine], [p[measure] for p in mine], marker="o", label=run)
        axes.set(xlabel="CPU minutes", ylabel=label)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of subjects")
    parser.add_argument("--split_file", type=Path, required=True, help="which of them train and test")
    parser.add_argument("--output_dir", type=Path, required=True, help="curve.csv, curve.png, and a folder per run")
    parser.add_argument("--minutes", type=float, nargs="+", required=True, help="of CPU time: when weights are kept")
    parser.add_argument(
        "--run", nargs="+", action="append", required=True, metavar="WORD", help="a name, then its override files"
    )
    parser.add_argument("--stage", help="which stage trains (default: the first one behind the autoencoder)")
    parser.add_argument(
        "--part", nargs="+", default=["test"], metavar="NAME", help="test, or training subjects that are held out"
    )
    options = parser.parse_args(arguments)
    options.minutes = sorted(set(options.minutes))
    if options.minutes[0] <= 0:
        raise InputError(f"--minutes {options.minutes[0]:g} is no time", "Give minutes above 0")
    names = [name for name, *_ in options.run]
    wrong = [name for name in names if Path(name).name != name or names.count(name) > 1]
    if wrong:
        raise InputError(f"--run {wrong[0]} is no name of its own for a folder", "Begin each --run with another name")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate one run after the other; the table and the plot are written anew after each checkpoint."""
    report_plainly()
    options = parse(arguments)
    torch.set_num_threads(1)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    split = split_for(options)
    points: list[dict[str, Any]] = []
    for name, *files in options.run:
        for minutes, steps in zip(options.minutes, train(name, files, split, options), strict=True):
            weights = weights_at(options.output_dir / name, minutes)
            found = summary(evaluate(files, weights, split, options))
            for target, values in found.items():
                points.append({"run": name, "minutes": minutes, "steps": steps, "target": target, **values})
            with open(options.output_dir / "curve.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(points[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(points)
            draw(points).savefig(options.output_dir / "curve.png", dpi=120)
            shown = ", ".join(f"{AXES[measure]} {found['mean'][measure]:.3f}" for measure in MEASURES)
            print(f"{name}: {minutes:g} min, {steps} steps: {shown}", flush=True)


if __name__ == "__main__":
    main()
