"""Time the optimisation steps of each training stage, and the waiting for data in between, on made-up subjects.

python -m scripts.benchmark_training
python -m scripts.benchmark_training --settings configs/paper.json device=cuda:0 num_workers=8 --stages diffusion
python -m scripts.benchmark_training --settings subjects_per_batch=1 slices_per_subject=1 train_window=192
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from bundle.data.output import as_json, write_text
from bundle.engines.stage import Stage
from bundle.errors import InputError, report_plainly
from scripts.benchmark import Timing, check_files, cpu_seconds, device_name, parse, write_subject

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train.json"
STAGES = {"autoencoder": "autoencoder", "disentanglement": "disentanglement", "diffusion": "train::trainer"}
WARM_UP = 2  # steps that do not count: the first ones fill caches
NOTES = """\
A sample is one slice window of a batch, with all its contrasts. Waiting: the share of the wall-clock time between
asking the data loader for a batch and having it; the rest is the step, with the averaging of weights and the logs. CPU:
seconds of all threads, without those of a loader's worker processes. What is done once per subject (read, resample,
crop, write to the cache) is in no step; it is told as the CPU seconds of preparing."""


@dataclass
class Stopwatch:
    """Time the steps of a trainer, then end its run.

    Attributes:
        count: steps that count; those of the warm-up come first.
        device: of the trainer, which may still compute while Python goes on.
        warm_up: steps that do not count.
        samples: slices of the steps that count.
        waits, steps: what each step that counts took before it had its batch, and then.
    """

    count: int
    device: torch.device
    warm_up: int = WARM_UP
    samples: int = 0
    waits: list[Timing] = field(default_factory=list)
    steps: list[Timing] = field(default_factory=list)

    def attach(self, trainer: Engine) -> None:
        """Follow the trainer; after its other handlers, so that the step includes them."""
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self.ask)
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, self.receive)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.finish)

    def ask(self) -> None:
        """The trainer turns to the data loader."""
        self.asked = self.now()

    def receive(self) -> None:
        """The trainer has its batch."""
        self.received = self.now()

    def finish(self, trainer: Engine) -> None:
        """The step is done."""
        finished = self.now()
        if self.warm_up:
            self.warm_up -= 1
            return
        self.waits.append(since(self.asked, self.received))
        self.steps.append(since(self.received, finished))
        self.samples += len(trainer.state.batch["image"])  # type: ignore[index]
        if len(self.steps) == self.count:
            trainer.terminate()

    def now(self) -> Timing:
        """The clocks, when the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Timing(time.perf_counter(), cpu_seconds())


def since(first: Timing, last: Timing) -> Timing:
    """What went by between two readings of the clocks."""
    return Timing(last.wall - first.wall, last.cpu - first.cpu)


