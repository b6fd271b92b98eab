"""Scale each contrast's intensities to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.data.contrasts import Contrast, Percentiles, select
from bundle.errors import InputError

SMALLEST_HOLE = 0.02  # share of the brain that is exactly zero in one contrast: more is a field of view that ends there


class ScaleIntensityd(MapTransform):
    """Map each contrast linearly from ``[low, high]`` to [0, 1], clipped, and to 0 outside the brain.

    ``low`` and ``high`` are such that two percentiles of the contrast inside the brain become 0 and a level (the 0.5
    and 99.5 become 0 and 1 unless the registry says otherwise), or the fixed window that the registry gives for it;
    they are kept in ``"intensity"`` as ``{name: {"low": ..., "high": ...}}``.

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
        scales: dict[str, dict[str, float]] = {}
        warnings: list[str] = []
        for key in self.key_iterator(d):
            scan = d[key].as_tensor()
            low, high, said = limits(scan[brain].numpy(), self.rows[str(key)])
            warnings += said
            scales[str(key)] = {"low": low, "high": high}
            d[key] = MetaTensor((scan - low).div_(high - low).clamp_(0, 1).mul_(brain), meta=d[key].meta)
        d["intensity"] = scales
        d["warnings"] = [*d.get("warnings", []), *warnings]
        return d


def limits(values: np.ndarray, row: Contrast) -> tuple[float, float, list[str]]:
    """The intensities that become 0 and 1, and what the user should be told, for a contrast's values in the brain."""
    if not isinstance(row.intensity, Percentiles):
        return row.intensity.low, row.intensity.high, []
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
