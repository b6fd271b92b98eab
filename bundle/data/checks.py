"""Whether a scan can be used: first by its header alone, then by its voxels."""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel import imageglobals
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage

from bundle.data.background import Background, Border, find_background
from bundle.data.discovery import scan_keys
from bundle.errors import InputError

MAX_AXIS, MAX_VOXELS = 2048, 2**29  # 2 GB as float32
MAX_DEFLATION = 1100  # gzip packs zeros by 1032 at most
MIN_VOXEL_MM, MAX_VOXEL_MM = 0.05, 50.0
MAX_FIELD_MM = 1000.0  # along an axis: the network's grid has a voxel for every millimetre
MAX_SHEAR = 0.01  # of the voxel's volume to that of a box with the same edges: below, the axes lie in one plane
SAME_PLACE_MM = 1.0
MAX_NONFINITE = 0.01  # of all voxels; more is no accident
MAX_OVERSHOOT = 0.02  # the negative intensities' sum, of the positive ones'; more is a scale with negative numbers
MIN_BELOW = 0.2  # the same, of all that differ from the background: more is a brain on both sides of it, or below
WIDEST_GAP = 0.75  # between background and brain, of the brain's extent of intensities: below it a scan was shifted
ROOM = 0.02  # of the range of intensities, between such a brain when it is raised and the 0 around it
MIN_BRAIN_ML, WHOLE_HEAD_ML = 250, 1000

WRITE_AGAIN = "Write it again as a 3-D NIfTI file from its source"

NIFTI_MAGIC = {Nifti1Header: (344, b"n+1"), Nifti2Header: (4, b"n+2")}  # where it stands in the file
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Header:
    """What is needed of a scan's header.

    Attributes:
        shape: voxels along the three axes.
        affine: (4, 4) float64, voxel indices to mm in RAS; the sform, else the qform.
        notes: what the user should know was made of the header, one line each.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    notes: tuple[str, ...]

    @property
    def voxel_ml(self) -> float:
        """A voxel's volume in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def check_header(path: str | Path) -> Header:
    """Check a NIfTI file without reading its voxels, nor memory for them.

    Raises:
        InputError: the file is missing, empty, truncated, no NIfTI file or not compressed as its name says; its image
            is not 3-D (a fourth axis of length 1 is let pass), is a single slice, has no plain numbers or more of them
            than can be; its affine is singular, or has voxels or a field of view of no brain; its two affines disagree,
            other than by a shear, which the qform cannot hold.
    """
    path = Path(path)
    header, raw, repairs = _read_header(path)
    shape, squeezed = _checked_shape(header, path)
    _check_size(header, path)
    affine = _checked_affine(header, raw, path)

    notes = [f"{path.name}: {line}" for line in (*repairs, *_check_agreement(header, shape, path))]
    if squeezed:
        notes.append(f"{path.name}: axes of length 1 after the third were dropped")
    slope, intercept = header.get_slope_inter()
    if slope is not None and (slope, intercept) != (1, 0):
        notes.append(f"{path.name}: the header's scaling was applied (slope {slope:g}, intercept {intercept:g})")
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        notes.append(f"{path.name}: the header does not tell the orientation (sform and qform codes 0), taken as LAS")
    elif not np.allclose(np.linalg.norm(affine[:3, :3], axis=0), header["pixdim"][1:4], rtol=0.01):
        notes.append(f"{path.name}: the affine's voxel sizes were used, pixdim has others")
    return Header(shape, affine, tuple(notes))


