"""One stage of the training: an ignite trainer with its validation, checkpoints and logs, resumable after any kill."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from ignite.handlers import Checkpoint, DiskSaver, EMAHandler
from ignite.handlers.tqdm_logger import ProgressBar
from monai.data import DataLoader, set_rnd
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import (
    CheckpointLoader,
    LrScheduleHandler,
    StatsHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
)
from monai.inferers import Inferer
from monai.optimizers import WarmupCosineSchedule
from torch import nn
from torch.utils.data import DistributedSampler

from bundle.engines.ranks import average, copy_from_first, is_first
from bundle.handlers.mosaic import Mosaic
from bundle.handlers.target_quality import TargetQuality
from bundle.networks.msg_ldm import MSGLDM
from bundle.networks.weights import load_weights

logger = logging.getLogger(__name__)

SEEDS_APART = 1_000_003  # of two ranks: more than there are epochs


class Stage:
    """Train one part of the model, in one process or in several (see `ranks`).

    Of several processes each sees its share of a batch, and their gradients are averaged before every step. Rank 0
    alone validates, logs and saves, so a training may go on with another number of processes.

    `run` does nothing but load the result where the stage has finished before, goes on from its last checkpoint where
    it was interrupted, and otherwise starts. Files, below `output_dir`/`name`:

        last.pt       network, EMA weights, optimiser, schedule and engine state after the latest epoch
        best.pt       EMA weights of the epoch with the best validation PSNR
        finished.pt   the whole model after this stage, with this stage's EMA weights
        events.*      TensorBoard scalars and images

    Args:
        name: of the stage and its folder.
        model: the whole model; `network` is a part of it.
        network: what is trained.
        loss: maps (prediction, target) to a scalar; its parameters, if it has any, are trained too.
        train_loader, val_loader: batches of slices.
        prepare_batch, inferer: what the trainer makes of a batch, and how it calls the network.
        val_prepare_batch, val_inferer: the same for validation, which calls the whole model.
        output_dir: folder of the results.
        device: where to compute.
        max_epochs: epochs of this stage.
        learning_rate: of Adam; warmed up over the first 5 % of the steps, then a cosine down to zero.
        ema_momentum: share of the new weights in the running average of the weights.
        val_interval: epochs between validations.
        seed: with the epoch's number it decides shuffling and augmentation, also after a resume.
        on_finish: called with the model when the stage has finished, before the model is saved.
        accumulation: batches whose gradients are averaged for one step.
    """

    def __init__(
        self,
        name: str,
        model: MSGLDM,
        network: nn.Module,
        loss: nn.Module,
        train_loader: DataLoader,
        val_loader: Iterable[Any],
        prepare_batch: Callable[..., Any],
        inferer: Inferer,
        val_prepare_batch: Callable[..., Any],
        val_inferer: Inferer,
        output_dir: str,
        device: torch.device,
        max_epochs: int,
        learning_rate: float,
        ema_momentum: float = 0.005,
        val_interval: int = 1,
        seed: int = 0,
        on_finish: Callable[[MSGLDM], None] | None = None,
        accumulation: int = 1,
    ) -> None:
        self.name, self.model, self.network, self.loss = name, model.to(device), network, loss.to(device)
        self.folder = Path(output_dir) / name
        self.max_epochs, self.seed, self.on_finish = max_epochs, seed, on_finish
        self.train_loader = train_loader
        parameters = [*network.parameters(), *loss.parameters()]
        # Fused: one pass over all parameters. One by one they take a tenth of a step on a CPU.
        self.optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        steps = max_epochs * len(train_loader)
        self.schedule = WarmupCosineSchedule(self.optimizer, warmup_steps=max(1, steps // 20), t_total=steps)
        self.trainer = SupervisedTrainer(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_loader,
            network=network,
            optimizer=self.optimizer,
            loss_function=loss,
            prepare_batch=prepare_batch,
            inferer=inferer,
            decollate=False,
            accumulation_steps=accumulation,
            # Adam skips what a batch does not use; given zeros instead it goes on with the momentum of earlier batches,
            # which a resumed run, starting without gradients, does not.
            optim_set_to_none=True,
        )
        self.evaluator = SupervisedEvaluator(
            device=device,
            val_data_loader=val_loader,
            network=self.model,
            prepare_batch=val_prepare_batch,
            inferer=val_inferer,
            decollate=False,
        )
        self.ema = EMAHandler(network, momentum=ema_momentum, momentum_warmup=0.2, warmup_iters=max(2, steps // 10))
        self.val_interval = val_interval

    @property
    def finished(self) -> Path:
        """The file that says, and holds, that this stage is done."""
        return self.folder / "finished.pt"

    def run(self) -> None:
        """Train, resume, or load what was trained before."""
        if self.finished.is_file():
            load_weights(self.model, self.finished)
            logger.info(f"{self.name}: finished before, loaded {self.finished}")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        copy_from_first(self.model, self.loss)
        self.attach_handlers()
        if not self.ended():
            self.trainer.run()
        self.swap_ema()
        if self.on_finish is not None:
            self.on_finish(self.model)
        copy_from_first(self.model)
        if is_first():
            save_atomically(self.model.state_dict(), self.finished)
            logger.info(f"{self.name}: finished, saved {self.finished}")
        idist.barrier()

    def ended(self) -> bool:
        """Whether the last checkpoint is that of the last epoch (the kill came between it and `finished.pt`)."""
        if not self.last.is_file():
            return False
        state = torch.load(self.last, map_location="cpu", weights_only=True)
        if state["trainer"]["epoch_length"] * self.max_epochs > state["trainer"]["iteration"]:
            return False
        Checkpoint.load_objects({"network": self.network, "ema": self.ema.ema_model}, state)
        return True

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / "last.pt"

    def attach_handlers(self) -> None:
        """Give the engines their handlers; the order of those at the end of an epoch matters: validate, then save."""
        trainer = self.trainer
        best = self.save_best()
        state = {
            "network": self.network,
            "loss": self.loss,
            "ema": self.ema.ema_model,
            "best": best,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "trainer": trainer,
        }
        if self.last.is_file():
            CheckpointLoader(str(self.last), state, map_location="cpu").attach(trainer)  # type: ignore[arg-type]
        trainer.add_event_handler(Events.EPOCH_STARTED, self.seed_epoch)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: self.network.train())
        LrScheduleHandler(self.schedule, print_lr=False, epoch_level=False).attach(trainer)  # type: ignore[arg-type]
        self.optimizer.register_step_pre_hook(lambda *_: average([self.network, self.loss]))
        self.ema.attach(trainer)
        trainer.add_event_handler(Events.STARTED, self.place_ema)
        if is_first():
            self.attach_logs(best)
        saver = ReplacingSaver(str(self.folder), require_empty=False)
        trainer.add_event_handler(
            Events.EPOCH_COMPLETED, Checkpoint(state, saver, filename_pattern="last.pt", n_saved=1)
        )

    def attach_logs(self, best: Checkpoint) -> None:
        """Give the engines the handlers that show, validate and keep the best."""
        trainer, evaluator = self.trainer, self.evaluator
        ProgressBar(desc=self.name, persist=True).attach(
            trainer, output_transform=lambda output: {"loss": output["loss"].item()}
        )
        TensorBoardStatsHandler(
            log_dir=str(self.folder), epoch_log=False, output_transform=lambda output: output["loss"].item()
        ).attach(trainer)

        ValidationHandler(self.val_interval, evaluator).attach(trainer)
        evaluator.add_event_handler(Events.STARTED, self.swap_ema)
        TargetQuality(self.model.contrasts).attach(evaluator)
        epoch = lambda _: trainer.state.epoch  # noqa: E731
        metrics: dict[str, Any] = {
            "iteration_log": False,
            "output_transform": lambda _: None,
            "global_epoch_transform": epoch,
        }
        StatsHandler(name=f"{__name__}.{self.name}", **metrics).attach(evaluator)
        TensorBoardStatsHandler(log_dir=str(self.folder), **metrics).attach(evaluator)
        Mosaic(str(self.folder), epoch).attach(evaluator)
        evaluator.add_event_handler(Events.COMPLETED, best)
        evaluator.add_event_handler(Events.COMPLETED, self.swap_ema)

    def seed_epoch(self) -> None:
        """The same epoch draws the same numbers, whether or not the run was interrupted before it.

        Processes draw different numbers, but for the order of the subjects, of which each takes its share.
        """
        seed = self.seed + self.trainer.state.epoch
        if isinstance(self.train_loader.sampler, DistributedSampler):
            self.train_loader.sampler.set_epoch(seed)
        seed += SEEDS_APART * idist.get_rank()
        torch.manual_seed(seed)
        set_rnd(self.train_loader.dataset, seed)

    def place_ema(self) -> None:
        """Let the warm-up of the average go on where the run was interrupted: its counter is in no checkpoint."""
        self.ema.momentum_scheduler.event_index = self.trainer.state.iteration  # type: ignore[union-attr]

    def swap_ema(self) -> None:
        """Exchange the network's weights with their running average; twice is back again."""
        mine, average = self.network.state_dict(), self.ema.ema_model.state_dict()
        for name, tensor in mine.items():
            held = tensor.clone()
            tensor.copy_(average[name])
            average[name].copy_(held)

    def save_best(self) -> Checkpoint:
        """Keep the weights (the average: it runs while they are exchanged) of the epoch with the best PSNR."""
        return Checkpoint(
            {"network": self.network},
            ReplacingSaver(str(self.folder), require_empty=False),
            filename_pattern="best.pt",
            score_function=lambda evaluator: evaluator.state.metrics.get("psnr", float("-inf")),
            n_saved=1,
        )


