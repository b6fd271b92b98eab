"""The inference task: one target contrast of the exam that a scan belongs to."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from bundle.data.naming import SCAN_SUFFIXES
from bundle.engines.options import MODES, SynthesisOptions
from bundle.engines.synthesis import SynthesisEvaluator
from bundle.errors import InputError, input_error_in
from scripts.monai_label.lib.exam import exam_of
from scripts.monai_label.lib.refusals import Conflict
from scripts.monai_label.lib.studies import Studies

FIRST_MISSING = "first missing"
CHOICES = ("mirrored", "three_planes", "num_samples", "num_steps", "seed")  # fields of the options, offered as they are
DESCRIPTION = (
    "Synthesises a missing contrast of a brain MRI exam from the scans that lie beside the one that is named. "
    "Research only; a synthesised T1CE shows no real uptake of contrast agent."
)


class SynthesisTask(InferTask):
    """Make one contrast with the engine of the inference command, and keep it next to the scans that it was made from.

    The options that a client may choose are "target", "mode", "mirrored", "three_planes", "num_samples", "num_steps"
    and "seed". They never become a part of the config, where text that begins with $ is run as code.

    Args:
        studies: where the scans are, and where the result goes.
        settings: the config of inference, as a dict.

    Raises:
        InputError: on construction, where the weights cannot be loaded; MONAI may raise it from another error.
    """

    def __init__(self, studies: Studies, settings: Mapping[str, Any]) -> None:
        self.studies, self.settings = studies, settings
        parser = ConfigParser(deepcopy(dict(settings)))
        # loaded once, and objects of a parsed config are taken as they are
        self.loaded = {name: parser.get_parsed_content(name) for name in ("device", "checksum", "network")}
        self.defaults: SynthesisOptions = parser.get_parsed_content("options")
        self.targets = [row.name for row in self.defaults.rows() if row.role != "input"]
        choices = {
            "target": [FIRST_MISSING, *self.targets],
            "mode": sorted(MODES, key=lambda mode: mode != self.defaults.mode),  # the first of a list is the default
            **{name: getattr(self.defaults, name) for name in CHOICES},
        }
        super().__init__(InferType.OTHERS, labels=None, dimension=3, description=DESCRIPTION, config=choices)

    def is_valid(self) -> bool:
        """Whether the task can be used: it is, once it exists."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Complete an exam.

        Args:
            request: "image", the path of a scan in the studies folder, and options.

        Returns:
            The path of a copy of the volume, for the server to send and remove, and the report: that of the inference
            command with paths in the studies folder, and "image" (and "uncertainty"), the id of what was kept.

        Raises:
            InputError: the exam or an option cannot be used.
            Conflict: nothing is missing, and no target was named.
        """
        chosen = {name: plain(request.get(name, default)) for name, default in self.config().items()}
        scan = Path(request["image"])
        item = exam_of(scan, self.studies, self.defaults.contrasts, self.defaults.registry or {})
        if "fault" in item:
            raise InputError(item["fault"], "")
        options = replace(self.defaults, targets=[self.target(chosen.pop("target"), item)], **chosen)
        with tempfile.TemporaryDirectory() as folder:
            evaluator = self.evaluator(item, options, folder)
            try:
                evaluator.process(0, item)
            except Exception as error:
                if fault := input_error_in(error):
                    raise fault from error
                raise
            return self.kept(Path(folder) / item["subject"], item)

    def target(self, wanted: Any, item: Mapping[str, Any]) -> str:
        """The name of the contrast to make."""
        if wanted == FIRST_MISSING:
            missing = [name for name in self.targets if name not in item]
            if not missing:
                fault = f"nothing is missing of {', '.join(self.targets)}"
                raise Conflict(fault, "Name a target to make it nonetheless", item["subject"])
            return missing[0]
        if wanted not in self.targets:
            raise InputError(f"target {wanted!r} is unknown", f"Use one of {', '.join((FIRST_MISSING, *self.targets))}")
        return str(wanted)

    def evaluator(self, item: Mapping[str, Any], options: SynthesisOptions, folder: str) -> SynthesisEvaluator:
        """The engine of the inference command, for one exam."""
        parser = ConfigParser({**deepcopy(dict(self.settings)), **self.loaded, "options": options})
        # in a tuple, which the parser does not look into: names of files are not to be run
        parser.update({"dataset::data": (item,), "dataset_dir": self.studies.root, "output_dir": Path(folder)})
        evaluator: SynthesisEvaluator = parser.get_parsed_content("evaluator")
        return evaluator

    def kept(self, made: Path, item: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Put the volumes of a folder of results into the datastore; what `__call__` returns."""
        text = (made / f"{made.name}.json").read_text(encoding="utf-8").replace(f"{self.studies.root}/", "")
        report = {"synthetic": True, **json.loads(text)}
        home = Path(report["inputs"][report["reference"]]).parent
        volumes = [made / name for name in report.pop("files") if name.endswith(SCAN_SUFFIXES)]
        ids = [(home / volume.name.removesuffix(".nii.gz")).as_posix() for volume in volumes]
        for image_id, volume in zip(ids, volumes):
            self.studies.keep(image_id, volume, report)
        answer = shutil.move(volumes[0], Path(tempfile.mkdtemp()) / volumes[0].name)
        return str(answer), {**dict(zip(("image", "uncertainty"), ids)), **report}


def plain(value: Any) -> Any:
    """A client's choice: a list is one that nobody chose from, digits are a number that was typed into a table."""
    if isinstance(value, list) and value:
        value = value[0]
    return int(value) if isinstance(value, str) and value.isdecimal() else value
