"""Write generated subjects: a training folder, or the demo's scans with their withheld truth.

    python -m scripts.make_subjects --output_dir OUT --subjects 20
    python -m scripts.make_subjects --output_dir OUT --subjects 20 --like SUBJECTS --split_file SPLIT
    python -m scripts.make_subjects --output_dir OUT --subjects 20 --intensities_of SUBJECTS --split_file SPLIT
    python -m scripts.make_subjects --output_dir OUT --subjects 20 --label_maps MAPS --lesion_masks MASKS

With --like they have the anatomy and the lesions of real exams, those of the split's training part, in another shape
and imaged by another scanner. With --intensities_of those tissues that real exams show are as bright as there, not
as the signal equations say. Both may be given. They are derived from these exams, whose licences and privacy are
theirs too.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tqdm import tqdm

from bundle.data.anatomy import Template
from bundle.data.checks import check_subjects
from bundle.data.discovery import find_subjects
from bundle.data.real_anatomy import read_anatomy
from bundle.data.real_signal import Signals, draw_signals, read_signals
from bundle.data.simulate import CONTRASTS, Lesion, lost_slices, simulate
from bundle.data.splits import apply_split, load_split
from bundle.errors import InputError, input_error_in, report_plainly
from bundle.phantoms.generate import Drawn, draw_subject
from bundle.phantoms.label_maps import read_label_map, read_lesion_mask

BRATS_2023 = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f"}
CANVAS = (240, 240, 155)  # the grid of BraTS
T = TypeVar("T")


@dataclass(frozen=True)
class DemoSubject:
    """One subject of the demo.

    Attributes:
        name: of the subject.
        lesion: which kind it has.
        given: contrast -> file of the scan, relative to the scans' folder; the other contrasts are withheld.
        orientation: axis codes of the files.
        thickness: of the slices along the files' last axis, in whole mm.
    """

    name: str
    lesion: Lesion
    given: dict[str, str]
    orientation: str = "RAS"
    thickness: int = 1


DEMO = (
    DemoSubject(
        "DEMO-001",
        "tumour",
        {"t1": "DEMO-001/DEMO-001-t1n", "t2": "DEMO-001/DEMO-001-t2w", "flair": "DEMO-001/DEMO-001-t2f"},
        orientation="LPS",
    ),
    DemoSubject(
        "DEMO-002",
        "plaques",
        {"t2": "DEMO-002/DEMO-002_t2", "flair": "DEMO-002/DEMO-002_flair"},
    ),
    DemoSubject(
        "sub-003",
        "plaques",
        {"t1": "sub-003/anat/sub-003_T1w", "t1ce": "sub-003/anat/sub-003_ce-gadolinium_T1w"},
        orientation="PIR",
        thickness=3,
    ),
)


def write_subjects(
    output_dir: Path,
    count: int,
    seed: int,
    brains: Iterable[Template | None],
    missing_slices: float,
    exams: Sequence[Signals] = (),
) -> None:
    """Write `count` subjects with all contrasts, GEN-0001 ..., in the names of BraTS 2023.

    Those of a real exam's brain have its lesions, those of the template's (None) tumours and plaques in turn. Where
    there are `exams`, tissues are as bright as in these.
    """
    numbers = tqdm(range(1, count + 1), desc="subjects", unit="subject")
    for number, brain in zip(numbers, brains):
        lesion: Lesion = "none" if brain is not None else "tumour" if number % 2 else "plaques"
        signals = draw_signals(np.random.default_rng([seed, number]), exams) if exams else None
        subject = simulate(seed + number, lesion, brain, missing_slices, signals)
        name = f"GEN-{number:04d}"
        folder = output_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        for contrast in CONTRASTS:
            nib.save(
                _on_canvas(subject.images[contrast], subject.affine), folder / f"{name}{BRATS_2023[contrast]}.nii.gz"
            )
        nib.save(_on_canvas(subject.label, subject.affine), folder / f"{name}-seg.nii.gz")


def write_drawn(
    output_dir: Path, count: int, seed: int, label_maps: Path, lesion_masks: Path | None, missing_slices: float
) -> None:
    """Write `count` subjects drawn from the label maps of a folder, in turn, each on a grid of its own.

    Raises:
        InputError: a folder holds no NIfTI file, or a map or a mask cannot be used.
    """
    maps = _nifti_in(label_maps)
    masks = [torch.from_numpy(read_lesion_mask(path)) for path in _nifti_in(lesion_masks)] if lesion_masks else []
    for number in tqdm(range(1, count + 1), desc="subjects", unit="subject"):
        tissues = torch.from_numpy(read_label_map(maps[(number - 1) % len(maps)]))
        drawn = draw_subject(tissues, torch.Generator().manual_seed(seed + number), masks)
        _write_drawn(drawn, output_dir, f"GEN-{number:04d}", np.random.default_rng([seed, number]), missing_slices)


def _write_drawn(drawn: Drawn, output_dir: Path, name: str, lacking: np.random.Generator, missing: float) -> None:
    """Four contrasts and the labels of BraTS 2023, cut to the brain and a margin of 4 mm."""
    brain = drawn.brain.numpy()
    box = tuple(slice(max(0, where.min() - 4), where.max() + 5) for where in np.nonzero(brain))
    whole, core, uptake = (region[box] for region in drawn.regions.numpy())
    label = np.select([uptake, core, whole], [3, 1, 2], 0).astype(np.uint8)
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(label.shape) - 1) / 2
    folder = output_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    for contrast, image in zip(CONTRASTS, drawn.images.numpy()):
        values = image[box].copy()
        if lacking.random() < missing:
            values[..., lost_slices(lacking, brain[box])] = 0
        nib.save(_image(values, affine), folder / f"{name}{BRATS_2023[contrast]}.nii.gz")
    nib.save(_image(label, affine), folder / f"{name}-seg.nii.gz")


def _nifti_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.name.endswith((".nii", ".nii.gz")))
    if not found:
        raise InputError("holds no NIfTI file", "Name the folder of the .nii.gz files", folder)
    return found


def real_brains(dataset_dir: Path, split_file: Path | None) -> Iterator[Template]:
    """The brains of the exams of a folder, in turn, without end; of the training part where there is a split.

    One is read at a time, since a brain takes 0.2 GB. An exam that cannot be used is left out, with a line.

    Raises:
        InputError: none can be used.
    """
    waiting = deque(exams_of(dataset_dir, split_file, ("t1", "t1ce")))
    while waiting:
        item = waiting.popleft()
        brain = read_or_tell(item, read_anatomy)
        if brain is not None:
            waiting.append(item)
            yield brain
    raise InputError("no exam has an anatomy that can be used", "Give skull-stripped exams with a T1", dataset_dir)


def real_signals(dataset_dir: Path, split_file: Path | None) -> list[Signals]:
    """What the exams of a folder show of the tissues; of the training part where there is a split.

    Raises:
        InputError: none can be used.
    """
    items = tqdm(exams_of(dataset_dir, split_file, CONTRASTS), desc="intensities", unit="exam")
    found = [signals for item in items if (signals := read_or_tell(item, read_signals)) is not None]
    if not found:
        remedy = "Give skull-stripped exams of all contrasts"
        raise InputError("no exam shows how bright tissues are", remedy, dataset_dir)
    return found


def exams_of(dataset_dir: Path, split_file: Path | None, contrasts: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """The exams of a folder, or those of the training part of a split."""
    items: Sequence[Mapping[str, Any]] = check_subjects(find_subjects(dataset_dir, contrasts))
    return items if split_file is None else apply_split(items, load_split(split_file), "training")


def read_or_tell(item: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T | None:
    """What is read of an exam; None, after a line that tells why, where it cannot be used."""
    fault = item.get("fault")
    if fault is None:
        try:
            return read(item)
        except Exception as error:
            fault = input_error_in(error)  # which MONAI wraps
            if fault is None:
                raise
    tqdm.write(f"{item['subject']} is left out: {fault}", file=sys.stderr)
    return None


def write_demo(output_dir: Path, seed: int) -> None:
    """Write the three demo subjects: what is given to `scans/`, what is withheld and the lesion label to `truth/`.

    The truth lies on the grid of its subject's scans: `truth/<subject>/<subject>_{<contrast>,label}.nii.gz`.
    """
    for number, demo in enumerate(tqdm(DEMO, desc="demo subjects", unit="subject"), start=1):
        subject = simulate(seed + number, demo.lesion)
        for name, values in {**subject.images, "label": subject.label}.items():
            if name in demo.given:
                path = output_dir / "scans" / f"{demo.given[name]}.nii.gz"
            else:
                path = output_dir / "truth" / demo.name / f"{demo.name}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(_regrid(_on_canvas(values, subject.affine), demo), path)


def _on_canvas(values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """Pad to the BraTS grid, both headers' transforms set, the dtype kept."""
    before = [(full - n) // 2 for full, n in zip(CANVAS, values.shape, strict=True)]
    pads = [(b, full - n - b) for b, full, n in zip(before, CANVAS, values.shape, strict=True)]
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3] @ np.array(before)
    return _image(np.pad(values, pads), moved)


