"""How the engines call the networks in training and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from bundle.networks.latent_denoiser import LatentDenoiser
from bundle.networks.msg_ldm import MSGLDM


class AutocastInferer(Inferer):
    """Call the network under autocast to bfloat16, on any device.

    MONAI's engines autocast for CUDA only; bfloat16 has float32's range and so needs no loss scaling.
    """

    def __init__(self, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.amp):
            return self.infer(inputs, network, *args, **kwargs)

    def infer(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What is done under autocast."""
        return network(inputs, *args, **kwargs)


class DenoisingInferer(AutocastInferer):
    """Build the condition from F_s, the available latents, the presence mask and the reconstruction, and predict."""

    def infer(self, inputs: Tensor, network: LatentDenoiser, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        t, target, *guidance = args
        return network(inputs, t, target, network.condition(*guidance))


class AutoencodingInferer(AutocastInferer):
    """Encode and decode the contrasts that are shown: the ceiling of everything that is decoded from a latent."""

    def infer(self, inputs: Tensor, network: MSGLDM, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        m = len(network.contrasts)
        shown = inputs[:, m : 2 * m].amax((2, 3)) > 0
        result = torch.zeros_like(inputs[:, :m])
        result[shown] = network.decode(network.encode(inputs[:, :m][shown].unsqueeze(1))).to(result.dtype).squeeze(1)
        return result


class SynthesisInferer(AutocastInferer):
    """Complete exams in a given mode, whatever mode the network is in otherwise.

    Args:
        mode: "mean" or "sample".
    """

    def __init__(self, mode: str, amp: bool = False) -> None:
        super().__init__(amp)
        self.mode = mode

    def infer(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        before, network.mode = network.mode, self.mode
        try:
            return network(inputs)
        finally:
            network.mode = before
