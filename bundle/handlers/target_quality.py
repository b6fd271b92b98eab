"""PSNR and SSIM of the scored contrasts, per target and on average."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events

from bundle.metrics.brain import psnr, ssim


class TargetQuality:
    """Write `psnr`, `ssim` and `psnr_<contrast>`, `ssim_<contrast>` into the metrics of an evaluator.

    Means over the scored slices, inside the brain, for images in [0, 1]. The output of an iteration must hold `pred`
    (B, M, H, W) and, as `label`, what `ValidationBatch` returns.

    Args:
        contrasts: names of the M contrasts.
    """

    def __init__(self, contrasts: Sequence[str]) -> None:
        self.contrasts = tuple(contrasts)
        self.values: dict[str, list[float]] = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.values.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def score(self, engine: Engine) -> None:
        """Score one batch."""
        truth = engine.state.output["label"]  # type: ignore[index]
        prediction = engine.state.output["pred"].float().clamp(0, 1)  # type: ignore[index]
        for b, j in truth["counted"].nonzero().tolist():
            brain = truth["brain"][b, 0] > 0
            if brain.any():
                for name, metric in (("psnr", psnr), ("ssim", ssim)):
                    value = float(metric(prediction[b, j], truth["image"][b, j], brain))
                    self.values[name].append(value)
                    self.values[f"{name}_{self.contrasts[j]}"].append(value)

    def report(self, engine: Engine) -> None:
        """Means over the epoch."""
        engine.state.metrics.update({name: float(torch.tensor(v).mean()) for name, v in sorted(self.values.items())})
