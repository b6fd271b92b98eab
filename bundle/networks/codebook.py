"""Vector quantisation whose search needs little memory and whose codes stay in use."""

from __future__ import annotations

import torch
import torch.distributed as dist
from monai.networks.layers.vector_quantizer import EMAQuantizer
from scipy.spatial import KDTree
from torch import Tensor

DISTANCES_AT_ONCE = 2**24  # 64 MiB


class Codebook(EMAQuantizer):
    """MONAI's quantiser with a moving-average codebook (van den Oord et al. 2017, App. A.1), for large volumes.

    MONAI's holds the distance of every voxel to every code and a one-hot vector per voxel: 10 GiB for 48x48x36 latents
    and 8192 codes. Here a CPU searches a tree of the codes, a GPU goes through the voxels in parts, and the codes' sums
    are scattered.

    A code that hardly any voxel uses becomes a latent drawn from the current batch (Dhariwal et al. 2020, Sec. 3.1): so
    does the whole codebook in the first step, and none dies because the encoder has moved away from it.

    In the first steps of training the latents pass through as they are, while the codes already follow them. Quantised
    from the start, the encoder is drawn to its first codes before the decoder has learned to listen, and ends as a
    constant.

    Args:
        num_codes: K.
        latent_channels: c.
        commitment: weight of the term that draws the encoder's output to its code.
        decay: of the moving averages.
        revive_below: average number of voxels per step below which a code is replaced.
        warm_up: training steps in which nothing is quantised.
    """

    steps: Tensor

    ema_cluster_size: Tensor
    ema_w: Tensor

    def __init__(
        self,
        num_codes: int,
        latent_channels: int,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive_below: float = 0.1,
        warm_up: int = 0,
    ) -> None:
        super().__init__(3, num_codes, latent_channels, commitment_cost=commitment, decay=decay)
        self.revive_below, self.warm_up = revive_below, warm_up
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        # A buffer: an average of the codes over the training steps, as of other weights, lies between codes.
        codes = self.embedding.weight.detach()
        del self.embedding.weight
        self.embedding.register_buffer("weight", codes)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise the encoder's output; in training also move the codes.

        Args:
            inputs: (B, c, H, W, D).

        Returns:
            The nearest codes (B, c, H, W, D), with the gradient passed straight through; the commitment term, a scalar;
            the codes' numbers (B, H, W, D).
        """
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs.float()
            flat = inputs.movedim(1, -1).flatten(0, -2)
            numbers = self.nearest(flat)
            indices = numbers.view(len(inputs), *inputs.shape[2:])
            quantised = self.embed(indices)
            if self.training:
                self.learn(flat.detach(), numbers)
                self.steps += 1
                if self.steps <= self.warm_up:
                    return inputs, inputs.new_zeros(()), indices
            loss = self.commitment_cost * torch.nn.functional.mse_loss(quantised.detach(), inputs)
            return inputs + (quantised - inputs).detach(), loss, indices

    def nearest(self, flat: Tensor) -> Tensor:
        """Numbers of the codes nearest to latents (N, c): (N,)."""
        codes, flat = self.embedding.weight.detach(), flat.detach()
        if flat.device.type != "cpu":
            return nearest_in_parts(codes, flat)
        # in a few dimensions a tree finds them in a thirtieth of the time that all distances take
        return torch.from_numpy(KDTree(codes.numpy()).query(flat.numpy())[1])

    def snap(self, latent: Tensor) -> Tensor:
        """The nearest codes of a latent (B, c, H, W, D)."""
        numbers = self.nearest(latent.float().movedim(1, -1).flatten(0, -2))
        return self.embed(numbers.view(len(latent), *latent.shape[2:]))

    @torch.no_grad()
    def learn(self, flat: Tensor, numbers: Tensor) -> None:
        """Move the codes to the means of the latents (N, c) that chose them, and replace those not in use."""
        counts = torch.bincount(numbers, minlength=self.num_embeddings).to(flat.dtype)
        sums = torch.zeros_like(self.ema_w).index_add_(0, numbers, flat)
        self.distributed_synchronization(counts, sums)
        self.ema_cluster_size.lerp_(counts, 1 - self.decay)
        self.ema_w.lerp_(sums, 1 - self.decay)
        dead = self.ema_cluster_size < self.revive_below
        drawn = flat[torch.randint(len(flat), (self.num_embeddings,), device=flat.device)]
        if self.ddp_sync and dist.is_initialized():
            dist.broadcast(drawn, 0)
        self.ema_w.copy_(torch.where(dead[:, None], drawn, self.ema_w))
        self.ema_cluster_size.masked_fill_(dead, 1.0)
        self.embedding.weight.copy_(self.ema_w / self.ema_cluster_size[:, None])


def nearest_in_parts(codes: Tensor, flat: Tensor) -> Tensor:
    """Numbers of the codes (K, c) nearest to latents (N, c), from the distances of a part of the latents at a time."""
    half_norms = codes.square().sum(1) / 2
    parts = flat.split(max(1, DISTANCES_AT_ONCE // len(codes)))
    return torch.cat([(half_norms - part @ codes.T).argmin(1) for part in parts])


def perplexity(indices: Tensor, num_codes: int) -> float:
    """How many codes are in even use: exp of the entropy of their frequencies, 1 to `num_codes`."""
    share = torch.bincount(indices.flatten(), minlength=num_codes).double() / indices.numel()
    return torch.special.entr(share).sum().exp().item()
