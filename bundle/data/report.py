"""A page per run of the inference: what became of every subject, with a viewer of its volumes, in one file."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from monai.transforms import generate_spatial_bounding_box
from nibabel.affines import apply_affine

from bundle import __version__
from bundle.data.background import Background
from bundle.data.checks import check_image
from bundle.data.output import write_text
from bundle.data.qc import top
from bundle.data.scan_file import ScanFile, slabs
from bundle.errors import InputError

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
    except (OSError, InputError) as error:  # a scan was moved meanwhile: told on the page
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

    def result(name: str, ending: str) -> Path:
        return folder / f"{folder.name}_{name}_{ending}.nii.gz"

    grid = grid_around(result(report["targets"][0], "synth"))
    shown = []
    for name, (low, high) in ((n, scale.values()) for n, scale in report["input_intensities"].items()):
        path = report["inputs"][name]
        background = check_image(ScanFile(path), path)[1]
        scan = ((on_grid(path, grid, background) + background.offset - low) / (high - low)).clip(0, 1)
        volume = encode(scan, grid[1], top(scan))
        shown.append({"contrast": name, "made": False, "volume": volume, "uncertainty": None})
    for name in report["targets"]:
        uncertainty = None
        if result(name, "uncertainty").name in report["files"]:
            values = on_grid(result(name, "uncertainty"), grid)
            uncertainty = encode(values, grid[1], top(values))
        made = on_grid(result(name, "synth"), grid)
        shown.append(
            {"contrast": name, "made": True, "volume": encode(made, grid[1], top(made)), "uncertainty": uncertainty}
        )
    return shown


def grid_around(path: str | Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of a grid along R, A and S around what is not 0 in a volume, or around all of it."""
    scan = ScanFile(path)
    corners = [np.zeros(3), np.array(scan.shape[1:]) - 1]
    boxes = []
    for (start, _), slab in zip(slabs(scan.shape[1:]), scan.slabs(), strict=True):
        low, beyond = generate_spatial_bounding_box(slab[None])
        if any(beyond):
            boxes += [np.add(low, (0, 0, start)), np.add(beyond, (-1, -1, start - 1))]
    if boxes:
        corners = [np.min(boxes, axis=0), np.max(boxes, axis=0)]
    ends = np.stack(np.meshgrid(*np.transpose(corners), indexing="ij"), axis=-1).reshape(-1, 3)
    world = apply_affine(scan.affine.numpy(), ends)
    first, last = world.min(0) - MARGIN, world.max(0) + MARGIN
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = first
    return tuple(int(n) for n in np.ceil((last - first) / VOXEL) + 1), affine


def on_grid(
    path: str | Path, grid: tuple[tuple[int, ...], np.ndarray], background: Background | None = None
) -> np.ndarray:
    """Values of a volume, or of a scan without its background, on another grid (linear); 0 beyond its borders."""
    shape, affine = grid
    volume = ScanFile(path)
    volume.background = background
    return np.nan_to_num(volume.onto(torch.as_tensor(affine), shape)[0].numpy())


def encode(values: np.ndarray, affine: np.ndarray, top: float) -> str:
    """Base64 of a .nii.gz of 256 steps from 0 to `top`; the slope in its header gives the values back."""
    image = nib.Nifti1Image(np.round(np.clip(values / top, 0, 1) * 255).astype(np.uint8), affine)
    image.header.set_slope_inter(top / 255, 0)
    image.header["cal_min"], image.header["cal_max"] = 0, top
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