class ReplacingSaver(DiskSaver):
    """Write a checkpoint over the one before in one step, so that a kill while it is written leaves the old one.

    ignite's `Checkpoint` removes the old file first, even where the new one has its name.
    """

    def remove(self, filename: str) -> None:
        """Leave the file: it is about to be replaced."""


def save_atomically(state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Save a state dict so that the file is there whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    torch.save(state, aside)
    os.replace(aside, path)


class LatentScale:
    """Set the scale of the latents to 1/std, measured on some batches (Rombach et al. 2022, Sec. 4.3.2 and G).

    Args:
        loader: batches of slices.
        prepare_batch: gives the images to encode, (N, 1, H, W).
        device: where to compute.
        num_batches: how many to look at.
    """

    def __init__(
        self, loader: Iterable[Any], prepare_batch: Callable[..., Any], device: torch.device, num_batches: int = 16
    ) -> None:
        self.loader, self.prepare_batch, self.device, self.num_batches = loader, prepare_batch, device, num_batches

    @torch.no_grad()
    def __call__(self, model: MSGLDM) -> None:
        model.eval()
        latents = []
        for _, batch in zip(range(self.num_batches), self.loader):
            image, _ = self.prepare_batch(batch, self.device)
            latents.append(model.autoencoder.encode(image)[0])
        model.latent_scale.fill_(1 / float(torch.cat(latents).std()))


def export(model: MSGLDM, path: str) -> None:
    """Write the inference weights: the plain state dict of the network_def."""
    if is_first():
        save_atomically(model.state_dict(), path)
        logger.info(f"inference weights: {path} ({os.path.getsize(path) / 2**20:.1f} MiB)")
