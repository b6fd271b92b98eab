"""The app, as MONAI Label looks for it: a class in main.py."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from bundle import __version__
from bundle.errors import InputError
from scripts.monai_label.lib.refusals import UnknownImage
from scripts.monai_label.lib.studies import Studies
from scripts.monai_label.lib.synthesis import DESCRIPTION, SynthesisTask

BUNDLE_ROOT = Path(__file__).resolve().parents[2]
MODEL = "synthesis"


class SynthesisApp(MONAILabelApp):
    """One model, "synthesis", over a folder of scans.

    Args:
        app_dir: this folder.
        studies: the studies folder.
        conf: "config_file", one or several (a list) in place of configs/inference.json, and what overrides single
            settings of it, such as "weights".
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, Any]) -> None:
        # Uploads wait in a folder of the server's own, so that what lies in it cannot be anything else.
        self.spool = tempfile.TemporaryDirectory(prefix="msg_ldm_")
        tempfile.tempdir = self.spool.name
        super().__init__(app_dir, studies, conf, name="MSG-LDM", description=DESCRIPTION, version=__version__)

    def init_datastore(self) -> Studies:
        """The studies folder."""
        return Studies(self.studies)

    def init_infers(self) -> dict[str, InferTask]:
        """The one task."""
        overrides = dict(self.conf)
        files = overrides.pop("config_file", BUNDLE_ROOT / "configs" / "inference.json")
        settings = ConfigParser.load_config_files(files)
        return {MODEL: SynthesisTask(self.datastore(), {**settings, "bundle_root": str(BUNDLE_ROOT), **overrides})}

    def init_strategies(self) -> dict[str, Strategy]:
        """How a client may ask for the next scan."""
        return {"first": First(), "random": Random()}

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Complete the exam of the scan that the request names; see `SynthesisTask`.

        Raises:
            UnknownImage: there is no such model or image.
            OutsideStudies: the image is not in the studies folder.
            InputError: a file was uploaded with the request, or the exam or an option cannot be used.
        """
        model, image = request.get("model"), request.get("image")
        if model not in self._infers:
            raise UnknownImage(f"there is no model {model!r}", f"Use {MODEL}")
        if not isinstance(image, str):
            raise InputError(f"image is {image!r}", "Name an image by its id")
        if Path(image).is_relative_to(self.spool.name):
            Path(image).unlink(missing_ok=True)
            fault = "a scan was sent with the request, and what belongs to it cannot be found"
            remedy = "Upload the exam's scans with PUT /datastore/image?image=ID, then name one by its id"
            raise InputError(fault, remedy)
        file, report = self._infers[model]({**request, "image": str(self.datastore().scan(image))})
        return {"file": file, "params": report}
