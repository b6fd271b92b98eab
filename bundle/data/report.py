"""A page per run of the inference: what became of every subject, with a viewer of its volumes, in one file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nibabel.affines import apply_affine
from nibabel.processing import resample_from_to
from nibabel.spatialimages import SpatialImage

from bundle import __version__
from bundle.data.output import write_text
from bundle.data.qc import top

VIEWER = Path(__file__).with_name("viewer")
PARTS = {"style": "report.css", "script": "report.js", "niivue": "niivue.min.js"}  # ours, not the user's: not escaped
VOXEL = 1.5  # mm: a contrast of a brain then takes 0.4 to 0.8 MB of the page
MARGIN = 6.0  # mm around the brain
SUBJECTS_WITH_VOLUMES = 40  # of further subjects there are the pictures only: the page has to stay below some 100 MB


def write_report(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the page of a run; it opens without a network, and shows volumes in browsers with WebGL 2.

    Args:
        path: of the page, in the output folder of the inference: the subjects' folders are beside it.
        records: a {subject, status, made, seconds, reason, warnings} per subject, as in summary.json.
    """
    with_results = [record["subject"] for record in records if record["status"] in ("done", "skipped")]
    shown = set(with_results[:SUBJECTS_WITH_VOLUMES])
    subjects = [
        {"index": number, **record, **results(path.parent, record, record["subject"] in shown)}
        for number, record in enumerate(records)
    ]
    # autoescape: names of subjects and of files, and reasons that quote them, are anybody's text
    template = Environment(loader=FileSystemLoader(VIEWER), autoescape=True).get_template("report.html")
    page = template.render(
        subjects=subjects,
        written=datetime.now().astimezone().isoformat(" ", "seconds"),
        version=__version__,
        left_out=max(len(with_results) - SUBJECTS_WITH_VOLUMES, 0),
        **{name: Markup((VIEWER / file).read_text(encoding="utf-8")) for name, file in PARTS.items()},
    )
    write_text(path, page)


def results(output_dir: Path, record: Mapping[str, Any], with_volumes: bool) -> dict[str, Any]:
    """What the page shows of a subject's folder; nothing where there is none.

    Returns:
        {"report": its JSON, "picture": PNG in base64, "panels": one per contrast, see `panels`}, and "fault", one line,
        where the scans or volumes cannot be read any more.
    """
    if record["status"] not in ("done", "skipped"):
        return {}
    folder = output_dir / record["subject"]
    shown: dict[str, Any] = {
        "report": json.loads((folder / f"{folder.name}.json").read_text(encoding="utf-8")),
        "picture": base64.b64encode((folder / f"{folder.name}_qc.png").read_bytes()).decode(),
        "panels": [],
    }
    try:
        if with_volumes:
            shown["panels"] = panels(folder, shown["report"])
    except (OSError, nib.filebasedimages.ImageFileError) as error:  # a scan was moved meanwhile: told on the page
        shown["fault"] = f"The volumes cannot be shown: {error}"
    return shown


def panels(folder: Path, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A subject's contrasts for the viewer, all on one grid: those given, then those made.

    Args:
        folder: the subject's results.
        report: their JSON.

    Returns:
        Per contrast {"contrast", "made": bool, "volume", "uncertainty"}: volumes as base64 of .nii.gz, or None. Their
        values are [0, 1] as of the results; a given scan is scaled by the percentiles that the network saw.
    """
    made = {name: read(folder / f"{folder.name}_{name}_synth.nii.gz") for name in report["targets"]}
    grid = grid_around(next(iter(made.values())))
    shown = []
    for name, (low, high) in ((n, scale.values()) for n, scale in report["input_intensities"].items()):
        scan = ((on_grid(read(Path(report["inputs"][name])), grid) - low) / (high - low)).clip(0, 1)
        volume = encode(scan, grid[1], top(scan))
        shown.append({"contrast": name, "made": False, "volume": volume, "uncertainty": None})
    for name, image in made.items():
        deviation = folder / f"{folder.name}_{name}_uncertainty.nii.gz"
        uncertainty = None
        if deviation.name in report["files"]:
            values = on_grid(read(deviation), grid)
            uncertainty = encode(values, grid[1], top(values))
        made_values = on_grid(image, grid)
        volume = encode(made_values, grid[1], top(made_values))
        shown.append({"contrast": name, "made": True, "volume": volume, "uncertainty": uncertainty})
    return shown


def read(path: Path) -> SpatialImage:
    """A volume of three axes."""
    return cast(SpatialImage, nib.funcs.squeeze_image(cast(SpatialImage, nib.load(path))))


def grid_around(image: SpatialImage) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a grid along R, A and S around what is not 0 in a volume, or around all of it."""
    inside = np.argwhere(np.asarray(image.dataobj) != 0)
    low, high = (inside.min(0), inside.max(0)) if len(inside) else (np.zeros(3), np.array(image.shape) - 1)
    box = np.stack([low, high])
    corners = np.stack(np.meshgrid(*box.T, indexing="ij"), axis=-1).reshape(-1, 3)
    world = apply_affine(image.affine, corners)
    first, last = world.min(0) - MARGIN, world.max(0) + MARGIN
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = first
    return tuple(int(n) for n in np.ceil((last - first) / VOXEL) + 1), affine


def on_grid(image: SpatialImage, grid: tuple[tuple[int, ...], np.ndarray]) -> np.ndarray:
    """Values of a volume on another grid, by linear interpolation; 0 beyond its borders."""
    return np.nan_to_num(resample_from_to(image, grid, order=1).get_fdata(dtype=np.float32))


def encode(values: np.ndarray, affine: np.ndarray, top: float) -> str:
    """Base64 of a .nii.gz of 256 steps from 0 to `top`; the slope in its header gives the values back."""
    image = nib.Nifti1Image(np.round(np.clip(values / top, 0, 1) * 255).astype(np.uint8), affine)
    image.header.set_slope_inter(top / 255, 0)
    image.header["cal_min"], image.header["cal_max"] = 0, top
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
