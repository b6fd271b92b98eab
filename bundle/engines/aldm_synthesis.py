"""Inference of ALDM: the mean over the sources and, if asked for, what each of them alone makes of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bundle.engines.options import flag
from bundle.engines.synthesis import Content, SynthesisEvaluator
from bundle.transforms.intensity import to_level


class TranslationEvaluator(SynthesisEvaluator):
    """`SynthesisEvaluator` that can also write what each source alone makes of a target.

    The files are `<subject>_<target>_from_<source>_synth.nii.gz`, made with the seeds and the mode of the result, by a
    further call of the network per source: the work doubles.

    Args:
        each_source: whether they are written, where a subject has several sources.
        options: those of `SynthesisEvaluator`.
    """

    def __init__(self, *args: Any, each_source: bool | str = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.each_source = flag("each_source", each_source)

    def claim(self, item: Mapping[str, Any], given: Sequence[str], made: Sequence[str]) -> dict[str, Any]:
        """See `SynthesisEvaluator`; results with the single predictions serve who asks for none."""
        return {**super().claim(item, given, made), **({"each_source": True} if self.each_source else {})}

    def synthesise(self, image: Tensor, made: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """See `SynthesisEvaluator`; the single predictions follow as further channels, source by source."""
        pred, uncertainty = super().synthesise(image, made)
        self.sources = self.present(image) if self.each_source else []
        if len(self.sources) < 2:
            self.sources = []
            return pred, uncertainty
        alone = [super(TranslationEvaluator, self).synthesise(self.only(image, name), made)[0] for name in self.sources]
        brain = torch.as_tensor(image)[-1] > 0
        wanted = [(number, row) for number, row in enumerate(self.options.rows()) if row.name in made]
        levelled = [each[number] * to_level(each[number], brain, row) for each in alone for number, row in wanted]
        return torch.cat([pred, torch.stack(levelled).clamp(0, 1)]), uncertainty

    def present(self, image: Tensor) -> list[str]:
        """The contrasts that a stack (2C + 1, X, Y, Z) holds."""
        count = len(self.options.contrasts)
        there = torch.as_tensor(image)[count : 2 * count].flatten(1).any(1).tolist()
        return [name for name, present in zip(self.options.contrasts, there) if present]

    def only(self, image: Tensor, source: str) -> Tensor:
        """The stack with one contrast alone."""
        one = [name == source for name in self.options.contrasts]
        keep = torch.tensor([*one, *one, True])  # the brain stays, and with it the box that the network sees
        return torch.as_tensor(image) * keep[:, None, None, None]

    def contents(self, data: Mapping[str, Any], made: Sequence[str]) -> dict[str, Content]:
        """See `SynthesisEvaluator`; the single predictions lie behind the contrasts, source by source."""
        pairs = [(source, name) for source in self.sources for name in made]
        alone = {
            f"{data['subject']}_{name}_from_{source}_synth.nii.gz": Content("pred", channel, f"{name} from {source}")
            for channel, (source, name) in enumerate(pairs, len(self.options.contrasts))
        }
        return {**super().contents(data, made), **alone}
