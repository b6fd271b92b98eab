"""Score what is made of a subject's contrasts against the contrasts themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundle.metrics.brain import psnr, ssim
from bundle.metrics.copy_floor import CopyReference, best_source, copy, copy_oracle, correlations

Quality = tuple[float, float]  # PSNR in dB, SSIM


class Subject:
    """A preprocessed subject.

    Args:
        data: "image" ``(2C, X, Y, Z)``, C contrasts in [0, 1] and C presence maps, possibly more channels, and "brain"
            ``(1, X, Y, Z)``.
        contrasts: names of the C contrasts in channel order.
    """

    def __init__(self, data: Mapping[str, Any], contrasts: Sequence[str]) -> None:
        self.stack: Tensor = data["image"].as_tensor()
        self.brain: Tensor = data["brain"].as_tensor()[0] > 0
        self.contrasts = tuple(contrasts)
        count = len(self.contrasts)
        presence = self.stack[count : 2 * count].flatten(1).any(1)
        self.images = {name: self.stack[i] for i, name in enumerate(self.contrasts) if presence[i]}
        self.voxels = {name: image[self.brain].numpy() for name, image in self.images.items()}

    def hide(self, given: Sequence[str]) -> Tensor:
        """The stack of a subject that has only the given contrasts."""
        stack, count = self.stack.clone(), len(self.contrasts)
        for channel, name in enumerate(self.contrasts):
            if name not in given:
                stack[[channel, count + channel]] = 0
        return stack

    def score(self, pred: Tensor, target: str) -> Quality:
        """PSNR and SSIM of a synthesis ``(X, Y, Z)``."""
        truth = self.images[target]
        return psnr(pred, truth, self.brain), ssim(pred, truth, self.brain)


class Floors:
    """The scores of copies of a subject's contrasts; each copy is scored once, however often it is asked for.

    Args:
        subject: whose contrasts are copied.
        reference: what the floor "copy" knows; where it lacks what is needed, `warnings` gets a line.
    """

    def __init__(self, subject: Subject, reference: CopyReference) -> None:
        self.subject, self.reference = subject, reference
        self.correlations = {"copy": reference.correlations, "copy_oracle": correlations(subject.voxels)}
        self.scored: dict[tuple[str, str, str], Quality] = {}
        self.warnings: list[str] = []

    def scores(self, given: Sequence[str], target: str) -> dict[str, tuple[Quality, str]]:
        """Method -> its quality, and which contrast was copied ("t2", or "t2 inverted")."""
        result = {}
        for method, known in self.correlations.items():
            chosen = best_source(target, given, known)
            if chosen is not None:
                source, inverted = chosen
                key = (method, source, target)
                if key not in self.scored:
                    self.scored[key] = self.subject.score(self._volume(method, source, inverted, target), target)
                result[method] = self.scored[key], source + " inverted" * inverted
            elif known:
                said = f"floor copy: no reference subject has both {target} and one of {', '.join(given)}"
                self.warnings.append(said)
        return result

    def _volume(self, method: str, source: str, inverted: bool, target: str) -> Tensor:
        voxels = self.subject.voxels
        if method == "copy":
            values = copy(voxels[source], inverted, self.reference.quantiles[target])
        else:
            values = copy_oracle(voxels[source], inverted, voxels[target])
        volume = torch.zeros(self.subject.brain.shape)
        volume[self.subject.brain] = torch.from_numpy(values)
        return volume
