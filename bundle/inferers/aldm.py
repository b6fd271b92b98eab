"""How the engines call the networks of ALDM: whole volumes, in training, validation and inference.

The handlers of validation look at slices. A volume passes through its engine as a batch of axial slices, the middle one
first, since the first of a batch are what is pictured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import CropForeground
from monai.utils import convert_to_tensor
from torch import Tensor

from bundle.engines.device import half_type
from bundle.inferers.training import AutocastInferer, SynthesisInferer
from bundle.networks.aldm import ALDM
from bundle.networks.ms_spade import MSSPADE


def order(depth: int) -> Tensor:
    """Numbers of the slices of a volume, the middle ones first: (D,)."""
    return (torch.arange(depth) - depth // 2).abs().argsort(stable=True)


def as_slices(volume: Tensor) -> Tensor:
    """(1, C, H, W, D) -> (D, C, H, W)."""
    return volume[0].movedim(-1, 0)[order(volume.shape[-1]).to(volume.device)]


def as_volume(slices: Tensor) -> Tensor:
    """The inverse of `as_slices`."""
    return slices[order(len(slices)).argsort().to(slices.device)].movedim(0, -1)[None]


class TranslationInferer(AutocastInferer):
    """Turn latents into the target's by MS-SPADE, and the result back into the source's."""

    def infer(self, inputs: Tensor, network: MSSPADE, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        source, target = args
        like = network(inputs, target)
        return like, network(like, source)


class AutoencodingVolumeInferer(AutocastInferer):
    """Encode and decode the contrast that is shown: the ceiling of everything that is decoded from a latent."""

    def infer(self, inputs: Tensor, network: ALDM, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return as_slices(network.rebuild(as_volume(inputs)))


class SynthesisVolumeInferer(SynthesisInferer):
    """Complete an exam given as slices, in a given mode, whatever mode the network is in otherwise."""

    def infer(self, inputs: Tensor, network: ALDM, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return as_slices(super().infer(as_volume(inputs), network))


def resample(volume: Tensor, sides: Sequence[int]) -> Tensor:
    """The same field of view with other voxels, linearly: (1, C, H, W, D) -> (1, C, *sides)."""
    return F.interpolate(volume.float(), size=tuple(sides), mode="trilinear", align_corners=False)


class WholeVolumeInferer(Inferer):
    """Run a 3-D network on the box of the brain, as a whole.

    The box is widened to multiples of the network's `divisor`: the normalisations in the network see as much background
    as in training, and nothing is computed far from the brain.

    Args:
        amp: compute in 16 bits (`half_type`) where torch's autocast finds it safe.
        spacing: edge of a voxel of the network in voxels of the volume. A network that was trained on voxels of 3 mm
            sees a volume of 1 mm at every third one, and what it makes is interpolated linearly.
    """

    def __init__(self, amp: bool = False, spacing: float = 1.0) -> None:
        self.amp, self.spacing = amp, spacing

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Complete a volume.

        Args:
            inputs: ``(1, 2C + 1, H, W, D)``: C images, C presence maps, then the mask of the brain.
            network: maps ``(1, 2C, h, w, d)`` to ``(1, C, h, w, d)``; has the attribute `divisor`.
            args, kwargs: passed on to the network.

        Returns:
            ``(1, C, H, W, D)``, float32, on the device of ``inputs``; 0 outside the box.
        """
        if inputs.shape[0] != 1:
            raise ValueError(f"inputs: a batch of {inputs.shape[0]} volumes, but only 1 is taken at a time.")
        volume = torch.as_tensor(inputs)
        if self.spacing == 1:
            return self.infer(volume[0], network, *args, **kwargs)[None]
        coarse = resample(volume, [max(1, round(side / self.spacing)) for side in volume.shape[2:]])
        brain = (coarse[:, -1:] > 0).float()
        made = self.infer(coarse[0], network, *args, **kwargs)[None] * brain
        # Interpolated between the brain and the air beside it, a voxel of the rim would be too dark.
        return resample(made, volume.shape[2:]) / resample(brain, volume.shape[2:]).clamp_min(1e-6)

    def infer(self, volume: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """A volume on the network's grid, (2C + 1, H, W, D) -> (C, H, W, D)."""
        crop = CropForeground(channel_indices=-1, k_divisible=network.divisor)  # type: ignore[attr-defined]
        box = crop(MetaTensor(volume))
        given = convert_to_tensor(box, track_meta=False)[:-1]
        with torch.inference_mode(), torch.autocast(volume.device.type, half_type(volume.device), enabled=self.amp):
            made = network(given[None].contiguous(), *args, **kwargs)[0].float()
        return crop.inverse(MetaTensor(made.clone(), applied_operations=box.applied_operations)).as_tensor()  # type: ignore[attr-defined]
