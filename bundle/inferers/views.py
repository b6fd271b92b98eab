"""The mean of what a network of slices makes of a volume in several views: mirrored, and in all three planes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from itertools import groupby
from typing import Any

import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from bundle.inferers.volume import MULTIPLE, VolumeInferer

SAGITTAL, CORONAL, AXIAL = 2, 3, 4  # the axes of a volume (1, C, X, Y, Z) in RAS, by the slices across them
LEFT_RIGHT = 2
LOWEST = 48  # voxels: a coronal or sagittal slice of a flat slab shows the network less than it was trained on


class ViewsInferer(Inferer):
    """Apply a network of axial slices to several views of a volume, and take the mean of what it makes of them.

    What the network makes in one view but not in another is no anatomy more often than not. All views are cut into
    slices by the same network. In coronal and sagittal ones the height of the head lies where the front and back, or
    left and right, lie in axial ones, and the other axis of a slice stays where it was.

    From a network in the mode "sample" comes a sample of the axial slices alone, whose reconstruction is that mean.

    Args:
        slices: applies the network to the slices of one view.
        mirrored: views with left and right exchanged, too. A mirrored head has the same sagittal slices, so these are
            taken once.
        three_planes: coronal and sagittal slices, too, where they are at least `LOWEST` high. They reach as far as all
            given scans do: beyond, one that lacks axial slices would show the network black where there is tissue.
    """

    def __init__(self, slices: VolumeInferer, mirrored: bool = False, three_planes: bool = False) -> None:
        super().__init__()
        self.slices = slices
        planes = (AXIAL, CORONAL, SAGITTAL) if three_planes else (AXIAL,)
        self.views = [(axis, False) for axis in planes]
        self.views += [(axis, True) for axis in planes if mirrored and axis != SAGITTAL]

    def __call__(
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, made: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """``(1, 2C, X, Y, Z)`` in RAS -> ``(1, K, X, Y, Z)``, as `VolumeInferer`.

        A sample starts from `made`, ``(1, K, X, Y, Z)``, or without it from what `reconstruct` gives.
        """
        if len(self.views) == 1:
            return self.slices(inputs, network, *args, **kwargs)
        if getattr(network, "mode", "mean") == "mean":
            return self.mean(inputs, network, *args, **kwargs)
        made = self.reconstruct(inputs, network, *args, **kwargs) if made is None else made
        return self.slices(inputs, network, *args, made=made, **kwargs)

    def reconstruct(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """`mean` of a network in the mode "mean", whatever mode it is in otherwise: the same for every seed."""
        before, network.mode = network.mode, "mean"  # type: ignore[attr-defined]
        try:
            return self.mean(inputs, network, *args, **kwargs)
        finally:
            network.mode = before  # type: ignore[attr-defined]

    def mean(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The mean over the views, ``(1, 2C, X, Y, Z)`` -> ``(1, K, X, Y, Z)``."""
        volume = convert_to_tensor(inputs, track_meta=False)
        everywhere, shared = slice(0, volume.shape[-1]), shared_slices(volume[0], self.slices.num_contrasts)
        total, count = self.slices(volume, network, *args, **kwargs), volume.new_ones(volume.shape[-1])
        for axis, mirrored in self.views[1:]:
            where = everywhere if axis == AXIAL else shared
            if axis == AXIAL or where.stop - where.start >= LOWEST:
                part = volume[..., where].flip(LEFT_RIGHT) if mirrored else volume[..., where]
                made = self.slices(across(part, axis), network, *args, **kwargs)
                made = made.transpose(axis, AXIAL)[..., : part.shape[-1]]
                total[..., where] += made.flip(LEFT_RIGHT) if mirrored else made
                count[where] += 1
        return total.div_(count)


def across(volume: Tensor, axis: int) -> Tensor:
    """A volume (1, C, X, Y, Z) whose axial slices are those across another axis, their sides padded with air."""
    height = 0 if axis == AXIAL else -volume.shape[-1] % MULTIPLE  # what a network halves has to be even
    return F.pad(volume, (0, height)).transpose(axis, AXIAL)


def shared_slices(stack: Tensor, channels: int | None = None) -> slice:
    """The longest run of axial slices that all given scans show; empty where there is none.

    Args:
        stack: ``(2C [+ more], X, Y, Z)``: C images, 0 where missing, then C presence maps.
        channels: C; without it, half of the stack's.
    """
    channels = channels or len(stack) // 2
    there = stack[channels : 2 * channels].flatten(1, 2).any(1)  # (C, Z)
    shown = there[there.any(1)].all(0) & stack[:channels].flatten(0, 2).any(0)
    runs = [[z for z, _ in run] for there, run in groupby(enumerate(shown.tolist()), key=lambda pair: pair[1]) if there]
    longest = max(runs, key=len, default=[0, -1])
    return slice(longest[0], longest[-1] + 1)


def takes_a_start(network: Callable[..., Any]) -> bool:
    """Whether a network can start a sample from the reconstruction that it is given as `made`."""
    return "made" in signature(getattr(network, "forward", network)).parameters
