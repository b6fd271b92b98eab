"""What disturbed scans cost: PSNR of every contrast made from all the others, after each disturbance of those others.

python -m scripts.robustness --dataset_dir SUBJECTS --output robustness.json
python -m scripts.robustness --dataset_dir SUBJECTS --split_file SPLIT --weights RUN/model.pt --output robustness.json
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, cast

import nibabel as nib
import numpy as np
from monai.transforms import AdjustContrast, RandBiasField, RandRicianNoise
from nibabel import Nifti1Image
from nibabel.affines import apply_affine, voxel_sizes
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation
from skimage.measure import block_reduce
from tqdm import tqdm

from bundle.api import synthesise
from bundle.data.discovery import find_subjects
from bundle.data.output import as_json, write_text
from bundle.data.splits import apply_split, load_split
from bundle.engines.provenance import command_line, commit
from bundle.errors import InputError, report_plainly
from bundle.networks.weights import sha256
from scripts.score_demo import CONVENTION, score_images

CONTRASTS = ("t1", "t1ce", "t2", "flair")
WEIGHTS = Path(__file__).resolve().parents[1] / "models" / "model.pt"
SEED = 0
Scans = dict[str, Nifti1Image]  # the given contrasts; the synthesis lies on the grid of the first
FAILURES = {
    "not finite": "a voxel is NaN or infinite",
    "empty": "more than half of the brain is 0",
    "inverted": "the correlation with the truth inside the brain is below 0",
}


def with_values(image: Nifti1Image, values: np.ndarray) -> Nifti1Image:
    """Other values on the same grid."""
    return Nifti1Image(np.asarray(values, np.float32), image.affine)


def values_of(image: Nifti1Image) -> np.ndarray:
    """(X, Y, Z), float32."""
    return np.asarray(image.dataobj, np.float32)


def read(item: Mapping[str, Any]) -> Scans:
    """A subject's contrasts; what a spline put below 0 is 0.

    Raises:
        InputError: they lie on different grids.
    """
    scans: Scans = {}
    for name in CONTRASTS:
        if name in item:
            image: Any = nib.funcs.squeeze_image(cast(Nifti1Image, nib.load(item[name])))
            scans[name] = Nifti1Image(np.maximum(image.get_fdata(dtype=np.float32), 0), image.affine)
    first = next(iter(scans.values()))
    for name, image in scans.items():
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise InputError("is not on the grid of the subject's first scan", "Resample it to that", item[name])
    return scans


def heights(image: Nifti1Image) -> np.ndarray:
    """How far up each voxel lies, (X, Y, Z), in mm of the world."""
    return np.einsum("a,a...->...", image.affine[2, :3], np.indices(image.shape)) + image.affine[2, 3]


def bright(values: np.ndarray) -> float:
    """The 99.5 percentile of what is above 0."""
    return float(np.percentile(values[values > 0], 99.5))


def each(change: Callable[[np.ndarray], np.ndarray], scans: Scans) -> Scans:
    """Change the values of every scan, where there is something."""
    found = {name: values_of(image) for name, image in scans.items()}
    return {name: with_values(scans[name], (values > 0) * change(values)) for name, values in found.items()}


def gain(factor: float, scans: Scans) -> Scans:
    """Another unit."""
    return each(lambda values: factor * values, scans)


def gamma(exponent: float, scans: Scans) -> Scans:
    """Another contrast, x^exponent on [0, 1]."""
    adjust = AdjustContrast(exponent)
    return each(lambda values: np.asarray(adjust(values)), scans)


def bias_field(strength: float, scans: Scans) -> Scans:
    """exp of a polynomial of degree 3 with coefficients up to `strength`, another one for each scan."""
    field = RandBiasField(degree=3, coeff_range=(-strength, strength), prob=1)
    field.set_random_state(SEED)
    return each(lambda values: np.asarray(field(values[None]))[0], scans)


def noise(level: float, scans: Scans) -> Scans:
    """Rician noise whose deviation is that part of the 99.5 percentile, inside the brain."""
    state = np.random.RandomState(SEED)

    def noisy(values: np.ndarray) -> np.ndarray:
        draw = RandRicianNoise(prob=1, std=level * bright(values), sample_std=False)
        draw.set_random_state(state=state)
        return np.asarray(draw(values))

    return each(noisy, scans)


def moved(matrix: np.ndarray, scans: Scans) -> Scans:
    """The patient moved before every scan but the first: their headers no longer agree with it."""
    first, *others = scans
    after = {name: Nifti1Image(values_of(scans[name]), matrix @ scans[name].affine) for name in others}
    return {first: scans[first], **after}


def shift(millimetres: float, scans: Scans) -> Scans:
    """Moved that far along the diagonal."""
    matrix = np.eye(4)
    matrix[:3, 3] = millimetres / np.sqrt(3)
    return moved(matrix, scans)


def rotation(degrees: float, scans: Scans) -> Scans:
    """Turned about the axis from feet to head through the middle of the brain."""
    first = next(iter(scans.values()))
    middle = apply_affine(first.affine, np.argwhere(values_of(first) > 0).mean(0))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle
    return moved(matrix, scans)


def thick_slices(millimetres: float, scans: Scans) -> Scans:
    """Every scan but the first has axial slices of that thickness: means of thinner ones."""
    first, *others = scans
    return {first: scans[first], **{name: thickened(scans[name], millimetres) for name in others}}


def thickened(image: Nifti1Image, millimetres: float) -> Nifti1Image:
    """Slices joined along the axis nearest to that from feet to head."""
    axis = int(np.flatnonzero(nib.io_orientation(image.affine)[:, 0] == 2)[0])
    joined = max(round(millimetres / voxel_sizes(image.affine)[axis]), 1)
    blocks = tuple(joined if a == axis else 1 for a in range(3))
    affine = image.affine.copy()
    affine[:3, 3] += (joined - 1) / 2 * affine[:3, axis]
    affine[:3, axis] *= joined
    return Nifti1Image(block_reduce(values_of(image), blocks, np.mean).astype(np.float32), affine)


def field_of_view(share: float, scans: Scans) -> Scans:
    """Every scan but the first lacks that share of the brain's height, from below."""
    first, *others = scans
    image = scans[first]
    height = heights(image)
    low, high = (f(height[values_of(image) > 0]) for f in (np.min, np.max))
    seen = height >= low + share * (high - low)
    return {first: image, **{name: with_values(scans[name], seen * values_of(scans[name])) for name in others}}