def _image(values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return image


def _regrid(image: nib.Nifti1Image, demo: DemoSubject) -> nib.Nifti1Image:
    """Reorient, then join `thickness` slices into one: intensities are averaged, of labels the middle one is kept."""
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(demo.orientation)))
    values, affine, thickness = np.asarray(turned.dataobj), turned.affine.copy(), demo.thickness
    slices = values.shape[2] // thickness
    groups = values[..., : slices * thickness].reshape(*values.shape[:2], slices, thickness)
    joined = groups.mean(-1) if values.dtype.kind == "f" else groups[..., thickness // 2]
    affine[:3, 3] += affine[:3, 2] * (thickness - 1) / 2
    affine[:3, 2] *= thickness
    return _image(joined, affine)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and write what it asks for."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--subjects", type=int, default=4, help="how many complete subjects (without --demo)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--demo", action="store_true", help="write the three demo subjects, some contrasts withheld, instead"
    )
    parser.add_argument("--like", type=Path, help="folder of real exams, skull-stripped, whose anatomy is used")
    parser.add_argument("--intensities_of", type=Path, help="folder of real exams whose tissues say how bright each is")
    parser.add_argument(
        "--label_maps", type=Path, help="folder of label maps in FreeSurfer's numbers, whose heads are used"
    )
    parser.add_argument("--lesion_masks", type=Path, help="folder of masks of plaques (with --label_maps)")
    parser.add_argument("--split_file", type=Path, help="use the training subjects of these folders alone")
    parser.add_argument(
        "--missing_slices",
        type=float,
        default=0.0,
        metavar="PROBABILITY",
        help="of each contrast, that its field of view ends inside the brain or some slices are lost (without --demo)",
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.missing_slices <= 1:
        raise InputError(f"--missing_slices {options.missing_slices:g} is no probability", "Use a number from 0 to 1")
    if options.label_maps and (options.demo or options.like or options.intensities_of):
        remedy = "Leave --demo, --like and --intensities_of out, or --label_maps"
        raise InputError("--label_maps makes subjects of another kind", remedy)
    if options.lesion_masks and not options.label_maps:
        raise InputError("--lesion_masks needs heads to place them in", "Add --label_maps")
    if options.label_maps:
        write_drawn(
            options.output_dir,
            options.subjects,
            options.seed,
            options.label_maps,
            options.lesion_masks,
            options.missing_slices,
        )
    elif options.demo:
        write_demo(options.output_dir, options.seed)
    else:
        brains = real_brains(options.like, options.split_file) if options.like else repeat(None)
        exams = real_signals(options.intensities_of, options.split_file) if options.intensities_of else ()
        write_subjects(options.output_dir, options.subjects, options.seed, brains, options.missing_slices, exams)


if __name__ == "__main__":
    main()
