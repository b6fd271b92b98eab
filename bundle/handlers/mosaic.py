"""A picture of the validation in TensorBoard: what was shown, what was made, what was true."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter


class Mosaic:
    """Log the first batch of each validation as one image.

    Per slice three rows (the contrasts shown, the prediction, the truth), the contrasts side by side.

    Args:
        log_dir: folder of the event file.
        epoch: gives the number of the epoch, called with the evaluator.
        num_slices: slices shown.
    """

    def __init__(self, log_dir: str, epoch: Callable[[Engine], int], num_slices: int = 4) -> None:
        self.log_dir, self.epoch, self.num_slices = log_dir, epoch, num_slices

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self.log)

    def log(self, engine: Engine) -> None:
        """Write the picture."""
        output = engine.state.output
        shown, prediction, truth = output["image"], output["pred"], output["label"]["image"]  # type: ignore[index]
        m = truth.shape[1]
        rows = torch.stack([shown[:, :m], prediction, truth], dim=1)[: self.num_slices].float().clamp(0, 1)
        # (B, 3, M, X, Y) -> (B 3 Y, M X), the front of the patient at the top
        picture = rows.permute(0, 1, 4, 2, 3).flip(2).flatten(3).flatten(0, 2)
        with SummaryWriter(self.log_dir) as writer:
            writer.add_image("shown, made, truth", picture, self.epoch(engine), dataformats="HW")
