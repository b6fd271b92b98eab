"""Stack the contrasts and what is known about their presence into the network's input."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor


class StackContrastsd(MapTransform):
    """Make ``"image"`` ``(2C, X, Y, Z)``: C contrasts in [0, 1], 0 where one is missing, then C presence maps, 0 or 1.

    A presence map is the same over each axial slice: 0 also in those that the scan does not reach or lacks, where it is
    0 throughout. A network of slices then makes do with the other contrasts there, instead of taking black for tissue.

    ``"image"`` must be there already: its metadata and the operations applied to it are kept, so that what the network
    makes of the stack can be brought back to the grid of the reference scan. Stack after cropping: padding would put
    zeros into the presence maps.

    Args:
        contrasts: the C keys ``(1, X, Y, Z)``, all on the grid of ``"image"``; they are removed from the item.
        hide: contrasts treated as missing although they exist, because they are to be synthesised.
        region_mask: add the lesion regions of `RegionsOfLabeld` and a map that is 1 where there is a label.
        with_brain: add the mask ``"brain"``, 0 or 1, as the last channel.
    """

    def __init__(
        self, contrasts: Sequence[str], hide: Sequence[str] = (), region_mask: bool = False, with_brain: bool = False
    ) -> None:
        super().__init__(list(contrasts), allow_missing_keys=True)
        self.contrasts = tuple(contrasts)
        self.hide = frozenset(hide)
        self.region_mask, self.with_brain = region_mask, with_brain

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        count, image = len(self.contrasts), d["image"]
        stack = torch.zeros((2 * count, *image.shape[1:]))
        for channel, name in enumerate(self.contrasts):
            scan = d.pop(name, None)
            if scan is not None and name not in self.hide:
                stack[channel] = scan[0].as_tensor()
                stack[count + channel] = stack[channel].flatten(0, 1).any(0)
        if self.region_mask:
            stack = torch.cat([stack, _region_channels(d)])
        if self.with_brain:
            stack = torch.cat([stack, torch.as_tensor(d["brain"]) > 0])
        d["image"] = MetaTensor(stack, meta=image.meta, applied_operations=image.applied_operations)
        return d


def _region_channels(data: Mapping[Hashable, Any]) -> Tensor:
    regions, valid = torch.as_tensor(data["regions"]).float(), data["valid"]
    return torch.cat([regions * valid[:, None, None, None], valid.amax().expand(1, *regions.shape[1:])])
