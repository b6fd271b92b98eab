"""Start the MONAI Label server on a folder of scans."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import uvicorn
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance

from bundle.errors import InputError, report_plainly
from scripts.monai_label.lib.server import make_server


def main(arguments: list[str] | None = None) -> None:
    """Check the folder, load the weights, and serve until interrupted."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", type=Path, help="folder of scans: one folder per subject, or flat files")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; there is no log-in (%(default)s)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--weights", metavar="FILE", help="other weights than models/model.pt")
    parser.add_argument("--config_file", nargs="+", metavar="FILE", help="other configs than configs/inference.json")
    options = parser.parse_args(arguments)
    conf = {key: getattr(options, key) for key in ("weights", "config_file") if getattr(options, key)}
    app = load_app(options.studies, conf)
    print(f"{len(app.datastore().list_images())} images in {app.studies}", flush=True)
    uvicorn.run(make_server(app), host=options.host, port=options.port)


def load_app(studies: Path, conf: dict[str, Any]) -> Any:
    """The app of a studies folder, which MONAI Label's endpoints then find.

    Raises:
        InputError: the folder does not exist or cannot be written to, or the weights cannot be loaded.
    """
    if not studies.is_dir():
        raise InputError("is no folder", "Name the folder of the scans", studies)
    if not os.access(studies, os.W_OK):
        raise InputError("cannot be written to", "Name a folder that the results may be put into", studies)
    settings.MONAI_LABEL_APP_DIR = str(Path(__file__).resolve().parent)
    settings.MONAI_LABEL_STUDIES = str(studies.resolve())
    settings.MONAI_LABEL_APP_CONF = conf
    settings.MONAI_LABEL_SESSIONS = False  # they would hold scans outside of the studies folder
    return app_instance()


if __name__ == "__main__":
    main()
