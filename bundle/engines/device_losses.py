"""The losses of MSG-LDM's three stages on batches that were made on the device: shapes that depend on no data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from bundle.engines.batches import hide_one_of_complete
from bundle.losses.autoencoder import AutoencoderLoss
from bundle.losses.msg_ldm import DisentanglementLoss
from bundle.networks.complements import ask, complete_both, decode, structure
from bundle.networks.msg_ldm import MSGLDM
from bundle.networks.sampler import add_noise

Batch = Mapping[str, Tensor]
# The weights of the loss with which the shipped U-Net was trained; on their own they were not measured.
SQUARED_WEIGHT, LESION_WEIGHT = 5.0, 1.0
OWN = 0.1  # probability that a contrast is reconstructed from the subset that shows it, with its own style


class DeviceLoss(nn.Module, ABC):
    """A stage's loss of a batch of `SliceLoader`; `prepare` draws what it needs beside that.

    Args:
        model: the whole model; `network` is the part that this stage trains.
        amp: compute in bfloat16 under autocast.
    """

    network: nn.Module

    def __init__(self, model: MSGLDM, amp: bool) -> None:
        super().__init__()
        # in a tuple, so that the model's parameters are not the loss's own
        self.held, self.amp = (model,), amp

    @property
    def model(self) -> MSGLDM:
        return self.held[0]

    def autocast(self, batch: Batch) -> torch.autocast:
        """bfloat16 where it is on; nothing is cached, since a CUDA graph records the casts of the weights, too."""
        return torch.autocast(batch["image"].device.type, torch.bfloat16, enabled=self.amp, cache_enabled=False)

    def prepare(self, batches: Iterable[Batch]) -> Iterator[dict[str, Tensor]]:
        """Batches with what is drawn for this stage."""
        for batch in batches:
            yield {**batch, **self.draw(batch)}

    @abstractmethod
    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """What this stage draws for a batch."""


class AutoencoderStage(DeviceLoss):
    """`AutoencoderLoss` of one contrast of each window, as it is, and of one that looks as from another scanner."""

    def __init__(self, model: MSGLDM, amp: bool) -> None:
        super().__init__(model, amp)
        self.network, self.loss = model.autoencoder, AutoencoderLoss()

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """`chosen` (B, 2): the two contrasts."""
        return {"chosen": torch.multinomial(batch["exists"], 2, replacement=True)}

    def forward(self, batch: Batch) -> Tensor:
        """A scalar."""
        rows = torch.arange(len(batch["image"]), device=batch["image"].device)
        plain, seen = (batch[key][rows, batch["chosen"][:, n]] for n, key in enumerate(("image", "seen")))
        image = torch.cat([plain, seen])[:, None]
        with self.autocast(batch):
            prediction = self.model.autoencoder(image)
        loss: Tensor = self.loss(prediction, image)
        return loss


class DisentanglementStage(DeviceLoss):
    """`DisentanglementLoss` with complementary subsets (`bundle.networks.complements`)."""

    def __init__(self, model: MSGLDM, amp: bool) -> None:
        super().__init__(model, amp)
        self.network = model.disentanglement
        self.loss = DisentanglementLoss(squared_weight=SQUARED_WEIGHT, lesion_weight=LESION_WEIGHT)

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """`presence` (B, M), never all of several contrasts, and `own` (B, M)."""
        exists = batch["exists"]
        own = exists * (torch.rand_like(exists) < OWN)
        return {"presence": hide_one_of_complete(exists, batch["presence"]), "own": own}

    def forward(self, batch: Batch) -> Tensor:
        """A scalar."""
        own = batch["own"]
        with self.autocast(batch):
            result = complete_both(self.model.disentanglement, batch["seen"], batch["exists"], batch["presence"], own)
        truth = {
            "image": torch.where(own.bool()[:, :, None, None], batch["seen"], batch["image"]),
            "counted": result["counted"],
            "presence": batch["exists"],
            "regions": batch["regions"],
            "valid": batch["valid"],
        }
        loss: Tensor = self.loss(result, truth)
        return loss


class DiffusionStage(DeviceLoss):
    """Mean squared error of v (or the noise) for every contrast of every sample, guided by what the rest says (eq. 1).

    Small steps are drawn more often than large ones: samples start from a low noise level.
    """

    def __init__(self, model: MSGLDM, amp: bool, emphasis: float = 1.5) -> None:
        super().__init__(model, amp)
        self.network, self.emphasis = model.diffusion, emphasis

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        """`presence` (B, M); `noise` (B, M, c, h, w) and `step` (B, M), 0 to T - 1."""
        exists = batch["exists"]
        b, m, h, w = batch["image"].shape
        channels, factor = self.model.autoencoder.latent_channels, self.model.reduction
        noise = torch.randn(b, m, channels, h // factor, w // factor, device=exists.device)
        last = len(self.model.alphas_cumprod) - 1
        step = (torch.rand(b, m, device=exists.device) ** self.emphasis * last).round().long()
        return {"presence": hide_one_of_complete(exists, batch["presence"]), "noise": noise, "step": step}

    def forward(self, batch: Batch) -> Tensor:
        """A scalar."""
        model = self.model
        b, m = batch["exists"].shape
        with self.autocast(batch):
            with torch.no_grad():
                question = ask(batch["exists"], batch["presence"], torch.zeros_like(batch["exists"]))
                scales, fused = structure(model.disentanglement, batch["seen"], question.presence)
                style = model.disentanglement.style_bank.mean.expand(b, -1, -1)
                made = decode(model.disentanglement, fused, scales, style, question.row).clamp(0, 1)
                images = (part.flatten(0, 1)[:, None] for part in (batch["image"], made, batch["seen"]))
                z_0, mean, shown = (model.encode(image).float() for image in images)
            row = (question.row * b + torch.arange(b, device=fused.device)[:, None]).flatten()
            available = shown.unflatten(0, (b, m)).repeat_interleave(m, 0)
            condition = model.diffusion.condition(fused[row], available, question.presence[row], mean)
            noise, step = batch["noise"].flatten(0, 1), batch["step"].flatten()
            alpha_bar = model.alphas_cumprod[step]
            target = torch.arange(m, device=fused.device).repeat(b)
            prediction = model.diffusion(add_noise(z_0, noise, alpha_bar), step, target, condition)
        error = (prediction.float() - model.diffusion.truth(z_0, noise, alpha_bar)) ** 2
        share = question.counted.flatten() / question.counted.sum().clamp(min=1)
        return (error.mean((1, 2, 3)) * share).sum()
