"""Label maps of heads in FreeSurfer's numbers, and lesion masks: what subjects are generated from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from bundle.errors import InputError

TISSUES = (
    "outside",
    "white matter",
    "cortex",
    "deep grey",
    "thalamus",
    "pallidum",
    "cerebellar white matter",
    "cerebellar cortex",
    "brain stem",
    "csf",
    "ventricle",
    "choroid plexus",
    "vessel",
    "lesion",
)
# FreeSurfer's numbers, left and right; every other number is outside the brain
FREESURFER = {
    "white matter": (2, 41, 85),
    "cortex": (3, 42, 17, 53, 18, 54),  # with hippocampus and amygdala
    "deep grey": (11, 50, 12, 51, 26, 58),
    "thalamus": (10, 49, 28, 60),
    "pallidum": (13, 52),
    "cerebellar white matter": (7, 46),
    "cerebellar cortex": (8, 47),
    "brain stem": (16,),
    "csf": (24,),
    "ventricle": (4, 43, 5, 44, 14, 15, 72),
    "choroid plexus": (31, 63),
    "vessel": (30, 62, 502, 514),
    "lesion": (25, 57),
}
SURROUND = ("outside", "csf", "vessel")  # not counted when the map is cut to the brain
MARGIN = 12  # mm kept around the brain
FAR = 7  # mm from the brain: vessels farther away belong to the scalp and the neck
SMALLEST_BRAIN = 500_000  # mm^3


def read_label_map(path: str | Path) -> np.ndarray:
    """Tissues of a head, cut to the brain and a margin.

    What the map lacks is added: the superior sagittal and the transverse sinuses, and the choroid plexus of the lateral
    ventricles.

    Args:
        path: NIfTI file of FreeSurfer numbers, voxels of 1 mm, any orientation.

    Returns:
        (X, Y, Z) uint8, RAS, 1 mm: indices of `TISSUES`.

    Raises:
        InputError: the file cannot be read, its voxels are not of 1 mm, or it shows no whole brain.
    """
    labels, spacing = _read(path)
    if not np.allclose(spacing, 1, atol=0.02):
        shown = " x ".join(f"{size:.3g}" for size in spacing)
        raise InputError(f"the voxels measure {shown} mm", "Resample the label map to 1 mm", path)
    table = np.zeros(max(int(labels.max()) + 1, 1000), np.uint8)
    for name, numbers in FREESURFER.items():
        table[list(numbers)] = TISSUES.index(name)
    tissues = table[labels]
    inside = ~np.isin(tissues, [TISSUES.index(name) for name in SURROUND])
    if inside.sum() < SMALLEST_BRAIN:
        raise InputError(
            f"FreeSurfer's labels of the brain cover {inside.sum() / 1000:.0f} ml",
            "Give a label map of a whole head in FreeSurfer's numbers",
            path,
        )
    wide, inside = np.pad(tissues, MARGIN), np.pad(inside, MARGIN)
    box = _box_around(inside)
    return _completed(wide[box], inside[box])


def read_lesion_mask(path: str | Path) -> np.ndarray:
    """A mask of lesions of any voxel size, brought to 1 mm.

    Args:
        path: NIfTI file, lesions above 0.

    Returns:
        (X, Y, Z) uint8, RAS, 1 mm, cut to the lesions: share of each voxel that is lesion, 255 is all of it.

    Raises:
        InputError: the file cannot be read, or it marks no lesion.
    """
    mask, spacing = _read(path)
    lesion = (mask > 0).astype(np.float32)
    if not lesion.any():
        raise InputError("marks no lesion", "Leave the mask out", path)
    softened = ndimage.gaussian_filter(lesion, [0.4 / size for size in spacing])
    share = ndimage.zoom(np.pad(softened, 2), spacing, order=1, grid_mode=True, mode="grid-constant")
    return np.round(255 * share[_box_around(share > 0.05, 1)]).astype(np.uint8)


def _read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers (X, Y, Z) in RAS, and the size of a voxel in mm (3,)."""
    try:
        image = nib.as_closest_canonical(nib.load(path))
        values = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise InputError(f"cannot be read as NIfTI ({error})", "Give a NIfTI file of labels", path) from error
    if values.ndim != 3 or values.min() < 0 or (values != np.round(values)).any():
        raise InputError("is no 3D map of labels 0, 1, 2 ...", "Give a NIfTI file of labels", path)
    return values.astype(np.int32), np.array(image.header.get_zooms()[:3], dtype=float)


def _box_around(inside: np.ndarray, margin: int = MARGIN) -> tuple[slice, ...]:
    """The part of an array that holds everything that is true, and a margin as far as there is one."""
    found = [np.flatnonzero(inside.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(max(0, where[0] - margin), where[-1] + 1 + margin) for where in found)


def _completed(tissues: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The tissues with sinuses and choroid plexus, and without the vessels far from the brain."""
    tissues = tissues.copy()
    vessel, plexus = TISSUES.index("vessel"), TISSUES.index("choroid plexus")
    distance = _distance(inside, tissues.shape)
    tissues[(tissues == vessel) & (distance > FAR)] = 0
    tissues[_sinuses(tissues, inside) & ~inside] = vessel
    if not (tissues == plexus).any():
        tissues[_plexus(tissues == TISSUES.index("ventricle"))] = plexus
    return tissues


def _distance(part: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Distance in mm to a part of the map, told from every second voxel: (X, Y, Z)."""
    coarse = ndimage.distance_transform_edt(~part[::2, ::2, ::2], sampling=2).astype(np.float32)
    for axis in range(3):
        coarse = coarse.repeat(2, axis)
    return coarse[: shape[0], : shape[1], : shape[2]]


def _sinuses(tissues: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Superior sagittal and transverse sinuses: on top of the brain in the midline, and where cerebellum meets cortex.

    The midline is a plane through thalami and brain stem.
    """
    stem = np.argwhere(np.isin(tissues, [TISSUES.index("brain stem"), TISSUES.index("thalamus")]))
    if not len(stem):
        return np.zeros_like(inside)
    x, y, z = np.meshgrid(*[np.arange(n) for n in tissues.shape], indexing="ij", sparse=True)
    middle = np.median(stem, axis=0)
    terms = np.column_stack([np.ones(len(stem)), stem[:, 1:] - middle[1:]])
    at, along_y, along_z = np.linalg.lstsq(terms, stem[:, 0], rcond=None)[0]
    plane = at + along_y * (y - middle[1]) + along_z * (z - middle[2])
    around = _distance(inside, tissues.shape) < 9
    hull = _distance(~around, tissues.shape) > 8  # clefts are filled
    depth = _distance(~hull, tissues.shape)
    sagittal = hull & (np.abs(x - plane) < 3) & (depth < 5) & (z > middle[2] + 25)
    cerebellum, cortex = (
        _distance(tissues == TISSUES.index(n), tissues.shape) for n in ("cerebellar cortex", "cortex")
    )
    transverse = (cerebellum < 4) & (cortex < 4) & (depth < 7) & (y < middle[1])
    return sagittal | transverse


def _plexus(ventricle: np.ndarray) -> np.ndarray:
    """Choroid plexus: strands in the back of the lateral ventricles, on their floor."""
    depth = ndimage.distance_transform_edt(ventricle)
    places = np.argwhere(depth > 1.5)
    if not len(places):
        return np.zeros_like(ventricle)
    back, front = np.percentile(places[:, 1], (12, 45))
    floor = np.percentile(places[:, 2], 60)
    where = np.zeros_like(ventricle)
    where[:, int(back) : int(front), : int(floor)] = True
    return where & (depth > 1.5) & (depth < 3.5)
