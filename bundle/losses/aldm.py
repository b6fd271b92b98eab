"""Objectives of ALDM's first two stages; the third is the mean squared error of eq. 4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from bundle.errors import InputError


class SlicePerceptualLoss:
    """Distance of deep features on slices along each of the three axes, by a network that the user has on disk.

    Args:
        path: TorchScript file of f(a, b) -> distance, a and b (B, 3, H, W) in [-1, 1], as `metrics.perceptual.LPIPS`
            takes it.
        slices: per axis and volume, evenly spaced.

    Raises:
        InputError: the file is missing or no TorchScript.
    """

    def __init__(self, path: str | Path, slices: int = 4) -> None:
        try:
            self.network = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise InputError("is missing or no TorchScript", "Give the file of a perceptual network", path) from error
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        self.slices = slices

    def __call__(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """(B, 1, H, W, D) twice -> scalar."""
        network = self.network.to(prediction.device)
        distances = [network(*self.pictures(prediction, truth, axis)).mean() for axis in (2, 3, 4)]
        return torch.stack(distances).mean()

    def pictures(self, prediction: Tensor, truth: Tensor, axis: int) -> list[Tensor]:
        """Slices of both across an axis, three equal channels each, (B slices, 3, H, W)."""
        places = torch.linspace(0, truth.shape[axis] - 1, self.slices + 2)[1:-1].round().long().to(truth.device)
        cuts = [volume.index_select(axis, places).movedim(axis, 1).flatten(0, 1) for volume in (prediction, truth)]
        return [(2 * cut - 1).expand(-1, 3, -1, -1) for cut in cuts]


class AutoencoderLoss3D(nn.Module):
    """L1 + codebook or KL term + perceptual_weight L_perc + adversarial_weight L_adv, plus L_D  (ALDM, Sec. 3.1).

    The codebook term is the commitment of van den Oord et al. 2017, eq. 3; the codes themselves follow by moving
    averages. The adversarial terms are least squares on patches (VQGAN). One backward pass serves both networks: L_adv
    does not reach the discriminator's weights, nor L_D the autoencoder's. A stage of `AdversarialStage` trains both.

    Args:
        adversarial_weight: 0 leaves the discriminator out.
        adversarial_start: share of the epochs after which the adversarial terms count.
        perceptual: L_perc, maps (reconstruction, truth) to a scalar; None: left out.
        perceptual_weight: its weight.
        discriminator: arguments of MONAI's `PatchDiscriminator` but for the dimensions.
    """

    def __init__(
        self,
        adversarial_weight: float = 0.01,
        adversarial_start: float = 0.5,
        perceptual: SlicePerceptualLoss | None = None,
        perceptual_weight: float = 0.1,
        discriminator: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.adversarial_weight, self.adversarial_start = adversarial_weight, adversarial_start
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        arguments = {"channels": 32, "num_layers_d": 3, "norm": "INSTANCE", **(discriminator or {})}
        self.discriminator = PatchDiscriminator(3, in_channels=1, **arguments)
        self.least_squares = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        self.terms: dict[str, float] = {}  # of the latest call, for the log

    def forward(self, prediction: tuple[Tensor, Tensor, Tensor | None], truth: Mapping[str, Any]) -> Tensor:
        """What `VectorQuantisedAutoencoder` returns, truth {image (B, 1, H, W, D), progress in [0, 1)} -> scalar."""
        image, (made, regularisation, indices) = truth["image"], prediction
        made = made.float()
        reconstruction = F.l1_loss(made, image)
        loss = reconstruction + regularisation
        self.terms = {"reconstruction": reconstruction.item(), "regularisation": regularisation.item()}
        if indices is not None:
            self.terms["codes_in_batch"] = float(len(indices.unique()))
        if self.perceptual is not None:
            perceptual = self.perceptual(made, image)
            self.terms["perceptual"] = perceptual.item()
            loss = loss + self.perceptual_weight * perceptual
        if not self.adversarial_weight or truth["progress"] < self.adversarial_start:
            return loss
        self.discriminator.requires_grad_(False)
        fools = self.least_squares(self.judge(made), True, for_discriminator=False)
        self.discriminator.requires_grad_(True)
        told = [
            self.least_squares(self.judge(each), real, for_discriminator=True)
            for each, real in ((image, True), (made.detach(), False))
        ]
        self.terms.update(adversarial=fools.item(), discriminator=sum(told).item() / 2)
        return loss + self.adversarial_weight * fools + sum(told) / 2

    def judge(self, image: Tensor) -> Tensor:
        """The discriminator's opinion of each patch.

        Always in float32: in bfloat16 on a CPU the gradient of its last convolution, which has one output channel, is
        now and then NaN, another time finite for the same numbers (torch 2.13).
        """
        with torch.autocast(image.device.type, enabled=False):
            return self.discriminator(image)[-1]


class TranslationLoss(nn.Module):
    """|S(z_src, tar) - z_tar| + cycle_weight |S(S(z_src, tar), src) - z_src|  (ALDM, Sec. 3.1; Zhu et al. 2017, eq. 2).

    S is MS-SPADE; both are means over the latents. The paper names a cycle loss without a formula.

    Args:
        cycle_weight: of the second term.
    """

    def __init__(self, cycle_weight: float = 0.5) -> None:
        super().__init__()
        self.cycle_weight = cycle_weight
        self.terms: dict[str, float] = {}  # of the latest call, for the log

    def forward(self, prediction: tuple[Tensor, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """(target-like, back again), truth {target, source}, all (B, c, h, w, d) -> scalar."""
        latent, cycle = (F.l1_loss(made.float(), truth[name]) for made, name in zip(prediction, ("target", "source")))
        self.terms = {"latent": latent.item(), "cycle": cycle.item()}
        return latent + self.cycle_weight * cycle
