"""A stage whose losses do not depend on chance, in as many processes as torchrun starts: the tests run this.

torchrun --nproc_per_node 2 -m tests.engines.train_together FOLDER EPOCHS_UNTIL_KILLED SEED
"""

import json
import sys
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from torch.utils.data import DistributedSampler

from bundle.engines import ranks
from bundle.inferers.training import AutocastInferer
from tests.engines.test_stage import stage, subjects

EPOCHS, BATCH = 3, 4


class Reconstruction(torch.nn.Module):
    """Mean squared error, with a weight that is learned."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, prediction, truth):
        return (self.weight * prediction["reconstruction"] - truth).square().mean() + self.weight.square() / 100


def prepare_batch(batch, device=None, non_blocking=False, **_):
    """T1 and T2 are shown; T1CE is asked of even slices and FLAIR of odd ones."""
    seen = batch["seen"]
    presence = torch.tensor([1.0, 0, 1, 0]).expand(len(seen), -1)
    even = (batch["number"] % 2 == 0).float()
    wanted = torch.stack([torch.zeros_like(even), even, torch.zeros_like(even), 1 - even], dim=1)
    return seen, seen * wanted[:, :, None, None], (presence, wanted), {}


def run(folder, until=EPOCHS, seed=0):
    """Train, or go on, and write each rank's losses; killed after `until` epochs."""
    ranks.join()
    data = Dataset([{**item, "number": number} for number, item in enumerate(subjects(3 * BATCH))])
    sampler = DistributedSampler(data, idist.get_world_size(), idist.get_rank(), shuffle=False, drop_last=True)
    loader = DataLoader(data, batch_size=ranks.share_of_batch(BATCH), sampler=sampler)
    made = stage(
        folder, seed=seed + idist.get_rank(), train_loader=loader, prepare_batch=prepare_batch, loss=Reconstruction(),
        inferer=AutocastInferer(), max_epochs=EPOCHS, val_interval=1,
    )  # fmt: skip

    def kill(engine):
        if engine.state.epoch > until:
            raise SystemExit(0)

    made.trainer.add_event_handler(Events.EPOCH_STARTED, kill)
    try:
        made.run()
    finally:
        name = f"losses_{idist.get_rank()}_of_{idist.get_world_size()}.json"
        (Path(folder) / name).write_text(json.dumps(made.losses))
    return made


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
