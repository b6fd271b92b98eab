"""Write a copy of a folder of skull-stripped subjects in another normalisation of intensities, to train on.

    python -m scripts.normalise --method kde --dataset_dir SUBJECTS --split_file SPLIT --output_dir OUT
    python -m scripts.study --override_file OUT/registry.json --dataset_dir OUT --split_file SPLIT ... --convention own

OUT/registry.json is an override file: it has the network scale each contrast by one fixed window for all subjects, so
that the normalisation stays. Needs `pip install intensity-normalization` (the extra "normalise"), Python 3.11.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from bundle.data.checks import check_image, check_subjects, load_nifti
from bundle.data.discovery import find_subjects
from bundle.data.output import as_json, prepare_output, write_text
from bundle.data.scan_file import ScanFile
from bundle.data.splits import apply_split, load_split
from bundle.errors import InputError, report_plainly

METHODS = {
    "kde": "divided by the mode of white matter (for T2 and FLAIR: of the largest tissue), found in a kernel density",
    "nyul": "landmarks of the histogram, every tenth percentile, moved to those of the mean training subject",
}
MODALITIES = {"t1": "t1", "t1ce": "t1", "t2": "t2", "flair": "flair"}  # contrast -> what the package calls it
TOP = 99.5  # percentile that the window has to hold, as in the registry
UNITS = 5.0  # of that percentile: the package's kernel is max / 80 standard deviations wide, whatever the scan's units
LEAST = 1e-3  # of the normalised brain: 0 is what is not brain
Normaliser = Callable[[np.ndarray], np.ndarray]


def normaliser(method: str, contrast: str, training: Iterable[np.ndarray]) -> Normaliser:
    """What maps a scan (X, Y, Z) to its normalised copy, of the same shape.

    Voxels above 0, which must be the brain, are normalised and stay above 0; the others become 0.

    Args:
        method: a key of `METHODS`.
        contrast: name of the contrast.
        training: scans (X, Y, Z) of this contrast, from which "nyul" alone learns; at least one.

    Raises:
        InputError: the package is not there.
    """
    try:
        from intensity_normalization.adapters.images import create_image
        from intensity_normalization.domain.models import Modality
        from intensity_normalization.normalizers.individual.kde import KDENormalizer
        from intensity_normalization.normalizers.population.nyul import NyulNormalizer
    except ImportError as error:
        fault = "the package intensity-normalization is not installed"
        raise InputError(fault, "Run pip install intensity-normalization, with Python 3.11 or newer") from error
    modality = Modality(MODALITIES[contrast])
    nyul = NyulNormalizer()
    if method == "nyul":
        nyul.fit_population([create_image(scan) for scan in training])

    def normalise(scan: np.ndarray) -> np.ndarray:
        image = create_image(scan * (UNITS / np.percentile(scan[scan > 0], TOP)))
        known = KDENormalizer(modality).fit(image) if method == "kde" else nyul
        values = known.transform(image).get_data()
        return np.where(scan > 0, np.maximum(values, LEAST), 0).astype(np.float32)

    return normalise


def write_normalised(
    items: Sequence[Mapping[str, Any]], training: Sequence[str], method: str, source: Path, output: Path
) -> None:
    """Write every scan, label and mask of the subjects below `output`, where it lay below `source`, and registry.json.

    The windows of registry.json run from 0 to the median, over the training subjects, of the 99.5 percentile of the
    contrast in the brain. Contrasts that no training subject has are left out.

    Args:
        items: of `find_subjects`.
        training: names of the training subjects.
        method: a key of `METHODS`.
        source: the folder in which the subjects were found.
        output: the folder to write.
    """
    windows = {}
    for contrast in tqdm(MODALITIES, unit="contrast"):
        files = {item["subject"]: Path(item[contrast]) for item in items if contrast in item}
        learned = [name for name in training if name in files]
        if not learned:
            continue
        normalise = normaliser(method, contrast, (_values(files[name]) for name in learned))
        tops = []
        for name, file in files.items():
            image = load_nifti(file)
            scan = normalise(_values(file))
            if name in learned:
                tops.append(np.percentile(scan[scan > 0], TOP))
            nib.save(nib.Nifti1Image(scan, image.affine), _place(file, source, output))
        windows[contrast] = {"intensity": {"window": [0, round(float(np.median(tops)), 4)]}}
    for file in (Path(item[key]) for item in items for key in ("label", "mask") if key in item):
        copyfile(file, _place(file, source, output))
    write_text(output / "registry.json", as_json({"registry": windows}))


def _values(file: Path) -> np.ndarray:
    """The scan's plain form, whatever its background: 0 there, the brain above it."""
    voxels = np.concatenate(list(ScanFile(file)), axis=2)
    check_image([voxels], file)[1].remove(voxels)
    return voxels


def _place(file: Path, source: Path, output: Path) -> Path:
    """Where the copy of a file goes; its folder is there."""
    target = output / file.relative_to(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and write the folder."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--method", required=True, choices=list(METHODS), help="; ".join(f"{k}: {v}" for k, v in METHODS.items())
    )
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--split_file", type=Path, required=True, help="whose training subjects tell what is usual")
    parser.add_argument("--output_dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    prepare_output(options.output_dir, options.dataset_dir)
    items = []
    for item in check_subjects(find_subjects(options.dataset_dir, list(MODALITIES))):
        if "fault" in item:
            print(f"{item['subject']} is left out: {item['fault']}", file=sys.stderr)
        else:
            items.append(item)
    training = [item["subject"] for item in apply_split(items, load_split(options.split_file), "training")]
    write_normalised(items, training, options.method, options.dataset_dir, options.output_dir)


if __name__ == "__main__":
    main()
