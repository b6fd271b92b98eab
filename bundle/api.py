"""The bundle as one Python function: the scans of a subject in, its missing contrasts out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias, cast

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike

from bundle.data.checks import check_header
from bundle.engines.options import SynthesisOptions
from bundle.engines.synthesis import SynthesisEvaluator
from bundle.errors import InputError, input_error_in

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "inference.json"
SUBJECT = "subject"

FilePath: TypeAlias = str | os.PathLike[str]
Scan: TypeAlias = FilePath | SpatialImage | tuple[ArrayLike, ArrayLike]


def synthesise(
    *,
    t1: Scan | None = None,
    t1ce: Scan | None = None,
    t2: Scan | None = None,
    flair: Scan | None = None,
    mask: Scan | None = None,
    targets: Sequence[str] | str | None = None,
    mode: str = "mean",
    num_samples: int = 1,
    num_steps: int | None = None,
    start_level: float | None = None,
    seed: int = 0,
    mirrored: bool = False,
    three_planes: bool = False,
    weights: FilePath | None = None,
    config_file: FilePath | Sequence[FilePath] = CONFIG,
    device: str | torch.device | None = None,
) -> dict[str, nib.Nifti1Image]:
    """Synthesise the contrasts that one subject lacks.

    The result is, voxel for voxel, what `run inference` writes for the same scans and options: the same config makes
    the same engine. Images in memory, and the results, pass through a temporary folder. What the command notes as
    warnings in its sidecar is issued here as a `UserWarning` each.

    Args:
        t1, t1ce, t2, flair: the scans that exist, at least one: the path of a NIfTI file, a nibabel image, or a pair of
            an array (X, Y, Z) and its affine (4, 4), voxel indices to mm in RAS.
        mask: a brain mask in one of these forms, inside where above 0; without it the brain is what is not background.
        targets: contrasts to make, also where they are given (they are then hidden from the network); None: those that
            are missing.
        mode: "mean", the expected image, or "sample", a sample of the diffusion model.
        num_samples: diffusion samples; above 1 "mean" is their average, and both modes give their deviation.
        num_steps: denoising steps of a sample; None: as the config says.
        start_level: noise level in (0, 1] at which denoising starts; None: as the config says.
        seed: of the first sample, at least 0.
        mirrored: take the mean over slices and their mirror images; a bit better, and takes longer.
        three_planes: take the mean over axial, coronal and sagittal slices; better, and takes longer still.
        weights: file of the network's weights; None: models/model.pt of the bundle that the config belongs to.
        config_file: the inference config, or several that are merged in order, as of a network of another size. It can
            run code: take it only from a source that you trust.
        device: where to compute; None: the first CUDA device, else the CPU.

    Returns:
        By contrast, the volume that was made: float32 in [0, 1], 0 outside the brain, on the grid of the first given
        contrast in the order t1, t1ce, t2, flair. With several samples also "<contrast>_uncertainty", their voxel-wise
        standard deviation. Empty where nothing is missing.

    Raises:
        InputError: a scan, the weights or an option cannot be used.

    Example:
        >>> made = synthesise(t1="t1.nii.gz", t2="t2.nii.gz")  # doctest: +SKIP
        >>> made["flair"].shape  # doctest: +SKIP
        (240, 240, 155)
    """
    given = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair, "mask": mask}
    chosen: dict[str, Any] = {"targets": targets, "mode": mode, "num_samples": num_samples}
    chosen |= {"seed": seed, "mirrored": mirrored, "three_planes": three_planes}
    chosen |= {"num_steps": num_steps} if num_steps is not None else {}
    chosen |= {"start_level": start_level} if start_level is not None else {}
    # the network is made with random weights before its own are loaded: the caller's random numbers stay as they are
    with TemporaryDirectory(prefix="synthesise-") as folder, torch.random.fork_rng(devices=[]):
        try:
            files = {name: as_file(name, scan, Path(folder)) for name, scan in given.items() if scan is not None}
            for path in files.values():
                check_header(path)
            evaluator = make_evaluator(files, chosen, weights, config_file, device, Path(folder) / "results")
            record = evaluator.process(0, evaluator.dataset.data[0])
        except Exception as error:
            fault = input_error_in(error)  # which MONAI has wrapped, if a transform or a part of the config raised it
            if fault is None:
                raise
            # an image in memory is told by its contrast: the temporary file that it went through is gone
            raise InputError(*(part and str(part).replace(f"{folder}{os.sep}", "") for part in fault.args)) from error
        for line in record.get("warnings", ()):
            warnings.warn(line.replace(f"{folder}{os.sep}", ""), stacklevel=2)
        return read_results(evaluator.output_dir / SUBJECT, record.get("made", ()))


def make_evaluator(
    files: Mapping[str, str],
    chosen: Mapping[str, Any],
    weights: FilePath | None,
    config_file: FilePath | Sequence[FilePath],
    device: str | torch.device | None,
    output_dir: Path,
) -> SynthesisEvaluator:
    """The engine of the inference config, for one subject.

    Args:
        files: contrast, or "mask", -> path.
        chosen: the fields of `SynthesisOptions` that differ from the config's.
        weights, config_file, device: see `synthesise`.
        output_dir: where results go.

    Raises:
        InputError: an option, or what the config names, cannot be used.
    """
    configs = (
        [Path(config_file)] if isinstance(config_file, str | os.PathLike) else [Path(file) for file in config_file]
    )
    for path in configs:
        if not path.is_file():
            raise InputError("the config is missing", "Name configs/inference.json of the bundle as config_file", path)
    parser = ConfigParser()
    parser.read_config(configs)
    options: SynthesisOptions = replace(parser.get_parsed_content("options"), **chosen)
    unknown = [name for name in files if name not in (*options.contrasts, "mask")]
    if unknown:
        remedy = f"Give some of {', '.join(options.contrasts)}"
        raise InputError(f"{', '.join(unknown)}: not a contrast of this network", remedy)
    # Objects, not text: MONAI's config language evaluates text that begins with $, @ or %, and replaces every # in it.
    parser.update(
        {
            "options": options,
            "dataset#data#items": ({"subject": SUBJECT, "warnings": [], **files},),
            "dataset_dir": output_dir.parent / "scans",
            "output_dir": output_dir,
            "weights": configs[0].resolve().parents[1] / "models" / "model.pt" if weights is None else Path(weights),
        }
    )
    if device is not None:
        parser.update({"device": known_device(device)})
    return cast(SynthesisEvaluator, parser.get_parsed_content("evaluator"))


def as_file(name: str, scan: Scan, folder: Path) -> str:
    """The path of a scan; one in memory is written into the folder first.

    Raises:
        InputError: it is neither a path nor an image.
    """
    if isinstance(scan, str | os.PathLike):
        return str(Path(scan).expanduser())
    path = folder / f"{name}.nii"
    nib.save(as_image(name, scan), path)
    return str(path)


def as_image(name: str, scan: SpatialImage | tuple[ArrayLike, ArrayLike]) -> nib.Nifti1Image:
    """A scan in memory as NIfTI, its voxels as float32: what the bundle's reader would make of it from a file.

    Raises:
        InputError: it is no image, or one without real numbers or without a place.
    """
    values: Any
    place: Any
    if isinstance(scan, SpatialImage):
        values, place = scan.dataobj, scan.affine
    elif isinstance(scan, tuple) and len(scan) == 2:
        values, place = scan
    else:
        remedy = "Give a path, a nibabel image or a pair (array, affine)"
        raise InputError(f"{name} is of type {type(scan).__name__}, which is no scan", remedy)
    voxels, affine = np.asanyarray(values), np.asanyarray(place)
    if voxels.dtype.kind not in "biuf":
        remedy = "Give one real number per voxel, e.g. the magnitude"
        raise InputError(f"{name} has voxels of type {voxels.dtype}", remedy)
    if not is_affine(affine):
        remedy = "Give the invertible matrix (4, 4) from voxel indices to mm, its last row 0, 0, 0, 1"
        raise InputError(f"{name} has an affine that is none", remedy)
    if not isinstance(scan, nib.Nifti1Image):
        image = nib.Nifti1Image(voxels.astype(np.float32), affine)
        image.header.set_xyzt_units("mm")
        return image
    header = scan.header.copy()  # its codes of qform and sform
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    return type(scan)(voxels.astype(np.float32), affine, header)


def is_affine(matrix: np.ndarray) -> bool:
    """Whether a matrix gives every voxel a place of its own."""
    if matrix.shape != (4, 4) or matrix.dtype.kind not in "iuf" or not np.isfinite(matrix).all():
        return False
    return np.array_equal(matrix[3], [0, 0, 0, 1]) and bool(np.linalg.det(matrix[:3, :3]))


def read_results(folder: Path, made: Sequence[str]) -> dict[str, nib.Nifti1Image]:
    """The volumes of a subject's folder, in memory: the synthesised ones by contrast, then their uncertainty."""
    images = {}
    for ending, key in (("synth", "{}"), ("uncertainty", "{}_uncertainty")):
        for name in made:
            path = folder / f"{folder.name}_{name}_{ending}.nii.gz"
            if path.is_file():
                image = cast(nib.Nifti1Image, nib.load(path))
                images[key.format(name)] = type(image)(np.asanyarray(image.dataobj), image.affine, image.header)
    return images


def known_device(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        InputError: there is none.
    """
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is unknown", "Use 'cpu' or 'cuda:0'") from error
    if known.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {str(known)!r} cannot be used: there is no CUDA here", "Use 'cpu', or leave it out")
    return known
