"""The anatomy of a real exam, its tissue classes and its lesions, from which further subjects are generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.transforms import Compose, CropForegroundd, ResizeWithPadOrCropd
from scipy import ndimage

from bundle.data.anatomy import SHAPE, Template
from bundle.errors import InputError
from bundle.transforms.brain import BrainMaskd
from bundle.transforms.grid import ToNetworkGridd
from bundle.transforms.load import LoadScansd
from bundle.transforms.regions import RegionsOfLabeld

LEVELS = (0.27, 0.65, 0.87)  # of CSF, grey and white matter in T1, as in the template
VESSEL = 0.6  # of white matter: by how much contrast agent brightens a voxel that is a vessel
DEEP = 15  # mm below the brain's surface: fluid there is ventricle


def read_anatomy(item: Mapping[str, Any]) -> Template:
    """Tissue maps and lesions of a real exam on the working grid.

    A mixture of three Gaussians tells the classes of the T1 scan, freed of its bias field (N4), outside the lesions.
    Healthy tissue under a lesion is taken for white matter. Vessels are what contrast agent brightens outside the
    lesions, where the exam has a T1CE.

    Args:
        item: of `find_subjects`, skull-stripped, with "t1"; "t1ce" and "label" are used where they are there.

    Raises:
        InputError: no T1, a scan that cannot be used, or one that still has its skull.
    """
    if "t1" not in item:
        raise InputError("has no T1, from which the tissues are told", "Leave it out")
    exam = prepare(item, [name for name in ("t1", "t1ce") if name in item])
    return anatomy_of(exam, freed_of_bias(exam, "t1"))


def anatomy_of(exam: Mapping[str, np.ndarray], t1: np.ndarray) -> Template:
    """See `read_anatomy`; the exam as `prepare` gives it, and its T1 (X, Y, Z) without its bias field."""
    brain = exam["brain"] > 0
    regions = {name: mask > 0 for name, mask in zip(("wt", "tc", "et"), exam["regions"], strict=True)}
    t1 = np.where(brain, t1, 0)
    csf, gm, wm = _classes(t1, brain, brain & ~regions["wt"])
    for part, share in ((csf, 0), (gm, 0), (wm, 1)):
        part[regions["wt"]] = share
    lesions = _lesions(regions, exam["valid"])
    t1 *= LEVELS[2] / np.median(t1[wm > 0.9])
    expected = np.tensordot(LEVELS, np.stack([csf, gm, wm]), axes=1)
    for part in lesions.values():
        inside = part > 0.5
        expected[inside] = t1[inside].mean() if inside.any() else 0
    texture = (t1 - expected) * (gm + wm) ** 2
    texture -= ndimage.gaussian_filter(texture, 12)
    vessels = _vessels(exam, wm, brain & ~ndimage.binary_dilation(regions["wt"], iterations=3))
    ventricle = csf * _deep_fluid(csf, brain)
    none = np.zeros(SHAPE)
    maps = np.stack([wm, gm, csf, ventricle, vessels, none, texture * brain]).astype(np.float32)
    return Template(maps=maps, affine=_centred(), lesions=lesions, averaged=False)


def prepare(item: Mapping[str, Any], scans: Sequence[str]) -> dict[str, np.ndarray]:
    """Scans, brain and lesions on the working grid, arrays (X, Y, Z); regions (3, X, Y, Z) and which are known.

    Raises:
        InputError: the scans still have their skull.
    """
    volumes = [*scans, "brain", "regions"]
    transforms = Compose(
        [
            LoadScansd([*scans, "label", "mask"]),
            ToNetworkGridd(scans),
            BrainMaskd(scans),
            RegionsOfLabeld(like="brain"),
            CropForegroundd(volumes, source_key="brain"),
            ResizeWithPadOrCropd(volumes, SHAPE),
        ]
    )
    exam = transforms(dict(item))
    if any("still have their skull" in line for line in exam["warnings"]):
        raise InputError("the scans still have their skull", "Strip the skull first, or leave it out")
    found = {name: exam[name][0].numpy().astype(np.float32) for name in [*scans, "brain"]}
    return {**found, "regions": exam["regions"].numpy(), "valid": exam["valid"].numpy()}


def freed_of_bias(exam: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A scan (X, Y, Z) of an exam of `prepare`, divided by its bias field (N4, fitted to every fourth voxel)."""
    brain = (exam["brain"] > 0).astype(np.uint8)
    image, mask = sitk.GetImageFromArray(exam[name]), sitk.GetImageFromArray(brain)
    correct = sitk.N4BiasFieldCorrectionImageFilter()
    correct.SetMaximumNumberOfIterations([30, 20, 10])
    correct.Execute(sitk.Shrink(image, [4] * 3), sitk.Shrink(mask, [4] * 3))
    return exam[name] / np.exp(sitk.GetArrayFromImage(correct.GetLogBiasFieldAsImage(image)))


def _classes(t1: np.ndarray, brain: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    """Fractions (3, X, Y, Z) of CSF, grey and white matter: their posterior in a mixture of three Gaussians."""
    from sklearn.mixture import GaussianMixture  # belongs to the extra "demo", as nilearn does

    smooth = ndimage.gaussian_filter(t1, 0.4)
    begin = np.percentile(t1[healthy], (5, 40, 85))[:, None]
    mixture = GaussianMixture(3, means_init=begin, random_state=0).fit(t1[healthy][::7, None])
    found = np.zeros((3, *SHAPE), np.float32)
    order = np.argsort(mixture.means_[:, 0])
    found[:, brain] = mixture.predict_proba(smooth[brain][:, None])[:, order].T
    found[:, brain & (smooth > mixture.means_.max())] = [[0], [0], [1]]  # a wide class has the far end of a narrow one
    found[:, brain & (smooth < mixture.means_.min())] = [[1], [0], [0]]
    return found


def _vessels(exam: Mapping[str, np.ndarray], wm: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Fraction of blood (X, Y, Z): what contrast agent brightens."""
    if "t1ce" not in exam:
        return np.zeros(SHAPE, np.float32)
    before, after = (exam[name] / np.median(exam[name][wm > 0.9]) for name in ("t1", "t1ce"))
    return ndimage.gaussian_filter((where & (after - before > VESSEL)).astype(np.float32), 0.5)


def _deep_fluid(csf: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The largest piece of fluid far from the surface: the ventricles."""
    pieces, count = ndimage.label((csf > 0.55) & (ndimage.distance_transform_edt(brain) > DEEP))
    if not count:
        return np.zeros(SHAPE, bool)
    return ndimage.binary_dilation(pieces == np.argmax(np.bincount(pieces[pieces > 0])), iterations=2)


def _lesions(regions: Mapping[str, np.ndarray], valid: np.ndarray) -> dict[str, np.ndarray]:
    """Soft fractions (X, Y, Z) by the names of `mr_signal.TISSUES`; a label without a core is one of plaques."""
    if not valid[0]:
        return {}
    if not valid[1:].all():
        parts = {"lesion": regions["wt"]}
    else:
        parts = {
            "necrosis": regions["tc"] & ~regions["et"],
            "enhancing": regions["et"],
            "oedema": regions["wt"] & ~regions["tc"],
        }
    return {name: ndimage.gaussian_filter(part.astype(np.float32), 0.6) for name, part in parts.items()}


def _centred() -> np.ndarray:
    """RAS, 1 mm, the middle of the grid at 0."""
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(SHAPE) - 1) / 2
    return affine
