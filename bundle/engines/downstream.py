"""Does a synthesised contrast still do its work? Lesions segmented with it, beside those segmented without any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.transforms import NormalizeIntensity
from torch import Tensor, nn

from bundle.errors import InputError
from bundle.inferers.volume import VolumeInferer
from bundle.networks.msg_ldm import read_exam
from bundle.networks.weights import load_weights

REGIONS = ("wt", "tc", "et")  # whole tumour, tumour core, enhancing tumour, in the order of `bundle.data.labels`
PERCENTILE = 95

Segmenter = Callable[[Tensor], "Tensor | None"]


class Downstream:
    """Dice and HD95 of what a segmenter finds in a subject's contrasts.

    Call `measures` once with the real contrasts, and once for each synthesis with the stack in which it takes the place
    of the real contrast: three real ones and one synthesised.

    Args:
        segmenter: maps a stack ``(2C, X, Y, Z)`` to masks ``(3, X, Y, Z)`` of `REGIONS`, or to None where the subject
            lacks a contrast that it needs: `BranchSegmenter` or `BundleSegmenter`.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def measures(self, stack: Tensor, regions: Tensor, valid: Tensor) -> dict[str, float]:
        """dice_wt, dice_tc, dice_et (0 to 1) and hd95_wt, hd95_tc, hd95_et (mm), as far as they can be told.

        Dice is 1 where a region is empty in both truth and segmentation (BraTS' convention). HD95, the larger of the
        two directed 95th percentiles of the surface distances, is left out where either is empty.

        Args:
            stack: ``(2C, X, Y, Z)``, C contrasts in [0, 1] at 1 mm, then C presence maps.
            regions: the truth, ``(3, X, Y, Z)``, non-zero inside.
            valid: ``(3,)``, non-zero where the label tells the region; the others are left out.
        """
        found = self.segmenter(stack) if valid.any() else None
        if found is None:
            return {}
        result = {}
        for name, mask, truth, told in zip(REGIONS, found.cpu() > 0, regions.cpu() > 0, valid):
            if not told:
                continue
            pair = mask[None, None], truth[None, None]
            result[f"dice_{name}"] = compute_dice(*pair, ignore_empty=False).item()
            if mask.any() and truth.any():
                distance = compute_hausdorff_distance(*pair, include_background=True, percentile=PERCENTILE, spacing=1)
                result[f"hd95_{name}"] = distance.item()
        return result


class BranchSegmenter:
    """The model's own segmentation branch D_seg, on whatever contrasts there are; a region mask is withheld from it.

    Args:
        network: with a `disentanglement` (MSGLDM), in evaluation mode when it is called.
        batch_size, amp: as of `VolumeInferer`.

    Raises:
        InputError: the network has no such branch.
    """

    def __init__(self, network: Any, batch_size: int = 16, amp: bool = False) -> None:
        if not hasattr(network, "disentanglement"):
            fault = f"{type(network).__name__} has no segmentation branch"
            raise InputError(fault, "Give a MONAI bundle that segments with --segmenter")
        self.network = network
        self.inferer = VolumeInferer(
            batch_size,
            amp,
            num_contrasts=len(network.contrasts),
            neighbours=network.disentanglement.neighbours,
            out_channels=len(REGIONS),
        )

    @torch.inference_mode()
    def __call__(self, stack: Tensor) -> Tensor:
        """``(2C [+ more], X, Y, Z)`` -> ``(3, X, Y, Z)``, bool; nothing is found in slices without brain."""
        device = next(self.network.parameters()).device
        return self.inferer(torch.as_tensor(stack)[None].to(device), self.logits)[0] > 0

    def logits(self, x: Tensor) -> Tensor:
        """Slices (B, 2C [+ more], H, W) -> (B, 3, H, W)."""
        image, presence, _ = read_exam(x, len(self.network.contrasts), self.network.region_channels)
        structure = self.network.disentanglement.encode_structure(image, presence)
        logits: Tensor = self.network.disentanglement.segmentation(structure.scales)
        return logits


