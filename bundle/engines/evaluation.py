"""The engine of evaluation: hide contrasts that exist, synthesise them, and compare with the truth and with floors."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import Dataset
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor, nn
from tqdm import tqdm

from bundle import __version__
from bundle.data.montage import write_montage
from bundle.data.output import as_json, prepare_output, staged, write_text
from bundle.data.plots import write_plots
from bundle.engines import gates as gate_tables
from bundle.engines.downstream import Downstream
from bundle.engines.gates import GateReport
from bundle.engines.options import SynthesisOptions
from bundle.engines.provenance import checksums, command_line, commit
from bundle.engines.scoring import Floors, Scorer, Scores, Subject, as_list
from bundle.engines.synthesis import SynthesisEvaluator
from bundle.errors import InputError, input_error_in
from bundle.metrics.calibration import Calibration
from bundle.metrics.conventions import apply
from bundle.metrics.copy_floor import reference_of
from bundle.metrics.measures import Measure
from bundle.metrics.perceptual import FID, FeatureNetwork
from bundle.metrics.tables import as_csv, as_markdown
from bundle.transforms.intensity import to_level

logger = logging.getLogger(__name__)


class Protocol(NamedTuple):
    """Which subsets of available contrasts a target is made from.

    Attributes:
        meaning: in words.
        asks: whether for a subset of that many of that many others.
    """

    meaning: str
    asks: Callable[[int, int], bool]


PROTOCOLS = {
    "subsets": Protocol("every contrast from every subset of the others that the subject has", lambda n, others: True),
    "rest": Protocol("every contrast from all the others that the subject has", lambda n, others: n == others),
    "single": Protocol("every contrast from each one of the others", lambda n, others: n == 1),
}
METHODS = {
    "network": "the network of the bundle, its output as it is, 0 outside the brain",
    "copy": "the given contrast that correlates best with the target in the reference subjects, inverted where that "
    "correlation is negative, with the target's mean histogram of the reference subjects; sees nothing of the truth",
    "copy_oracle": "the given contrast that correlates best with the truth itself, inverted where that correlation is "
    "negative, with the histogram of the truth itself",
    "real": "nothing synthesised: what the segmenter finds in the real contrasts",
}
_LESIONS = {"wt": "the whole lesion or tumour", "tc": "the tumour core", "et": "the enhancing tumour"}
_FOUND = "that a segmenter finds with the synthesis in the place of the real contrast, all other contrasts real"
SEGMENTED = {
    "dice": Measure(
        "dice", "dice", "", "", "", True, 3, "mean of the Dice coefficients below that can be told, 0 to 1"
    ),
    **{
        name: Measure(name, "dice", region, "", "", True, 3, f"Dice coefficient, 0 to 1, of {meaning} {_FOUND}")
        for region, meaning in _LESIONS.items()
        for name in [f"dice_{region}"]
    },
    **{
        name: Measure(name, "hd95", region, "", "mm", False, 2, f"95 % Hausdorff distance of {meaning} {_FOUND}")
        for region, meaning in _LESIONS.items()
        for name in [f"hd95_{region}"]
    },
}
RESULTS = "results.json"


class QualityEvaluator(SynthesisEvaluator):
    """Go through a data set subject by subject and score what is made of contrasts that are there.

    Each subset of available contrasts is one call of the network per slice, for all its targets. Writes results.json,
    results.csv, tables.md, the summary of all subjects and a picture per subject. A folder with results of the same
    network, options and scans is written anew, one of another run is left alone.

    Args:
        device, network, inferer, options, checksum, dataset_dir, output_dir, val_handlers: see `SynthesisEvaluator`;
            `options.targets` is not used.
        dataset: checked items, with preprocessing that ends in "image" ``(2C, X, Y, Z)``, all contrasts, "brain", and
            the lesion's "regions" and "valid".
        reference: subjects for the floor "copy", with the same preprocessing; without any it is left out.
        scorer: the measures.
        fid_features: what FID compares; None: no FID.
        downstream: what lesions a segmenter finds with the syntheses; None: not asked.
        gates: notes how much each given contrast contributes; None: not asked.
        protocol: some of `PROTOCOLS`.
        settings: whatever else results.json is to tell of the command.
        overwrite: write over the results of another run.

    Raises:
        InputError: an unknown protocol.
    """

    def __init__(
        self,
        device: torch.device | str,
        dataset: Dataset,
        network: nn.Module,
        inferer: Inferer,
        options: SynthesisOptions,
        checksum: str,
        dataset_dir: str | Path,
        output_dir: str | Path,
        reference: Dataset,
        scorer: Scorer,
        fid_features: FeatureNetwork | None = None,
        downstream: Downstream | None = None,
        gates: GateReport | None = None,
        protocol: Sequence[str] | str = "subsets",
        settings: Mapping[str, Any] | None = None,
        overwrite: bool | str = False,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        places = (dataset_dir, output_dir, overwrite)
        super().__init__(device, dataset, network, inferer, Compose(), options, checksum, *places, val_handlers)
        names = as_list("protocol", protocol)
        if not set(names) <= set(PROTOCOLS):
            raise InputError(f"protocol is {protocol!r}", f"Use --protocol with some of {', '.join(PROTOCOLS)}")
        self.protocol = {name: PROTOCOLS[name] for name in PROTOCOLS if name in names}
        self.reference, self.scorer, self.fid_features = reference, scorer, fid_features
        self.downstream, self.gate_report, self.settings = downstream, gates, dict(settings or {})
        self.measures = {**scorer.measures, **(SEGMENTED if downstream is not None else {})}
        self.rows: list[dict[str, Any]] = []
        self.calibrations: dict[str, Calibration] = defaultdict(Calibration)
        self.fids: dict[str, FID] = {}

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Learn from the reference subjects, score all subjects, write the results, also where it is interrupted.

        Raises:
            InputError: no subject has two of the contrasts, or the output folder holds the results of another run.
        """
        prepare_output(self.output_dir, self.dataset_dir)
        usable = [item for item in self.dataset.data if "fault" not in item]
        if usable and not any(self.tasks(item) for item in usable):
            fault = f"no subject has two of the contrasts {', '.join(self.options.contrasts)}, of which one can be made"
            raise InputError(fault, "Name a folder of complete subjects, or the model's --contrasts", self.dataset_dir)
        self.identity = self.identify()
        if not self.overwrite:
            self.check_earlier_run()
        self.rows, self.calibrations, self.fids = [], defaultdict(Calibration), {}
        if not len(self.reference):
            logger.warning("no --reference_dir is given: the floor 'copy' is left out")
        self.floor = reference_of(self.reference_voxels())
        super().run(global_epoch)

    def identify(self) -> dict[str, Any]:
        """What all results follow from."""
        return {
            "bundle_version": __version__,
            "weights_sha256": self.checksum,
            "network": type(self.network).__name__,
            **self.options.claim(),
            "protocol": {name: protocol.meaning for name, protocol in self.protocol.items()},
            "convention": self.scorer.convention,
            "measures": {name: measure.meaning for name, measure in self.measures.items()},
            "reference_subjects": [item["subject"] for item in self.reference.data],
            "inputs_sha256": checksums(self.dataset.data),
        }

    def check_earlier_run(self) -> None:
        """InputError where the output folder holds results that follow from something else."""
        file = self.output_dir / RESULTS
        if not file.is_file():
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # of a run that was killed by a full disk, or not ours
            found = {}
        wanted = json.loads(as_json(self.identity))  # tuples become lists, as in the file
        differing = [key for key, value in wanted.items() if key not in found or found[key] != value]
        if differing:
            remedy = "Use another --output_dir, or --overwrite true"
            raise InputError(f"results of another run: {', '.join(differing)} differ", remedy, file)

    def reference_voxels(self) -> Iterator[dict[str, np.ndarray]]:
        """The contrasts of one reference subject after another, inside the brain."""
        for index in tqdm(range(len(self.reference)), desc="reference", unit="subject", disable=None):
            try:
                yield Subject(self.reference[index], self.options.contrasts).voxels
            except Exception as error:
                if input_error_in(error) is None:
                    raise
                name = self.reference.data[index]["subject"]
                logger.warning(f"reference subject {name} is left out: {input_error_in(error)}")

    def tasks(self, item: Mapping[str, Any]) -> dict[tuple[str, ...], list[str]]:
        """What is scored of a subject: each subset of its contrasts, small ones first -> the targets made from it."""
        inputs = [name for name in self.options.inputs if name in item]
        known = [row.name for row in self.options.rows() if row.role != "input" and row.name in item]
        tasks = {}
        for given in (subset for size in range(1, len(inputs) + 1) for subset in combinations(inputs, size)):
            targets = [
                target
                for target in known
                if target not in given
                and any(p.asks(len(given), len(inputs) - (target in inputs)) for p in self.protocol.values())
            ]
            if targets:
                tasks[given] = targets
        return tasks

    def process(self, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
        """Score one subject."""
        if "fault" in item:
            return {"reason": item["fault"]}
        tasks = self.tasks(item)
        if not tasks:
            raise InputError("has no two contrasts of which one can be made from the other", "Add another scan")
        data = self.dataset[index]
        subject = Subject(data, self.options.contrasts)
        score = partial(self.score, subject)
        floors = Floors(subject, self.floor, score)
        real = self.segmented(subject, subject.stack)
        inputs = {name for name in self.options.inputs if name in item}
        rows: list[dict[str, Any]] = []
        shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for given, targets in tasks.items():
            self.bar.set_postfix_str(f"{item['subject']}: {', '.join(targets)} from {', '.join(given)}")
            for target, pred, uncertainty in self.made(subject, given, targets):
                own = score(pred, target)
                scores = {"network": (own, ""), **floors.scores(given, target)}
                if inputs <= {*given, target}:
                    scores |= {"real": (real, "")} if real else {}
                    pair = apply("truth", pred, subject.images[target], subject.brain)
                    shown[titled(target, own)] = (pair[1].numpy(), pair[0].numpy())
                key = {"subject": item["subject"], "given": list(given), "available": len(given), "target": target}
                rows += [{**key, "method": name, "source": source, **each} for name, (each, source) in scores.items()]
                self.accumulate(subject, target, pred, uncertainty)
        if shown:
            self.draw(item["subject"], shown, subject)
        self.rows += rows
        scored = [name for name in self.options.contrasts if any(name in targets for targets in tasks.values())]
        said = [*data["warnings"], *self.unscored(item), *floors.warnings.values()]
        return {"status": "done", "made": scored, "warnings": said}

    def made(
        self, subject: Subject, given: Sequence[str], targets: Sequence[str]
    ) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Each target, made from the given contrasts in one go: its name, image and uncertainty ``(X, Y, Z)``."""
        with self.gate_report or nullcontext():
            images, deviations = self.synthesise(subject.hide(given), targets)
        rows = {row.name: row for row in self.options.rows()}
        for target in targets:
            channel = self.options.contrasts.index(target)
            factor = to_level(images[channel], subject.brain, rows[target])
            image = (images[channel] * factor).clamp(0, 1) * subject.brain
            yield target, image, None if deviations is None else deviations[channel] * factor

    def score(self, subject: Subject, pred: Tensor, target: str) -> Scores:
        """All that can be said of one image ``(X, Y, Z)`` in the place of a contrast."""
        return {**self.scorer(pred, subject, target), **self.segmented(subject, subject.replace(target, pred))}

    def segmented(self, subject: Subject, stack: Tensor) -> Scores:
        """`SEGMENTED` of the lesions that are found in a stack of the subject, as far as they can be told."""
        if self.downstream is None:
            return {}
        with self.mode(self.network):  # which may be the segmenter
            found = self.downstream.measures(stack, subject.lesions, subject.valid)
        dice = [value for name, value in found.items() if name.startswith("dice")]
        return {"dice": float(np.mean(dice)), **found} if dice else found

    def accumulate(self, subject: Subject, target: str, pred: Tensor, uncertainty: Tensor | None) -> None:
        """Take a synthesis ``(X, Y, Z)`` into what is told of the data set as a whole."""
        truth = subject.images[target]
        if uncertainty is not None:
            self.calibrations[target].add(uncertainty, (pred - truth).abs(), subject.brain & subject.covered[target])
        if self.fid_features is not None:
            self.fids.setdefault(target, FID(self.fid_features)).add(pred, truth, subject.brain)

    def unscored(self, item: Mapping[str, Any]) -> list[str]:
        """A line about the contrasts that could be made, but not scored."""
        names = [row.name for row in self.options.rows() if row.role != "input" and row.name not in item]
        return [f"{', '.join(names)}: there is no truth, and so no score"] if names else []

    def draw(self, name: str, shown: Mapping[str, tuple[np.ndarray, np.ndarray]], subject: Subject) -> None:
        """Write the picture of a subject."""
        lesion = subject.regions.get("lesion")
        with staged(self.output_dir / name) as aside:
            write_montage(
                aside / f"{name}_evaluation.png",
                f"{name}: each contrast from all the others",
                shown,
                subject.brain.numpy(),
                None if lesion is None else lesion.numpy(),
            )

    def write_summary(self) -> None:
        """Write the summary of the subjects, then every number, then the tables."""
        super().write_summary()
        report = self.report_all()
        contrasts = self.options.contrasts
        tables = [
            as_markdown(self.rows, contrasts, self.measures, notes_of(report)),
            gate_tables.as_markdown(report["gates"], self.rows, contrasts),
        ]
        files = {
            RESULTS: as_json(finite(report)),
            "results.csv": as_csv(self.rows),
            "tables.md": "\n".join(part for part in tables if part),
        }
        try:
            for name, text in files.items():
                write_text(self.output_dir / name, text)
            write_plots(report, self.output_dir)
        except OSError as error:
            fault = f"the results cannot be written ({error.strerror})"
            raise InputError(fault, "Free some space", self.output_dir) from error

    def report_all(self) -> dict[str, Any]:
        """Every number, with what it follows from."""
        used = {row["method"] for row in self.rows}
        return {
            "command": command_line(),
            "commit": commit(),
            "dataset_dir": str(self.dataset_dir),
            **self.settings,
            **self.identity,
            "methods": {name: meaning for name, meaning in METHODS.items() if name in used},
            "reference_correlations": {f"{a} {b}": r for (a, b), r in self.floor.correlations.items()},
            "subjects": self.records,
            "gates": self.gate_report.report() if self.gate_report is not None else [],
            "fid": {target: fid.compute() for target, fid in self.fids.items()} or None,
            "calibration": {target: found.result() for target, found in self.calibrations.items()} or None,
            "results": self.rows,
        }


def finite(content: Any) -> Any:
    """Content of a report as JSON knows it: infinite numbers (the PSNR of equal images) and NaN become None."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def titled(target: str, scores: Mapping[str, float]) -> str:
    """A target with its PSNR and SSIM, where they were measured."""
    figures = {"psnr": "{:.2f} dB", "ssim": "SSIM {:.3f}"}
    return f"{target}  {', '.join(text.format(scores[name]) for name, text in figures.items() if name in scores)}"


def notes_of(report: Mapping[str, Any]) -> str:
    """What a reader of the tables must know of the run."""
    lines = [
        f"{report['network']}, weights {report['weights_sha256'][:12]}, mode {report['mode']}"
        f"{', mirrored' if report['mirrored'] else ''}{', three planes' if report['three_planes'] else ''}, "
        f"seed {report['seed']}. "
        "3-D volumes on the network's grid (RAS, 1 mm); the brain is one mask from all contrasts of a subject.",
        *(f"- {name}: {meaning}." for name, meaning in report["methods"].items()),
    ]
    if report["fid"]:
        found = ", ".join(
            f"{target.upper()} {value:.2f}" for target, value in report["fid"].items() if value is not None
        )
        lines += ["", f"FID of the network's axial slices, of all subjects and subsets: {found}."]
    return "\n".join([lines[0], "", *lines[1:]])