def check_image(slabs: Iterable[np.ndarray], path: str | Path) -> tuple[list[str], Background]:
    """Check a scan's voxels, repair those that are not finite, and find what brings the scan to its plain form.

    The plain form has 0 in the background and the brain above it. Below it are then at most a few small voxels, as a
    spline's overshoot is, which become 0. Where a brain of z-scores lies on both sides of its constant background, or
    below it, the whole brain is raised above it. A constant background below 0, and far below the brain, is raised to
    just below the brain, at most to 0.

    Args:
        slabs: the scan's voxels, float32, all at once or in parts; gone through several times, and repaired in place,
            see `mend`.
        path: its file, for the messages.

    Returns:
        One line for each repair, and the background.

    Raises:
        InputError: many voxels are not finite, or all have one value.
    """
    path, lines = Path(path), []
    found = _survey(slabs)
    if found.broken > MAX_NONFINITE * found.size:
        share = "all" if found.broken == found.size else f"{100 * found.broken / found.size:.3g} % of the"
        remedy = "Write it again; if NaN stands for the background, as 0"
        raise InputError(f"{share} voxels are NaN or infinite", remedy, path)
    if found.broken:
        lines.append(f"{path.name}: {found.broken} voxels were NaN or infinite, repaired from their neighbours")
    if found.lowest == found.highest:
        what = "all voxels are 0" if found.lowest == 0 else f"all voxels have one value, {found.lowest:g}"
        raise InputError(f"{what}: there is no image in it", WRITE_AGAIN, path)
    background, constant = find_background(found.border.voxels, found.lowest, found.highest)
    if background.value:
        lines.append(f"{path.name}: the background is {background.value:.6g} in the file, taken as 0")
        found = _survey(slabs, background.value, background.equal)
    if 0 < found.undershoot <= MAX_OVERSHOOT * found.total:
        what = f"{found.negative} voxels were below 0" if not background.value else f"{found.negative} were below that"
        lines.append(f"{path.name}: {what}, as a spline overshoots (down to {found.lowest:.4g}), set to 0")
        return lines, replace(background, overshoots=True)
    if constant and found.undershoot > MIN_BELOW * (found.undershoot + found.total):
        room = ROOM * (found.highest - found.lowest)
        return lines, replace(background, offset=background.value + found.lowest - room)
    if constant and background.value < 0:
        # Between such a background and a brain far above it, resampling would make a boundary of intensities that are
        # in neither. A scan that was shifted as a whole has its brain below 0 and no such gap: it is shifted back.
        extent = found.highest - found.least
        if background.value + found.least >= 0 or found.least > WIDEST_GAP * extent:
            raised = max(background.value, min(0.0, background.value + found.least - ROOM * extent))
            return lines, replace(background, offset=raised, overshoots=True)
    return lines, background


@dataclass
class _Survey:
    """Numbers of a scan's voxels relative to its background: sums and counts of those below it, and above.

    `least` is the lowest of those above.
    """

    size: int = 0
    broken: int = 0
    negative: int = 0
    lowest: float = np.inf
    least: float = np.inf
    highest: float = -np.inf
    undershoot: float = 0.0
    total: float = 0.0
    border: Border = field(default_factory=Border)


def _survey(slabs: Iterable[np.ndarray], background: float = 0.0, equal: float = 0.0) -> _Survey:
    found = _Survey()
    for slab in slabs:
        found.size += slab.size
        found.broken += mend(slab)
        found.border.add(slab)
        voxels = slab - np.float32(background) if background else slab
        found.lowest, found.highest = min(found.lowest, float(voxels.min())), max(found.highest, float(voxels.max()))
        found.least = min(found.least, float(voxels.min(where=voxels > equal, initial=np.inf)))
        below = voxels < 0
        found.negative += int(below.sum())
        found.undershoot -= voxels.sum(where=below, dtype=np.float64)
        found.total += voxels.sum(where=~below, dtype=np.float64)
    return found


def mend(voxels: np.ndarray) -> int:
    """Give voxels that are not finite the nearest finite one's value, in place; how many they are.

    Where none is finite all stay as they are.
    """
    broken = ~np.isfinite(voxels)
    count = int(broken.sum())
    if 0 < count < voxels.size:
        nearest = ndimage.distance_transform_edt(broken, return_distances=False, return_indices=True)
        voxels[broken] = voxels[tuple(axis[broken] for axis in nearest)]
    return count


def check_label(slabs: Iterable[np.ndarray], path: str | Path) -> None:
    """Check a label map's voxels.

    Args:
        slabs: all of them at once or in parts.
        path: its file, for the message.

    Raises:
        InputError: they are not all whole numbers from 0.
    """
    count, example = 0, 0.0
    for voxels in slabs:
        wrong = voxels[~(np.isfinite(voxels) & (voxels >= 0) & (voxels == np.rint(voxels)))]
        count, example = count + wrong.size, float(wrong[0]) if wrong.size else example
    if count:
        remedy = "Write whole numbers, and resample labels by nearest neighbour"
        raise InputError(f"{count} voxels are no labels, such as {example:.4g}", remedy, path)


def check_mask(slabs: Iterable[np.ndarray], voxel_ml: float, path: str | Path) -> str | None:
    """Why what is named as a brain mask cannot be one, in a line; None if it can.

    Args:
        slabs: (X, Y, Z), inside where above 0, at once or in parts.
        voxel_ml: a voxel's volume in ml.
        path: its file, for the message.
    """
    counts = [(np.count_nonzero(voxels > 0), voxels.size) for voxels in slabs]
    inside, whole = (voxel_ml * sum(numbers) for numbers in zip(*counts))
    if inside == 0:
        return f"{Path(path).name}: is empty, not used as the brain mask"
    if inside < MIN_BRAIN_ML and whole > WHOLE_HEAD_ML:
        return f"{Path(path).name}: covers {inside:.3g} ml, which is no brain, not used as the brain mask"
    return None