def residual_skull(scans: Scans) -> Scans:
    """A bright rim, 3 to 8 mm outside the brain, where a stripping tool left a third of the scalp."""
    result = {}
    for name, image in scans.items():
        values = values_of(image)
        distance = distance_transform_edt(values == 0, sampling=voxel_sizes(image.affine))
        height = heights(image)
        rim = (distance > 3) & (distance < 8) & (height > np.percentile(height[values > 0], 67))
        result[name] = with_values(image, np.where(rim, 0.9 * bright(values), values))
    return result


def header(matrix: np.ndarray, scans: Scans) -> Scans:
    """All headers are wrong alike."""
    return {name: Nifti1Image(values_of(image), matrix @ image.affine) for name, image in scans.items()}


MIRROR = np.diag([-1.0, 1, 1, 1])
UPRIGHT = np.eye(4)[[0, 2, 1, 3]]  # anterior and superior exchanged
DISTURBANCES: dict[str, Callable[[Scans], Scans]] = {
    "none": dict,
    "gain x 3": partial(gain, 3.0),
    "gamma 0.7": partial(gamma, 0.7),
    "gamma 1.5": partial(gamma, 1.5),
    "bias field, coefficients up to 0.3": partial(bias_field, 0.3),
    "Rician noise, 3 %": partial(noise, 0.03),
    "Rician noise, 10 %": partial(noise, 0.1),
    "moved 1 mm *": partial(shift, 1.0),
    "moved 3 mm *": partial(shift, 3.0),
    "turned 2 degrees *": partial(rotation, 2.0),
    "turned 5 degrees *": partial(rotation, 5.0),
    "3 mm slices *": partial(thick_slices, 3.0),
    "5 mm slices *": partial(thick_slices, 5.0),
    "lowest third not scanned *": partial(field_of_view, 1 / 3),
    "a third of the scalp left": residual_skull,
    "header: left and right exchanged": partial(header, MIRROR),
    "header: axial called coronal": partial(header, UPRIGHT),
}


