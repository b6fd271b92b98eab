"""Score what is made of a subject's contrasts against the contrasts themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundle.errors import InputError
from bundle.metrics.copy_floor import CopyReference, best_source, copy, copy_oracle, correlations
from bundle.metrics.measures import MEASURES, TISSUES, VolumeDistance, score, select
from bundle.metrics.tissues import deep_csf, white_matter

Scores = dict[str, float]  # measure -> its value


class Subject:
    """A preprocessed subject.

    Args:
        data: "image" ``(2C, X, Y, Z)``, C contrasts in [0, 1] and C presence maps, possibly more channels, "brain"
            ``(1, X, Y, Z)``, and what `RegionsOfLabeld` adds: "regions" ``(3, X, Y, Z)`` and "valid" ``(3,)``.
        contrasts: names of the C contrasts in channel order.

    Attributes:
        images: contrast -> ``(X, Y, Z)`` in [0, 1].
        covered: contrast -> mask ``(X, Y, Z)`` without the slices of the brain that the scan lacks.
        regions: masks ``(X, Y, Z)``: "volume", "brain" and, where there is a label, "lesion".
        lesions, valid: "regions" and "valid".
    """

    def __init__(self, data: Mapping[str, Any], contrasts: Sequence[str]) -> None:
        self.stack: Tensor = data["image"].as_tensor()
        self.brain: Tensor = data["brain"].as_tensor()[0] > 0
        self.contrasts = tuple(contrasts)
        count = len(self.contrasts)
        presence = self.stack[count : 2 * count] > 0
        there = {name: i for i, name in enumerate(self.contrasts) if presence[i].any()}
        self.images = {name: self.stack[i] for name, i in there.items()}
        self.covered = {name: presence[i] | ~self.brain.flatten(0, 1).any(0) for name, i in there.items()}
        self.voxels = {name: image[self.brain].numpy() for name, image in self.images.items()}
        self.regions = {"volume": torch.ones_like(self.brain), "brain": self.brain}
        self.lesions, self.valid = torch.as_tensor(data["regions"]), torch.as_tensor(data["valid"])
        if self.valid[0]:
            self.regions["lesion"] = self.lesions[0] > 0
        self.known_tissues: dict[tuple[str, str], Tensor] = {}

    def tissue(self, name: str, target: str) -> Tensor:
        """Mask ``(X, Y, Z)`` of "csf" or "white_matter", found in the other contrasts than the target; empty if not."""
        key = (name, target)
        if key not in self.known_tissues:
            find = {"csf": deep_csf, "white_matter": white_matter}[name]
            self.known_tissues[key] = find(self.images, self.brain, self.regions.get("lesion"), target)
        return self.known_tissues[key]

    def hide(self, given: Sequence[str]) -> Tensor:
        """The stack of a subject that has only the given contrasts."""
        stack, count = self.stack.clone(), len(self.contrasts)
        for channel, name in enumerate(self.contrasts):
            if name not in given:
                stack[[channel, count + channel]] = 0
        return stack

    def replace(self, name: str, image: Tensor) -> Tensor:
        """The stack of the subject with another image ``(X, Y, Z)`` in the place of a contrast."""
        stack = self.stack.clone()
        stack[self.contrasts.index(name)] = image
        return stack


class Scorer:
    """The chosen measures of a synthesis.

    Args:
        measures: names of `MEASURES`; None: all that can be told ("lpips" only with a network).
        convention: the scale of intensities of the measures in `DEFAULTS`, one of `CONVENTIONS`.
        lpips: what "lpips" is measured by.

    Attributes:
        measures: the chosen ones as rows of `MEASURES`, in its order, by name.

    Raises:
        InputError: an unknown measure or convention, no list of names, or "lpips" without its network.
    """

    def __init__(
        self,
        measures: Sequence[str] | str | None = None,
        convention: str = "truth",
        lpips: VolumeDistance | None = None,
    ) -> None:
        if measures is None:
            measures = [name for name in MEASURES if name != "lpips" or lpips is not None]
        chosen = {measure.name: measure for measure in select(as_list("measures", measures), convention)}
        if "lpips" in chosen and lpips is None:
            raise InputError("measure 'lpips' needs a network", "Give its TorchScript file with --lpips_weights")
        self.measures = {name: chosen[name] for name in MEASURES if name in chosen}
        self.convention, self.lpips = convention, lpips

    def __call__(self, pred: Tensor, subject: Subject, target: str) -> Scores:
        """The measures of a synthesis ``(X, Y, Z)`` of one of the subject's contrasts whose region is there.

        Slices that the scan of the target lacks do not count: there is no truth.
        """
        truth, covered = subject.images[target], subject.covered[target]
        tissues = {name for measure in self.measures for name in TISSUES.get(measure, ())}
        regions = {**subject.regions, **{name: subject.tissue(name, target) for name in tissues}}
        regions = {name: mask & covered for name, mask in regions.items()}
        return score(pred, truth, regions, list(self.measures), self.convention, self.lpips)


class Floors:
    """The scores of copies of a subject's contrasts; each copy is scored once, however often it is asked for.

    Args:
        subject: whose contrasts are copied.
        reference: what the floor "copy" knows; where it lacks what is needed, `warnings` gets a line per target.
        score: scores a copy ``(X, Y, Z)``, given its name.
    """

    def __init__(self, subject: Subject, reference: CopyReference, score: Callable[[Tensor, str], Scores]) -> None:
        self.subject, self.reference, self.score = subject, reference, score
        self.correlations = {"copy": reference.correlations, "copy_oracle": correlations(subject.voxels)}
        self.scored: dict[tuple[str, str, str], Scores] = {}
        self.warnings: dict[str, str] = {}

    def scores(self, given: Sequence[str], target: str) -> dict[str, tuple[Scores, str]]:
        """Method -> its scores, and which contrast was copied ("t2", or "t2 inverted")."""
        result = {}
        for method, known in self.correlations.items():
            chosen = best_source(target, given, known)
            if chosen is not None:
                source, inverted = chosen
                key = (method, source, target)
                if key not in self.scored:
                    self.scored[key] = self.score(self._volume(*key, inverted), target)
                result[method] = self.scored[key], source + " inverted" * inverted
            elif known:
                said = f"floor copy: no reference subject has both {target} and one of {', '.join(given)}"
                self.warnings.setdefault(target, said)
        return result

    def _volume(self, method: str, source: str, target: str, inverted: bool) -> Tensor:
        voxels = self.subject.voxels
        if method == "copy":
            values = copy(voxels[source], inverted, self.reference.quantiles[target])
        else:
            values = copy_oracle(voxels[source], inverted, voxels[target])
        volume = torch.zeros(self.subject.brain.shape)
        volume[self.subject.brain] = torch.from_numpy(values)
        return volume


def as_list(option: str, names: Any) -> list[str]:
    """Names from the command line, where a single one arrives as text; InputError if they are no names."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names) or not names:
        raise InputError(f"{option}: {names!r} is no list of names", f"Use --{option} \"['one','another']\"")
    return list(names)