def check_subjects(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The datalist after a look at every file's header, before any work starts.

    A subject with a scan that cannot be used gets "fault", the others stay as they are. A label map or a mask that
    cannot be used is dropped with a warning, and so is what lies elsewhere by its affine: a mask that is on no scan's
    grid, a label map that has a scan's shape but no scan's affine.
    """
    return [dict(item) if "fault" in item else _checked(item) for item in items]


def _checked(item: Mapping[str, Any]) -> dict[str, Any]:
    checked = {**item, "warnings": list(item.get("warnings", []))}
    beside = [key for key in ("label", "mask") if key in item]
    try:
        scans = [check_header(item[key]) for key in scan_keys(item) if key not in beside]
    except InputError as error:
        return {**checked, "fault": str(error)}
    for key in beside:
        try:
            header = check_header(item[key])
        except InputError as error:
            reason = str(error)
        else:
            same_shape = any(header.shape == scan.shape for scan in scans)
            if any(_same_grid(header, scan) for scan in scans) or (key == "label" and not same_shape):
                continue
            reason = f"{item[key]}: is not where the scans are by its affine"
        checked["warnings"].append(f"{key} not used: {reason}")
        del checked[key]
    return checked


def load_nifti(path: str | Path, keep_file_open: bool | None = None) -> Nifti1Image:
    """The image of a file that `check_header` lets pass; what nibabel repairs in its header is told there, not here."""
    imageglobals.logger.addFilter(_nothing)  # its own suppressor leaves Python's last resort, stderr
    try:
        return cast(Nifti1Image, nibabel.load(path, keep_file_open=keep_file_open))
    finally:
        imageglobals.logger.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False


def _read_header(path: Path) -> tuple[Nifti1Header, Nifti1Header, list[str]]:
    """The header as nibabel reads it, as it is in the file, and what nibabel repaired, one line each."""
    if not path.is_file():
        reason = "is a link to a file that is not there" if path.is_symlink() else "does not exist"
        raise InputError(reason, "Fetch the file, or leave this scan out", path)
    if path.stat().st_size == 0:
        raise InputError("is empty (0 bytes)", "Copy or download it again", path)
    try:
        with _opened(path) as stream:
            block = stream.read(Nifti2Header.sizeof_hdr)
    except EOFError as error:
        raise _truncated(path) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        remedy = "Name an uncompressed file .nii, else copy or download it again"
        raise InputError(f"is no gzip file ({error})", remedy, path) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", "Make the file readable", path) from error

    if block.startswith(GZIP_MAGIC):
        raise _wrongly_compressed(path)
    kinds = [kind for kind, (place, magic) in NIFTI_MAGIC.items() if block[place : place + 3] == magic]
    if not kinds or len(block) < kinds[0].sizeof_hdr:
        raise InputError("is not a NIfTI file", "Convert it to NIfTI (.nii.gz), e.g. with dcm2niix", path)
    (kind,) = kinds
    block = block[: kind.sizeof_hdr]
    raw, header, log = kind(block, check=False), kind(block, check=False), _Lines()
    try:
        header.check_fix(logger=log, error_level=imageglobals.error_level)
    except HeaderDataError as error:
        raise InputError(f"has a header that is not valid ({error})", WRITE_AGAIN, path) from error
    return header, raw, log.lines


def _wrongly_compressed(path: Path) -> InputError:
    """The fault of a file that is still a gzip file after it was read as its name says."""
    name = path.name[: path.name.lower().rindex(".gz")] if path.name.lower().endswith(".gz") else path.name
    if name == path.name:
        return InputError("is compressed by gzip, but its name does not say so", f"Rename it to {name}.gz", path)
    remedy = f"Run gunzip on it once, then rename the resulting {name} to {name}.gz"
    return InputError("is compressed by gzip twice", remedy, path)


class _Lines(logging.Logger):
    """Keeps what is logged at the level from which nibabel would print it."""

    def __init__(self) -> None:
        super().__init__("nibabel header", logging.WARNING)
        self.lines: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines.append(f"the header was repaired: {record.getMessage()}")


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _truncated(path: Path) -> InputError:
    fault = "is truncated: the file ends before the image that its header tells of"
    return InputError(fault, "Copy or download it again", path)


def _checked_shape(header: Nifti1Header, path: Path) -> tuple[tuple[int, int, int], bool]:
    """The three lengths, and whether axes of length 1 come after them."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "colours (RGB)" if dtype.names else "complex numbers" if dtype.kind == "c" else str(dtype)
        raise InputError(f"has {what} for voxels", "Give one real number per voxel, e.g. the magnitude", path)
    axes = int(header["dim"][0])
    dims = [int(length) for length in header["dim"][1 : axes + 1]]
    shown = " x ".join(map(str, dims))
    if min(dims, default=0) < 1 or max(dims) > MAX_AXIS or np.prod(dims, dtype=np.float64) > MAX_VOXELS:
        raise InputError(f"has a header that claims {shown} voxels", WRITE_AGAIN, path)
    if len(dims) < 3:
        raise InputError(f"is {len(dims)}-D ({shown})", "Give the whole 3-D volume", path)
    if max(dims[3:], default=1) > 1:
        remedy = "Split it into one 3-D file per contrast or frame (e.g. with fslsplit), and give the one that is meant"
        raise InputError(f"is {len(dims)}-D ({shown})", remedy, path)
    if min(dims[:3]) < 2:
        raise InputError(f"is a single slice ({shown})", "Give the whole 3-D volume", path)
    return (dims[0], dims[1], dims[2]), len(dims) > 3


def _check_size(header: Nifti1Header, path: Path) -> None:
    """Whether the voxels that the header tells of can be in the file."""
    voxels = int(np.prod(header.get_data_shape(), dtype=np.int64))
    needed = int(header["vox_offset"]) + voxels * header.get_data_dtype().itemsize
    size = path.stat().st_size
    if not path.name.lower().endswith(".gz"):
        if size < needed:
            raise _truncated(path)
        return
    if needed > MAX_DEFLATION * size:
        raise _truncated(path)
    with path.open("rb") as stream:  # a gzip file ends with the length of its (last) content modulo 2 ** 32
        stream.seek(-4, os.SEEK_END)
        told = int.from_bytes(stream.read(4), "little")
    if told != needed % 2**32 and not _inflates_to(path, needed):
        raise _truncated(path)


def _inflates_to(path: Path, needed: int) -> bool:
    """Whether a gzip file has that many bytes; by inflating it, a piece at a time."""
    try:
        with gzip.open(path) as stream:
            while needed > 0 and (piece := stream.read(min(needed, 1 << 20))):
                needed -= len(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return needed <= 0


def _checked_affine(header: Nifti1Header, raw: Nifti1Header, path: Path) -> np.ndarray:
    remedy = "Write it again from its source, with the scanner's orientation"
    if raw["sform_code"] <= 0 and not np.all(raw["pixdim"][1:4]):
        raise InputError("has a voxel size of 0 in its header", remedy, path)
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"has an invalid qform ({error})", remedy, path) from error
    if not np.all(np.isfinite(affine)):
        raise InputError("has an affine with NaN or infinite numbers", remedy, path)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if np.all(sizes == 0):
        raise InputError("has an affine of zeros", remedy, path)
    if np.any(sizes == 0) or abs(np.linalg.det(affine[:3, :3])) < MAX_SHEAR * np.prod(sizes):
        raise InputError("has a singular affine: its axes lie in one plane", remedy, path)
    if sizes.min() < MIN_VOXEL_MM or sizes.max() > MAX_VOXEL_MM:
        shown = " x ".join(f"{size:.3g}" for size in sizes)
        raise InputError(f"has voxels of {shown} mm, which no brain scan has", remedy, path)
    field = sizes * header.get_data_shape()[:3]
    if field.max() > MAX_FIELD_MM:
        shown = " x ".join(f"{length:.4g}" for length in field)
        raise InputError(f"has a field of view of {shown} mm, which no brain scan has", remedy, path)
    return affine


def _check_agreement(header: Nifti1Header, shape: tuple[int, int, int], path: Path) -> list[str]:
    """Whether sform and qform, where both are set, put the image's corners in one place; what is to be said if not.

    A qform has no shear, nor does every program write a valid one: then the sform counts, as programs read it first.
    """
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except ValueError as error:  # of `_checked_affine` where there is no sform
        return [f"the qform is not valid ({error}), the sform was used"]
    if sform is None or qform is None:
        return []
    apart = _apart(shape, sform, qform)
    if apart <= SAME_PLACE_MM:
        return []
    unsheared = header.copy()
    unsheared.set_qform(sform, 1)
    if _apart(shape, unsheared.get_qform(), qform) <= SAME_PLACE_MM:
        return [f"the sform is sheared, the qform cannot be and differs by {apart:.3g} mm: the sform was used"]
    raise InputError(
        f"has a sform and a qform that disagree by {apart:.3g} mm, so that programs see it in different places",
        "Set both to the right one, e.g. in nibabel: image.set_qform(image.get_sform()) and save",
        path,
    )


def _apart(shape: tuple[int, int, int], one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance along an axis between an image's corners by two affines, in mm; NaN where one has NaN."""
    return float(np.abs(_corners(shape, one) - _corners(shape, other)).max())


def _same_grid(one: Header, other: Header) -> bool:
    if one.shape != other.shape:
        return False
    return _apart(one.shape, one.affine, other.affine) <= SAME_PLACE_MM


def _corners(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """(8, 3) mm."""
    indices = np.array(list(product(*((0, length - 1) for length in shape))))
    return np.asarray(indices @ affine[:3, :3].T + affine[:3, 3])
