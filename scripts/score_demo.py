"""Compare the demo's synthesised volumes with the withheld truth: PSNR and SSIM inside the brain."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from nibabel import Nifti1Image

from bundle.data.contrasts import select
from bundle.errors import InputError, report_plainly
from bundle.metrics.brain import psnr, ssim
from bundle.metrics.conventions import apply
from bundle.transforms.intensity import limits

CONVENTION = (
    "Inside the brain, data range 1: the truth runs from 0 to 1 over its own intensity range (0.5 to 99.5 percentile), "
    "the synthesis is scaled like it."
)


def score(synthesis: Path, truth: Path, contrast: str) -> tuple[float, float]:
    """PSNR (dB) and SSIM of a synthesised volume; the brain is where the truth is above 0.

    Raises:
        InputError: the synthesis is missing or lies on another grid.
    """
    if not synthesis.is_file():
        raise InputError("was not synthesised", "Run the inference on the demo's scans first", synthesis)
    made, real = Nifti1Image.from_filename(synthesis), Nifti1Image.from_filename(truth)
    if made.shape != real.shape or not np.allclose(made.affine, real.affine, atol=1e-3):
        raise InputError(f"is not on the grid of {truth}", "Run the inference on the scans of the same demo", synthesis)
    return score_images(made, real, contrast)


def score_images(made: Nifti1Image, real: Nifti1Image, contrast: str) -> tuple[float, float]:
    """PSNR (dB) and SSIM of a synthesis in [0, 1] against a scan in any unit, voxel by voxel; see `score`."""
    pred, values = (torch.from_numpy(image.get_fdata(dtype=np.float32)) for image in (made, real))
    brain = values > 0
    low, high, _ = limits(values[brain].numpy(), select([contrast])[0])
    pair = apply("truth", pred, ((values - low) / (high - low)).clamp(0, 1) * brain, brain)
    return psnr(*pair, brain), ssim(*pair, brain)


def report(truth_dir: Path, output_dir: Path) -> int:
    """Print a table of all withheld contrasts; the number of those that could not be scored is returned.

    Raises:
        InputError: the folder holds no truth.
    """
    withheld = sorted(path for path in truth_dir.glob("*/*.nii.gz") if not path.name.endswith("_label.nii.gz"))
    if not withheld:
        raise InputError(
            "holds no truth", "Make the demo's subjects first: python -m scripts.make_subjects --demo", truth_dir
        )
    faults = []
    print(f"{'subject':12}{'contrast':10}{'PSNR (dB)':>10}{'SSIM':>8}")
    for path in withheld:
        subject = path.parent.name
        contrast = path.name.removeprefix(f"{subject}_").removesuffix(".nii.gz")
        try:
            values = score(output_dir / subject / f"{subject}_{contrast}_synth.nii.gz", path, contrast)
        except InputError as fault:
            faults.append(str(fault))
            print(f"{subject:12}{contrast:10}{'-':>10}{'-':>8}")
        else:
            print(f"{subject:12}{contrast:10}{values[0]:>10.2f}{values[1]:>8.3f}", flush=True)
    print("\n".join([CONVENTION, *faults]))
    return len(faults)


def main(arguments: list[str] | None = None) -> None:
    """Score the demo; the exit status is 1 if a synthesised volume is missing."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truth_dir", type=Path, default=Path("demo/truth"))
    parser.add_argument("--output_dir", type=Path, default=Path("demo/output"), help="the inference's output folder")
    options = parser.parse_args(arguments)
    if report(options.truth_dir, options.output_dir):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
