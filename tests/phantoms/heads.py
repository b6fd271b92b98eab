"""A small made-up head as a label map."""

from __future__ import annotations

import numpy as np

from bundle.phantoms.label_maps import TISSUES


def ellipsoid(shape, centre, radii):
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij", sparse=True)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii)) < 1


def tissues(size: int = 64) -> np.ndarray:
    """Nested ellipsoids (size, size, size) uint8: fluid, cortex, white matter, and ventricles in the middle."""
    shape, middle = (size,) * 3, (size - 1) / 2
    head = np.zeros(shape, np.uint8)
    layers = {"csf": 0.46, "cortex": 0.4, "white matter": 0.34}
    for name, share in layers.items():
        head[ellipsoid(shape, [middle] * 3, np.array([0.9, 1.0, 0.85]) * share * size)] = TISSUES.index(name)
    for side in (-1, 1):
        place = [middle + side * 0.09 * size, middle, middle]
        head[ellipsoid(shape, place, np.array([0.06, 0.15, 0.08]) * size)] = TISSUES.index("ventricle")
    return head
