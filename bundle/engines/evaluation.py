"""The engine of evaluation: hide contrasts that exist, synthesise them, and compare with the truth and with floors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import nn
from tqdm import tqdm

from bundle import __version__
from bundle.data.montage import write_montage
from bundle.data.output import as_json, prepare_output, staged, write_text
from bundle.engines.options import SynthesisOptions
from bundle.engines.scoring import Floors, Subject
from bundle.engines.synthesis import SynthesisEvaluator
from bundle.errors import InputError, input_error_in
from bundle.metrics.copy_floor import reference_of
from bundle.metrics.tables import as_csv, as_markdown

logger = logging.getLogger(__name__)

PROTOCOLS = {
    "rest": "every contrast from all the others that the subject has",
    "single": "every contrast from each one of the others (mean over these)",
}
METHODS = {
    "network": "the network of the bundle, its output as it is, 0 outside the brain",
    "copy": "the given contrast that correlates best with the target in the reference subjects, inverted where that "
    "correlation is negative, with the target's mean histogram of the reference subjects; sees nothing of the truth",
    "copy_oracle": "the given contrast that correlates best with the truth itself, inverted where that correlation is "
    "negative, with the histogram of the truth itself",
}
CONVENTION = (
    "PSNR (dB, data range 1) and SSIM (3-D, Gaussian window of 11 voxels, sigma 1.5) inside the brain, on the "
    "network's grid (RAS, 1 mm, one mask from all contrasts of the subject); the truth runs from 0 to 1 over its own "
    "intensity range (0.5 to 99.5 percentile inside the brain unless the registry says otherwise), clipped."
)


class QualityEvaluator(SynthesisEvaluator):
    """Go through a data set subject by subject and score what is made of contrasts that are there.

    Writes results.json, results.csv, tables.md, the summary of all subjects and a picture per subject.

    Args:
        device, network, inferer, options, checksum, dataset_dir, output_dir, val_handlers: see `SynthesisEvaluator`;
            `options.targets` is not used.
        dataset: checked items, with preprocessing that ends in "image" ``(2C, X, Y, Z)``, all contrasts, and "brain".
        reference: subjects for the floor "copy", with the same preprocessing; without any it is left out.
        protocol: one or both of "rest" and "single", see `PROTOCOLS`.
        settings: whatever else results.json is to tell of the command.

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
        protocol: Sequence[str] | str = tuple(PROTOCOLS),
        settings: Mapping[str, Any] | None = None,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            device, dataset, network, inferer, Compose(), options, checksum, dataset_dir, output_dir, True, val_handlers
        )
        names = [protocol] if isinstance(protocol, str) else protocol
        if not isinstance(names, Sequence) or not names or not set(names) <= set(PROTOCOLS):
            raise InputError(f"protocol is {protocol!r}", f"Use --protocol with some of {', '.join(PROTOCOLS)}")
        self.protocol = {name: PROTOCOLS[name] for name in PROTOCOLS if name in names}
        self.reference, self.settings = reference, dict(settings or {})
        self.rows: list[dict[str, Any]] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Learn from the reference subjects, score all subjects, write the results, also where it is interrupted."""
        prepare_output(self.output_dir, self.dataset_dir)
        self.rows = []
        if not len(self.reference):
            logger.warning("no --reference_dir is given: the floor 'copy' is left out")
        self.floor = reference_of(self.reference_voxels())
        super().run(global_epoch)

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

    def process(self, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
        """Score one subject."""
        if "fault" in item:
            return {"reason": item["fault"]}
        tasks = self.tasks([name for name in self.options.contrasts if name in item])
        if not tasks:
            raise InputError("has no two contrasts of which one can be made from the other", "Add another scan")
        data = self.dataset[index]
        subject = Subject(data, self.options.contrasts)
        floors = Floors(subject, self.floor)
        shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        rows: list[dict[str, Any]] = []
        for (given, target), protocols in tasks.items():
            self.bar.set_postfix_str(f"{item['subject']}: {target} from {', '.join(given)}")
            pred = self.synthesise(subject.hide(given), [target])[0][self.options.contrasts.index(target)]
            pred = pred * subject.brain
            own = subject.score(pred, target)
            scores = {"network": (own, ""), **floors.scores(given, target)}
            for protocol in protocols:
                key = {"subject": item["subject"], "protocol": protocol, "given": list(given), "target": target}
                rows += [
                    {**key, "method": method, "source": source, "psnr": quality[0], "ssim": quality[1]}
                    for method, (quality, source) in scores.items()
                ]
            if "rest" in protocols:
                name = f"{target}  {own[0]:.2f} dB, SSIM {own[1]:.3f}"
                shown[name] = (subject.images[target].numpy(), pred.numpy())
        if shown:
            self.draw(item["subject"], shown, subject.brain.numpy())
        self.rows += rows
        made = list(dict.fromkeys(target for _, target in tasks))
        return {"status": "done", "made": made, "warnings": [*data["warnings"], *floors.warnings]}

    def draw(self, name: str, shown: Mapping[str, tuple[np.ndarray, np.ndarray]], brain: np.ndarray) -> None:
        """Write the picture of a subject."""
        with staged(self.output_dir / name) as aside:
            write_montage(aside / f"{name}_evaluation.png", f"{name}: each contrast from all the others", shown, brain)

    def tasks(self, present: Sequence[str]) -> dict[tuple[tuple[str, ...], str], list[str]]:
        """What is scored for a subject with these contrasts: (given contrasts, target) -> protocols that ask for it."""
        roles = {row.name: row.role for row in self.options.rows()}
        tasks: dict[tuple[tuple[str, ...], str], list[str]] = {}
        for target in (name for name in present if roles[name] != "input"):
            others = tuple(name for name in present if name != target and roles[name] != "target")
            subsets: dict[str, list[tuple[str, ...]]]
            subsets = {"rest": [others] if others else [], "single": [(name,) for name in others]}
            for protocol in self.protocol:
                for given in subsets[protocol]:
                    tasks.setdefault((given, target), []).append(protocol)
        return tasks

    def write_summary(self) -> None:
        """Write the summary of the subjects, then every number, then the tables."""
        super().write_summary()
        methods = {name: METHODS[name] for name in dict.fromkeys(row["method"] for row in self.rows)}
        report = {
            "bundle_version": __version__,
            "weights_sha256": self.checksum,
            "network": type(self.network).__name__,
            "dataset_dir": str(self.dataset_dir),
            **self.settings,
            **self.options.claim(),
            "protocol": self.protocol,
            "convention": CONVENTION,
            "methods": methods,
            "reference_subjects": [item["subject"] for item in self.reference.data],
            "reference_correlations": {f"{a} {b}": r for (a, b), r in self.floor.correlations.items()},
            "subjects": self.records,
            "results": self.rows,
        }
        notes = [CONVENTION, *(f"{name}: {meaning}." for name, meaning in methods.items())]
        notes.append(f"Means over subjects. Mode {self.options.mode}, seed {self.options.seed}.")
        files = {
            "results.json": as_json(report),
            "results.csv": as_csv(self.rows),
            "tables.md": as_markdown(self.rows, self.protocol, "\n\n".join(notes)),
        }
        try:
            for name, text in files.items():
                write_text(self.output_dir / name, text)
        except OSError as error:
            fault = f"the results cannot be written ({error.strerror})"
            raise InputError(fault, "Free some space", self.output_dir) from error
