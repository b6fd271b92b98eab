"""Scans of a made-up head whose brightness is a known function of the place in the scanner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

RADII = np.array([30.0, 40.0, 26.0])  # of the brain, an ellipsoid, in mm
CENTRE = np.array([4.0, -7.0, 11.0])


def brightness(world: np.ndarray) -> np.ndarray:
    """Value in [100, 500] at places ``(..., 3)`` in mm; smooth, and the same under no flip or exchange of axes."""
    x, y, z = np.moveaxis(world - CENTRE, -1, 0) * (2 * np.pi / 90)
    return 300 + 80 * np.sin(x + 0.3) + 70 * np.sin(1.3 * y - 0.5) + 50 * np.sin(1.6 * z + 0.9)


def within(world: np.ndarray, share: float = 1.0) -> np.ndarray:
    """Whether places lie in the brain, or in an ellipsoid that much smaller or larger."""
    inside: np.ndarray = (((world - CENTRE) / RADII) ** 2).sum(-1) < share**2
    return inside


def world_of(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Places ``(*shape, 3)`` of the voxels of a grid, in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def affine_of(
    shape: Sequence[int], spacing: Sequence[float], axes: str = "RAS", degrees: Sequence[float] = (0, 0)
) -> np.ndarray:
    """Affine of a grid centred on the brain: its axes point to `axes`, then it is turned about z and x by `degrees`."""
    turn = nib.orientations.axcodes2ornt(axes)
    axis = np.zeros((3, 3))
    for voxel, (scanner, sign) in enumerate(turn):
        axis[int(scanner), voxel] = sign
    a, b = np.radians(degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ axis @ np.diag(spacing)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def scan(shape: Sequence[int], affine: np.ndarray, gain: float = 1.0) -> nib.Nifti1Image:
    """A skull-stripped scan on a grid, as int16, with qform and sform in scanner coordinates and millimetres."""
    world = world_of(shape, affine)
    values = np.round(gain * brightness(world) * within(world)).astype(np.int16)
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return image


def write_subject(
    folder: Path, contrasts: Sequence[str], shape: Sequence[int], affine: np.ndarray, name: str = ""
) -> dict[str, str]:
    """Write scans of a subject on one grid; their paths by contrast."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {contrast: str(folder / f"{name or folder.name}_{contrast}.nii.gz") for contrast in contrasts}
    for number, path in enumerate(paths.values()):
        nib.save(scan(shape, affine, gain=1 + number / 2), path)
    return paths


def write_exam(folder: Path, volumes: Mapping[str, np.ndarray], affine: np.ndarray) -> dict[str, str]:
    """Write volumes in RAS, their first axis turned as a scanner may, as an exam; its item of `find_subjects`."""
    item = {"subject": "one", "label_convention": "brats"}
    for name, values in volumes.items():
        item[name] = str(folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(values, affine).as_reoriented([[0, -1], [1, 1], [2, 1]]), item[name])
    return item