class BundleSegmenter:
    """A MONAI bundle that segments tumours, such as `brats_mri_segmentation` of the Model Zoo.

    Its `network_def` with models/model.pt, or models/model.ts, is applied with the `inferer` of its
    configs/inference.json. The network must give one logit per region (sigmoid, not softmax). It sees the contrasts on
    this bundle's grid (RAS, 1 mm), each z-scored over its non-zero voxels as `brats_mri_segmentation` does. Two things
    differ from the files that such a network was trained on: intensities are clipped at the 0.5 and 99.5 percentile,
    and the axes of BraTS point the other way (LPS), which a network trained with flips along all axes does not mind.
    Nothing is downloaded. The config of a bundle is code: name one that you trust.

    Args:
        path: the bundle's folder.
        contrasts: names of the C contrasts of the stacks, in channel order.
        channels: the contrast of each input channel of the segmenter.
        regions: the region of each of its output channels, of `REGIONS`.
        device: where to compute.

    Raises:
        InputError: no such bundle, weights that do not fit, or channels and regions that are not those of its metadata.
    """

    def __init__(
        self,
        path: str | Path,
        contrasts: Sequence[str],
        channels: Sequence[str] = ("t1ce", "t1", "t2", "flair"),
        regions: Sequence[str] = ("tc", "wt", "et"),
        device: torch.device | str = "cpu",
    ) -> None:
        path = Path(path)
        parser = read_bundle(path)
        unknown = [name for name in channels if name not in contrasts]
        if unknown:
            fault = f"segmenter_channels names {', '.join(unknown)}, but the contrasts are {', '.join(contrasts)}"
            raise InputError(fault, "Name one of them for each input channel of the segmenter", path)
        if sorted(regions) != sorted(REGIONS):
            fault = f"segmenter_regions is {list(regions)!r}"
            raise InputError(fault, f"Put {', '.join(REGIONS)} in the order of the segmenter's output channels", path)
        for option, names, part in (
            ("segmenter_channels", channels, "inputs::image"),
            ("segmenter_regions", regions, "outputs::pred"),
        ):
            count = parser[f"_meta_::network_data_format::{part}::num_channels"]
            if len(names) != count:
                fault = f"{option} names {len(names)} channels, but the segmenter has {count}"
                raise InputError(fault, f"Give --{option} a name per channel, in its order", path)
        self.contrasts, self.channels = tuple(contrasts), [list(contrasts).index(name) for name in channels]
        self.order = [list(regions).index(name) for name in REGIONS]
        self.device = torch.device(device)
        parser["device"] = f"$torch.device('{self.device}')"
        self.network = load_network(parser, path).to(self.device).eval()
        self.inferer: Inferer = parser.get_parsed_content("inferer")
        self.normalise = NormalizeIntensity(nonzero=True, channel_wise=True)

    @torch.inference_mode()
    def __call__(self, stack: Tensor) -> Tensor | None:
        """``(2C [+ more], X, Y, Z)`` -> ``(3, X, Y, Z)``, bool; None where a contrast that it needs is absent."""
        stack = torch.as_tensor(stack)
        if not all(stack[len(self.contrasts) + channel].any() for channel in self.channels):
            return None
        image = torch.as_tensor(self.normalise(stack[self.channels]))
        logits = self.inferer(image[None].float().to(self.device), self.network)
        return logits[0, self.order] > 0


def read_bundle(path: Path) -> ConfigParser:
    """The inference config of a bundle with its metadata as "_meta_"; InputError if it has none."""
    files = [path / "configs" / f"{name}.json" for name in ("inference", "metadata")]
    for file in files:
        if not file.is_file():
            raise InputError("is missing", "Give --segmenter the folder of a MONAI bundle", file)
    parser = ConfigParser()
    parser.read_config(files[0])
    parser.read_meta(files[1])
    parser["bundle_root"] = str(path)
    return parser


def load_network(parser: ConfigParser, path: Path) -> nn.Module:
    """The network of a bundle with its weights; InputError if they are missing or do not fit."""
    script = path / "models" / "model.ts"
    if script.is_file() and not script.with_suffix(".pt").is_file():
        network: nn.Module = torch.jit.load(script, map_location="cpu")
        return network
    network = parser.get_parsed_content("network_def")
    load_weights(network, script.with_suffix(".pt"))
    return network
