"""The engine of inference: subject by subject, scans in, missing contrasts out."""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import Dataset, MetaTensor
from monai.engines import Evaluator
from monai.inferers import Inferer
from monai.transforms import Compose, Invertd
from torch import Tensor, nn
from tqdm import tqdm

from bundle import __version__
from bundle.data.ahead import ReadAhead
from bundle.data.checks import load_nifti
from bundle.data.output import as_json, clear_leftover, is_done, prepare_output, staged, told, volume_file, write_text
from bundle.data.qc import Sketch, write_qc
from bundle.data.scan_file import slabs
from bundle.engines import ranks
from bundle.engines.gates import GateMaps
from bundle.engines.options import SynthesisOptions, check_whole, flag
from bundle.errors import InputError, input_error_in
from bundle.inferers.views import takes_a_start
from bundle.networks.weights import sha256
from bundle.transforms.grid import slab_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

COLUMNS = ("subject", "status", "made", "seconds", "reason", "unused")


class SynthesisEvaluator(Evaluator):
    """Go through a data set subject by subject and write what is missing.

    A subject that cannot be processed is recorded as failed, with one line that says why, and the others go on. A
    subject whose results are there, made from the same files with the same weights and options, is skipped.

    Args:
        device: where the network computes.
        dataset: items of `find_subjects`, with the preprocessing as its transform.
        network: maps slices ``(B, 2C, H, W)`` to ``(B, C, H, W)``; has the attributes mode, num_steps, start_level,
            seed and targets.
        inferer: applies it to a volume.
        postprocessing: brings "pred", "uncertainty" and "brain" back to the grid of the reference scan.
        options: what is made, and how.
        checksum: SHA-256 of the network's weights.
        dataset_dir, output_dir: folders of scans and of results.
        overwrite: process subjects again that are done.
        val_handlers: further ignite handlers; the record of a subject is ``engine.state.output``.
        gate_maps: also write how far MMSF opens for each given contrast, see `GateMaps`.
        read_ahead: how many of the next subjects are prepared meanwhile, each by a process of its own, see `ReadAhead`.

    Raises:
        InputError: gate maps of a network that has no gates, samples from a mean of views of one that starts none, or
            subjects to read ahead on a system that cannot.
    """

    def __init__(
        self,
        device: torch.device | str,
        dataset: Dataset,
        network: nn.Module,
        inferer: Inferer,
        postprocessing: Compose,
        options: SynthesisOptions,
        checksum: str,
        dataset_dir: str | Path,
        output_dir: str | Path,
        overwrite: bool | str = False,
        val_handlers: Sequence[Any] | None = None,
        gate_maps: bool | str = False,
        read_ahead: int = 0,
    ) -> None:
        ranks.join()
        check_whole("read_ahead", read_ahead, 0)
        self.numbers = ranks.share_numbers(len(dataset))
        super().__init__(device=device, val_data_loader=self.numbers, val_handlers=val_handlers, decollate=False)
        self.logger.setLevel(logging.CRITICAL)  # ignite's own lines about its run: failures and Ctrl-C are told plainly
        self.dataset, self.network, self.inferer, self.postprocessing = dataset, network, inferer, postprocessing
        self.prepared = ReadAhead(dataset, read_ahead)
        # what comes before is done once, on the network's grid
        self.way_back = next((n for n, step in enumerate(postprocessing.transforms) if isinstance(step, Invertd)), 0)
        self.options, self.checksum = options, checksum
        if options.samples and options.views and not takes_a_start(network):
            fault = f"{options.views} is true, but {type(network).__name__} starts no sample from a mean of views"
            raise InputError(fault, f"Leave --{options.views} out, or use --mode mean")
        self.dataset_dir, self.output_dir = Path(str(dataset_dir)), Path(str(output_dir))
        self.overwrite = flag("overwrite", overwrite)
        self.gate_maps = GateMaps(network) if flag("gate_maps", gate_maps) else None
        self.records: list[dict[str, Any]] = []
        self.add_event_handler(Events.EPOCH_COMPLETED, self.gather_records)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Process all subjects, then write summary.json and summary.csv, also where the run is interrupted.

        Where torchrun started several processes they share the subjects, and rank 0 writes the summary of them all; one
        that is interrupted does not wait for the others.
        """
        if ranks.is_first():
            prepare_output(self.output_dir, self.dataset_dir)
        idist.barrier()
        self.records = []
        try:
            with (
                tqdm(total=len(self.dataset), desc="subjects", unit="subject", disable=None) as self.bar,
                closing(self.prepared.follow(self.numbers, self.is_open)) as self.data_loader,
            ):
                super().run(global_epoch)
        finally:
            if ranks.is_first():
                self.write_summary()
        idist.barrier()  # torchrun ends all processes when one ends with a failure

    def is_open(self, index: int) -> bool:
        """Whether a subject is to be made, as far as a look tells: whether its results are there."""
        item = self.dataset.data[index]
        try:
            there = (self.output_dir / item["subject"] / f"{item['subject']}.json").exists()
            return "fault" not in item and bool(self.options.plan(item)[1]) and (self.overwrite or not there)
        except InputError:  # told when its turn comes
            return False

    def gather_records(self) -> None:
        """Give each process the records of all, in the order of the subjects."""
        order = {item["subject"]: number for number, item in enumerate(self.dataset.data)}
        self.records = sorted(ranks.gather(self.records), key=lambda record: order[record["subject"]])

    def exit_on_failure(self) -> None:
        """End the program with status 1 if a subject failed."""
        failed = sum(record["status"] == "failed" for record in self.records)
        if failed and not ranks.is_first():
            raise SystemExit(1)
        if failed:
            where = self.output_dir / "summary.csv"
            print(f"{failed} of {len(self.records)} subjects failed, see {where}", file=sys.stderr)
            raise SystemExit(1)

    def _iteration(self, engine: Engine, index: int) -> dict[str, Any]:  # type: ignore[override]
        """Process one subject; its record is {subject, status, made, seconds, reason, warnings, unused}."""
        item = self.dataset.data[index]
        start = time.monotonic()
        record = {"subject": item["subject"], "status": "failed", "made": [], "seconds": 0.0, "reason": ""}
        record["warnings"], record["unused"] = item.get("warnings", []), unused_lines(item)
        self.bar.set_postfix_str(item["subject"])
        try:
            record |= self.process(index, item)
        except Exception as error:  # one bad subject never stops the others
            record["reason"] = self.reason(error)
        record["seconds"] = round(time.monotonic() - start, 2)
        self.records.append(record)
        self.report(record)
        return record

    def process(self, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is to be done for one subject, and say what that was: a part of its record."""
        if "fault" in item:
            return {"reason": item["fault"]}
        given, made = self.options.plan(item)
        if not made:
            return {"status": "nothing missing"}
        folder = self.output_dir / item["subject"]
        claim = self.claim(item, given, made)
        if not self.overwrite and is_done(folder, folder / f"{folder.name}.json", claim):
            clear_leftover(folder)  # killed after its last file had moved
            return {"status": "skipped", "made": made, "reason": "done by an earlier run"}
        warnings = self.make(index, folder, claim)
        return {"status": "done", "made": made, "warnings": warnings}

    def make(self, index: int, folder: Path, claim: Mapping[str, Any]) -> list[str]:
        """Synthesise a subject's contrasts and write its folder; what the user should be told about them."""
        clock = Clock()
        item, made = self.dataset.data[index], claim["targets"]
        data = self.prepared[index]
        clock.lap("preprocessing")
        pred, uncertainty = self.synthesise(data["image"], made)
        if self.gate_maps is not None:
            data["gates"] = MetaTensor(self.gates(data["image"], self.gate_maps))
        clock.lap("synthesis")
        data["pred"] = MetaTensor(pred)
        if uncertainty is not None:
            data["uncertainty"] = MetaTensor(uncertainty)
        data, reference = self.finished(data, made), item[data["reference"]]
        warnings = [*data["warnings"], *self.cautions(made)]
        outdated = [f"{folder.name}_{name}_uncertainty.nii.gz" for name in made]
        outdated += [f"{folder.name}_{name}_gate.nii.gz" for name in self.options.contrasts]
        with staged(folder, outdated) as aside:
            parts = clock.lapped(self.brought_back(data, reference), "postprocessing", "writing")
            files = self.write_images(aside, parts, data, reference, made)
            clock.lap("writing")
            report = {
                "subject": folder.name,
                "inputs": {key: item[key] for key in claim["inputs_sha256"]},
                **claim,
                "reference": data["reference"],
                "input_intensities": data["intensity"],
                "files": files,
                "seconds": {name: round(seconds, 2) for name, seconds in clock.laps.items()},
                "device": str(self.state.device),
                "warnings": warnings,
                "unused": unused_lines(item),
            }
            (aside / f"{folder.name}.json").write_text(as_json(report), encoding="utf-8")
        return warnings

    def claim(self, item: Mapping[str, Any], given: Sequence[str], made: Sequence[str]) -> dict[str, Any]:
        """What a subject's results follow from: an earlier run's are kept where all of it is the same."""
        return {
            "bundle_version": __version__,
            "inputs_sha256": {key: sha256(item[key]) for key in [*given, *self.options.further_inputs] if key in item},
            "targets": list(made),
            "intensity_scale": {row.name: str(row.intensity) for row in self.options.rows()},
            "weights_sha256": self.checksum,
            **self.options.claim(),
            **({} if self.gate_maps is None else {"gate_maps": True}),  # results with them serve who asks for none
        }

    def synthesise(self, image: Tensor, made: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """All contrasts ``(C, H, W, D)`` of a stack ``(2C, H, W, D)``, and the deviation of the samples if several."""
        options, network = self.options, self.network
        stack = torch.as_tensor(image)[None].to(self.state.device)
        wanted = [options.contrasts.index(name) for name in made]
        network.targets = tuple(wanted)  # type: ignore[assignment]
        network.num_steps, network.start_level = options.num_steps, options.start_level  # type: ignore[assignment]
        network.mode = "sample" if options.samples else "mean"  # type: ignore[assignment]
        result = mean = squares = torch.zeros(())  # statistics of what is made alone: the rest is the same every time
        with self.mode(network):
            start = {}  # of all samples; without views each makes its own, which the network has at hand
            if options.samples and options.views:
                start["made"] = self.inferer.reconstruct(stack, network)  # type: ignore[attr-defined]
            for number in range(max(options.samples, 1)):
                network.seed = options.seed + number  # type: ignore[assignment]
                pred = self.inferer(stack, network, **start)[0].cpu()
                if number == 0:
                    result, mean = pred, pred[wanted]
                    squares = torch.zeros_like(mean)
                    continue
                # Welford's running mean and sum of squared deviations: memory does not grow with the samples
                for row, channel in enumerate(wanted):
                    step = pred[channel] - mean[row]
                    mean[row] += step / (number + 1)
                    squares[row] += step * (pred[channel] - mean[row])
        if options.samples < 2:
            return result, None
        if options.mode == "mean":
            result[wanted] = mean
        deviation = torch.zeros_like(result)
        deviation[wanted] = squares.div_(options.samples - 1).sqrt_()
        return result, deviation

    def gates(self, image: Tensor, network: GateMaps) -> Tensor:
        """How far the network opens for each given contrast, ``(C, H, W, D)``, of a stack ``(2C, H, W, D)``."""
        with self.mode(self.network):
            maps: Any = self.inferer(torch.as_tensor(image)[None].to(self.state.device), network)
        return maps[0].cpu()

    def finished(self, data: Mapping[str, Any], made: Sequence[str]) -> dict[str, Any]:
        """What was made of a subject as it is to be written, still on the network's grid: the start of postprocessing.

        Of "uncertainty" and "gates" the channels of the contrasts made, and given, are left. Of "image" there is one:
        only where it came from is needed any more.
        """
        d: dict[str, Any] = self.postprocessing(data, end=self.way_back)
        d["image"] = d["image"][:1].clone()
        for key, names in (("uncertainty", made), ("gates", d["intensity"])):
            if key in d:
                d[key] = d[key][[self.options.contrasts.index(name) for name in names]]
        return d

    def brought_back(self, data: Mapping[str, Any], reference: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """What was made of a subject on the grid of the reference scan, slab by slab, and where each begins.

        Up to `AT_ONCE` voxels that is one slab. Of larger scans all contrasts, and the coordinates of all voxels, would
        be gigabytes.
        """
        shape = load_nifti(reference).shape[:3]
        for start, stop in (places := slabs(shape)):
            image = data["image"] if len(places) == 1 else slab_of(data["image"], start, stop)
            yield start, self.postprocessing({**data, "image": image}, start=self.way_back)

    def contents(self, data: Mapping[str, Any], made: Sequence[str]) -> dict[str, Content]:
        """What the volumes of a subject hold, by the names of their files."""
        given, contrasts = list(data["intensity"]), self.options.contrasts
        return {
            f"{data['subject']}_{name}_{ending}.nii.gz": Content(key, channels.index(name), f"{name} {ending}")
            for key, ending, names, channels in (
                ("pred", "synth", made, contrasts),
                ("uncertainty", "uncertainty", made, made),
                ("gates", "gate", given, given),
            )
            if key in data
            for name in names
        }

    def write_images(
        self,
        folder: Path,
        parts: Iterable[tuple[int, Mapping[str, Any]]],
        data: Mapping[str, Any],
        reference: str,
        made: Sequence[str],
    ) -> list[str]:
        """Write the volumes that were made, and a picture of all, into a folder; the names of the files.

        Args:
            folder: of the subject.
            parts: see `brought_back`.
            data: the subject as the network saw it, and what it made.
            reference: the scan whose grid that of the volumes is.
            made: which contrasts are synthetic.
        """
        subject, contents, sketch = data["subject"], self.contents(data, made), Sketch(reference)
        with ExitStack() as stack:
            write = {
                name: stack.enter_context(
                    volume_file(folder / name, reference, f"{content.told}, msg-ldm-bundle {__version__}")
                )
                for name, content in contents.items()
            }
            for start, part in parts:
                for name, content in contents.items():
                    write[name](part[content.key][content.channel].numpy())
                sketch.add(start, {key: part[key].numpy() for key in ("pred", "uncertainty", "brain") if key in part})
        shown = [name for name in self.options.contrasts if name in data["intensity"] or name in made]
        volumes = dict(zip(self.options.contrasts, sketch.volumes["pred"]))
        write_qc(
            folder / f"{subject}_qc.png",
            subject,
            {name: volumes[name] for name in shown},
            made,
            dict(zip(made, sketch.volumes.get("uncertainty", ()))),
            sketch.volumes["brain"][0],
            sketch.affine,
        )
        return [*contents, f"{subject}_qc.png"]

    def cautions(self, made: Sequence[str]) -> list[str]:
        """What a reader of the results must know of the contrasts that were made."""
        return [
            f"{row.name} is synthetic: it shows no real uptake of contrast agent and says nothing about enhancement"
            for row in self.options.rows()
            if row.gadolinium and row.name in made
        ]

    def reason(self, error: Exception) -> str:
        """One line that says why a subject failed."""
        fault = input_error_in(error)
        if fault is not None:
            return str(fault)
        while not isinstance(error, OSError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if isinstance(error, OSError):
            return told(error, self.output_dir)
        with tqdm.external_write_mode():
            logger.error("an error that this program did not foresee", exc_info=error)
        return f"unforeseen {type(error).__name__}: {' '.join(str(error).split())}. Report it with the lines above"

    def report(self, record: Mapping[str, Any]) -> None:
        """Tell about a subject, above the progress bar where there is one (on a terminal)."""
        what = ", ".join(record["made"]) + " " if record["made"] else ""
        reason = f": {record['reason']}" if record["reason"] else ""
        count = f"[{len(self.records)}/{len(self.dataset)}]"
        self.bar.write(f"{count} {record['subject']}: {what}{record['status']} ({record['seconds']:.1f} s){reason}")
        for line in record["warnings"]:
            self.bar.write(f"  warning: {line}")
        self.bar.update()

    def write_summary(self) -> None:
        """Write one row per subject that was looked at."""
        table = io.StringIO()
        rows = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        rows.writerows(
            {**record, "made": " ".join(record["made"]), "unused": "; ".join(record["unused"])}
            for record in self.records
        )
        try:
            write_text(self.output_dir / "summary.json", as_json(self.records))
            write_text(self.output_dir / "summary.csv", table.getvalue())
        except OSError as error:
            fault = f"the summary cannot be written ({error.strerror})"
            raise InputError(fault, "Free some space", self.output_dir) from error


def unused_lines(item: Mapping[str, Any]) -> list[str]:
    """The image files of a subject that are not used, each with the reason."""
    return [f"{entry['file']}: {entry['reason']}" for entry in item.get("unused", ())]


class Content(NamedTuple):
    """What a volume that is written holds.

    Attributes:
        key, channel: where it is in the item of a subject.
        told: what it is, in words, for the header.
    """

    key: str
    channel: int
    told: str


class Clock:
    """Seconds between calls of `lap`, summed by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = defaultdict(float)
        self.last = time.monotonic()

    def lap(self, name: str) -> None:
        """Add the seconds since the last call to those of a name."""
        now = time.monotonic()
        self.laps[name] += now - self.last
        self.last = now

    def lapped(self, items: Iterable[T], making: str, using: str) -> Iterator[T]:
        """The same items; what it takes to make one is told apart from what the caller does with it."""
        for item in items:
            self.lap(making)
            yield item
            self.lap(using)