class TrainingBenchmark:
    """One configuration of the training, on made-up subjects that have all contrasts and a lesion mask.

    Args:
        settings: files to merge after configs/train.json, and `key=value` for any of its ids.
        shape: voxels of the subjects' scans, 1 mm each.
        subjects: how many; each is visited as often as the steps need.
        steps: that count, per stage.
        folder: a place for the subjects and the results.
    """

    def __init__(self, settings: Sequence[str], shape: Sequence[int], subjects: int, steps: int, folder: Path) -> None:
        self.parser = ConfigParser()
        self.parser.read_config([str(CONFIG), *(item for item in settings if "=" not in item)])
        self.parser.update({"dataset_dir": str(folder / "scans"), "output_dir": str(folder / "out")})
        self.parser.update(dict(map(parse, (item for item in settings if "=" in item))))
        batch = self.parser["subjects_per_batch"]
        self.parser.update({"visits_per_epoch": -(-(steps + WARM_UP) * batch // subjects)})
        for number in range(subjects):
            write_subject(folder / "scans" / f"made_up_{number}", self.parser["contrasts"], shape, lesion=True)
        set_determinism(self.parser["seed"])
        self.steps, self.subjects = steps, subjects

    def prepare(self) -> float:
        """Fill the cache; seconds of CPU per subject."""
        dataset = self.parser.get_parsed_content("train::dataset")
        before = cpu_seconds()
        for number in range(self.subjects):
            dataset[number]
        return (cpu_seconds() - before) / self.subjects

    def time(self, name: str) -> Stopwatch:
        """Train a stage for some steps of its first epoch."""
        stage: Stage = self.parser.get_parsed_content(STAGES[name])
        stage.folder.mkdir(parents=True, exist_ok=True)
        stage.attach_handlers()
        watch = Stopwatch(self.steps, self.device)
        watch.attach(stage.trainer)
        stage.trainer.run()
        return watch

    @property
    def device(self) -> torch.device:
        """Where the training computes."""
        return torch.device(self.parser.get_parsed_content("device"))

    @property
    def dtype(self) -> str:
        """In which most of the networks compute."""
        return "bfloat16" if self.parser.get_parsed_content("amp") else "float32"


def speeds(watch: Stopwatch) -> dict[str, float]:
    """What the seconds of a stage's steps come to."""
    wait, step = (Timing(sum(t.wall for t in some), sum(t.cpu for t in some)) for some in (watch.waits, watch.steps))
    return {
        "samples_per_step": watch.samples / len(watch.steps),
        "samples_per_second": watch.samples / (wait.wall + step.wall),
        "waiting": wait.wall / (wait.wall + step.wall),
        "cpu_seconds_per_sample": (wait.cpu + step.cpu) / watch.samples,
        "cpu_seconds_of_data_per_sample": wait.cpu / watch.samples,
    }


def table(stages: Mapping[str, Mapping[str, float]]) -> str:
    """The stages as Markdown."""
    head = "| stage | samples a step | samples/s | waiting | CPU s a sample | of these for data |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name, found in stages.items():
        cells = f"{found['samples_per_step']:.0f} | {found['samples_per_second']:.2f} | {found['waiting']:.1%}"
        cpu = f"{found['cpu_seconds_per_sample']:.3f} | {found['cpu_seconds_of_data_per_sample']:.3f}"
        lines.append(f"| {name} | {cells} | {cpu} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file.

    Raises:
        InputError: no step is to be timed, there is no subject, or a file of settings is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told = "override files and key=value pairs, as in subjects_per_batch=4 num_workers=2 amp=False device=cpu"
    parser.add_argument("--settings", nargs="*", default=[], help=told)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--shape", nargs=3, type=int, default=(240, 240, 155), help="voxels of the made-up scans")
    parser.add_argument("--subjects", type=int, default=2, help="made-up subjects")
    parser.add_argument("--steps", type=int, default=20, help="optimisation steps that count, per stage")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    for name in ("steps", "subjects"):
        if getattr(options, name) < 1:
            raise InputError(f"{name} is {getattr(options, name)}", f"Use --{name} with a whole number of at least 1")
    check_files(options.settings)
    with tempfile.TemporaryDirectory() as folder:
        made = TrainingBenchmark(options.settings, options.shape, options.subjects, options.steps, Path(folder))
        prepared = made.prepare()
        watches = {name: made.time(name) for name in options.stages}
    content: dict[str, Any] = {
        "settings": options.settings,
        "shape": list(options.shape),
        "device": str(made.device),
        "device_name": device_name(made.device),
        "threads": torch.get_num_threads(),
        "dtype": made.dtype,
        "prepare_cpu_seconds": prepared,
        "stages": {name: speeds(watch) for name, watch in watches.items()},
    }
    print(
        f"{' '.join(options.settings) or 'defaults'}: {content['device']} ({content['device_name']}), "
        f"{content['threads']} threads, {content['dtype']}; preparing a subject: {prepared:.1f} CPU s\n"
    )
    print(table(content["stages"]))
    print(NOTES)
    if options.output is not None:
        write_text(options.output, as_json(content))


if __name__ == "__main__":
    report_plainly()
    main()