def failures(made: np.ndarray, truth: np.ndarray) -> list[str]:
    """Which of `FAILURES` a synthesis has; the brain is where the truth is above 0."""
    brain = truth > 0
    if not np.isfinite(made).all():
        return ["not finite"]
    if (made[brain] == 0).mean() > 0.5:
        return ["empty"]
    return ["inverted"] if np.corrcoef(made[brain], truth[brain])[0, 1] < 0 else []


def results(item: Mapping[str, Any], weights: Path, chosen: Sequence[str]) -> list[dict[str, Any]]:
    """A row {subject, disturbance, target, psnr, ssim, failures} per disturbance and contrast of a subject."""
    scans = read(item)
    rows = []
    for disturbance in tqdm(chosen, desc=item["subject"], leave=False, disable=None):
        for target in scans:
            given = DISTURBANCES[disturbance]({name: image for name, image in scans.items() if name != target})
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=UserWarning)  # that something is wrong is the point here
                images: Any = given
                made = synthesise(**images, targets=[target], weights=weights)[target]
            psnr, ssim = score_images(made, scans[target], target)
            broken = failures(made.get_fdata(), values_of(scans[target]))
            rows.append({"subject": item["subject"], "disturbance": disturbance, "target": target})
            rows[-1] |= {"psnr": psnr, "ssim": ssim, "failures": broken}
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: PSNR undisturbed, then what each disturbance takes from it, per target, and how often one failed."""
    targets = [name for name in CONTRASTS if any(row["target"] == name for row in rows)]

    def level(disturbance: str, target: str) -> float:
        return mean(row["psnr"] for row in rows if (row["disturbance"], row["target"]) == (disturbance, target))

    lines = [f"| disturbance | {' | '.join(name.upper() for name in targets)} | mean | failures |"]
    lines.append("|---" * (len(targets) + 3) + "|")
    for disturbance in dict.fromkeys(row["disturbance"] for row in rows):
        change = [level(disturbance, name) - (disturbance != "none") * level("none", name) for name in targets]
        sign = "" if disturbance == "none" else "+"
        failed = [what for row in rows if row["disturbance"] == disturbance for what in row["failures"]]
        cells = [f"{value:{sign}.2f}" for value in (*change, mean(change))]
        lines.append(f"| {disturbance} | {' | '.join(cells)} | {', '.join(failed) or '-'} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON file, print the table.

    Raises:
        InputError: no subject has two of the contrasts, or a disturbance is unknown.
    """
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of complete, skull-stripped subjects")
    parser.add_argument("--split_file", type=Path, help="only the subjects of its part --split_part")
    parser.add_argument("--split_part", default="test")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--only", nargs="+", metavar="DISTURBANCE", help="beside none (default: all)")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    options = parser.parse_args(arguments)
    chosen = ["none", *(options.only or list(DISTURBANCES)[1:])]
    for name in chosen:
        if name not in DISTURBANCES:
            raise InputError(f"disturbance {name!r} is unknown", f"Use --only with some of {', '.join(DISTURBANCES)}")
    items: Sequence[Mapping[str, Any]] = find_subjects(options.dataset_dir, CONTRASTS)
    if options.split_file is not None:
        items = apply_split(items, load_split(options.split_file), options.split_part)
    items = [item for item in items if "fault" not in item and sum(name in item for name in CONTRASTS) > 1]
    if not items:
        raise InputError(
            "no subject has two of the contrasts", "Name a folder of complete subjects", options.dataset_dir
        )
    rows = [row for item in items for row in results(item, options.weights, chosen)]
    content = {"command": command_line(), "commit": commit(), "seed": SEED, "weights_sha256": sha256(options.weights)}
    write_text(options.output, as_json({**content, "convention": CONVENTION, "results": rows}))
    print(f"{len(items)} subjects; PSNR (dB) undisturbed, then what is gained (+) or lost (-)\n")
    print(table(rows))
    print("*: only of the given scans after the first, on whose grid the synthesis lies")
    print(CONVENTION)
    print("Failures: " + "; ".join(f"{name}: {meaning}" for name, meaning in FAILURES.items()))


if __name__ == "__main__":
    main()
