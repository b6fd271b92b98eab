"""Scale each contrast's intensities to [0, 1], and hold syntheses to that scale."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from bundle.data.contrasts import Contrast, Percentiles, select
from bundle.errors import InputError

SMALLEST_HOLE = 0.02  # share of the brain that is exactly zero in one contrast: more is a field of view that ends there


class ScaleIntensityd(MapTransform):
    """Map each contrast linearly from ``[low, high]`` to [0, 1], clipped, and to 0 outside the brain and where it is 0.

    ``low`` and ``high`` are such that two percentiles of the contrast inside the brain become 0 and a level (the 0.5
    and 99.5 become 0 and 1 unless the registry says otherwise), or the fixed window that the registry gives for it;
    they are kept in ``"intensity"`` as ``{name: {"low": ..., "high": ...}}``, in the units of the scan's file: the
    offset that `LoadScansd` took off, as ``"background"`` has it, is added; ``"background"`` leaves the item.

    Args:
        contrasts: keys of the scans ``(1, X, Y, Z)``, all on one grid; missing ones are skipped.
        registry: overrides of the registry of contrasts.
        mask: key of the brain mask ``(1, X, Y, Z)``.

    Raises:
        InputError: a contrast has no brightness differences inside the brain.
    """

    def __init__(
        self, contrasts: Sequence[str], registry: Mapping[str, Any] | None = None, mask: str = "brain"
    ) -> None:
        super().__init__(list(contrasts), allow_missing_keys=True)
        self.rows = {row.name: row for row in select(contrasts, registry)}
        self.mask = mask

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        brain = d[self.mask].as_tensor() > 0
        backgrounds = d.pop("background", {})
        scales: dict[str, dict[str, float]] = {}
        warnings: list[str] = []
        for key in self.key_iterator(d):
            scan = d[key].as_tensor()
            offset = backgrounds[key].offset if key in backgrounds else 0.0
            low, high, said = limits(scan[brain].numpy(), self.rows[str(key)], offset)
            warnings += said
            scales[str(key)] = {"low": low + offset, "high": high + offset}
            d[key] = MetaTensor((scan - low).div_(high - low).clamp_(0, 1).mul_(brain & (scan != 0)), meta=d[key].meta)
        d["intensity"] = scales
        d["warnings"] = [*d.get("warnings", []), *warnings]
        return d


def limits(values: np.ndarray, row: Contrast, offset: float = 0.0) -> tuple[float, float, list[str]]:
    """The intensities that become 0 and 1, and warnings, for a contrast's values in the brain.

    A window of the registry is meant in the units of the file, from which `offset` was taken to get the values.
    """
    if not isinstance(row.intensity, Percentiles):
        return row.intensity.low - offset, row.intensity.high - offset, []
    seen = values[values != 0]
    missing = 1 - seen.size / values.size
    said = []
    if missing > SMALLEST_HOLE:
        values = seen
        said = [f"{row.name}: covers only {1 - missing:.0%} of the brain"]
    low, high = np.percentile(values, [row.intensity.low, row.intensity.high]) if values.size else (0.0, 0.0)
    if not high > low:
        raise InputError(
            f"{row.name} is constant inside the brain", "Check that the scan shows the brain of this subject"
        )
    return float(low), float(low + (high - low) / row.intensity.level), said


class LevelSynthesisd(MapTransform):
    """Multiply each synthesised contrast so that it has the level that its scale gives every scan, see `to_level`.

    Args:
        contrasts: names of the C contrasts, in channel order.
        registry: overrides of the registry of contrasts.
        pred: key of all contrasts ``(C [+ more], X, Y, Z)`` in [0, 1]; further channels stay as they are.
        uncertainty: key of their deviations, may be missing; multiplied likewise.
        stack: key of what the network was given, ``(2C [+ more], X, Y, Z)``: given contrasts stay as they are.
        brain: key of the mask ``(1, X, Y, Z)``.
    """

    def __init__(
        self,
        contrasts: Sequence[str],
        registry: Mapping[str, Any] | None = None,
        pred: str = "pred",
        uncertainty: str = "uncertainty",
        stack: str = "image",
        brain: str = "brain",
    ) -> None:
        super().__init__([pred, uncertainty], allow_missing_keys=True)
        self.rows, self.stack, self.brain = select(contrasts, registry), stack, brain

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d, count = dict(data), len(self.rows)
        given = d[self.stack][count : 2 * count].flatten(1).any(1).tolist()
        brain = d[self.brain][0] > 0
        factors = [
            1.0 if there else to_level(image, brain, row)
            for image, there, row in zip(d[self.keys[0]], given, self.rows)
        ]
        for key in self.key_iterator(d):
            volume = d[key].clone()
            for channel, factor in enumerate(factors):
                volume[channel] = (volume[channel] * factor).clamp(0, 1)
            d[key] = volume
        return d


def to_level(image: Tensor, brain: Tensor, row: Contrast) -> float:
    """What a synthesis ``(X, Y, Z)`` is to be multiplied by, so that it has the level of its contrast's scale.

    Where the scale says how bright a percentile of every scan is, a synthesis that has it brighter or darker is wrong
    as a whole. An upper percentile that stands for 1 says nothing about a synthesis: a smooth image lacks the few
    brightest voxels of a scan. There the factor is 1.
    """
    rule = row.intensity
    if not isinstance(rule, Percentiles) or rule.level == 1:
        return 1.0
    bright = np.percentile(torch.as_tensor(image)[brain].float().numpy(), rule.high)
    return float(rule.level / bright) if bright > 0 else 1.0
