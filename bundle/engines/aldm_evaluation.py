"""The diagonal of ALDM's table of sources and targets: what encoding and decoding alone cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from bundle.engines.evaluation import QualityEvaluator
from bundle.engines.scoring import Subject
from bundle.networks.aldm import ALDM


class Rebuilding(nn.Module):
    """`ALDM.rebuild` as a network."""

    def __init__(self, network: ALDM) -> None:
        super().__init__()
        self.network, self.divisor = network, network.divisor

    def forward(self, x: Tensor) -> Tensor:
        return self.network.rebuild(x)


class CeilingEvaluator(QualityEvaluator):
    """Score each contrast, encoded and decoded, against itself  (ALDM, Table 2, diagonal).

    No synthesis can be better than this. The rows name all the other contrasts as given: the floors are made of them,
    while the network sees the contrast itself.

    Args:
        options: those of `QualityEvaluator`; there is no choice of a protocol.
    """

    network: ALDM

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "protocol": "rest"})

    def identify(self) -> dict[str, Any]:
        """See `QualityEvaluator`."""
        return {**super().identify(), "network": "ALDM, autoencoder only: each contrast from itself"}

    def made(
        self, subject: Subject, given: Sequence[str], targets: Sequence[str]
    ) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Each target, encoded and decoded: its name, image (X, Y, Z) and no uncertainty."""
        for target in targets:
            with self.mode(self.network):
                stack = subject.hide([target])[None].to(self.state.device)
                images = self.inferer(stack, Rebuilding(self.network))[0].cpu()
            yield target, images[self.options.contrasts.index(target)] * subject.brain, None
