"""3-D autoencoder whose latents are codes of a codebook  (ALDM, Sec. 3.1; VQGAN, Esser et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import autoencoderkl, vqvae
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bundle.networks.codebook import Codebook

REGULARISERS = ("vq", "kl")


def tile_weights(sides: Sequence[int], reach: int) -> Tensor:
    """How much each place of a tile counts where tiles overlap, (H, W, D).

    Next to nothing within `reach` of the tile's border, where the network misses what lies beyond, then a ramp. The
    volume's own border lies in no other tile, so that there a tile counts all the same.
    """
    result = torch.ones(())
    for side in sides:
        place = torch.arange(side)
        within = torch.minimum(place, place.flip(0)) + 1.0 - reach
        result = result[..., None] * within.clamp_min(1e-5)
    return result


class Gaussian(nn.Module):
    """A Gaussian posterior in the place of the codebook: (B, 2c, ...), means and log variances -> latents (B, c, ...).

    Args:
        weight: of KL(q(z|x) || N(0, 1)), summed over a sample's latent and divided by its number of entries.
    """

    def __init__(self, weight: float = 1e-4) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, None]:
        """A draw in training, else the mean; the weighted KL term; no indices."""
        mean, log_variance = inputs.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        return latent, self.weight * kl, None

    def snap(self, latent: Tensor) -> Tensor:
        """Any latent may be decoded."""
        return latent


class VectorQuantisedAutoencoder(nn.Module):
    """Volumes of one contrast <-> latents of 1/f of the side, f = 2^levels; one network for all contrasts.

    The blocks are those of MONAI's `VQVAE` unless `normalised`: they have no normalisation, so that a voxel depends on
    nothing but its surroundings. Latents of a crop are those of the volume, and a volume decoded in tiles has no seams.
    VQGAN's blocks, those of MONAI's `AutoencoderKL`, normalise over whatever is decoded at once.

    Args:
        channels: per level, finest first. VQGAN's blocks have the first level at full resolution, so one level more.
        res_channels: of the inside of VQ-VAE's residual units, per level; VQGAN's have none of their own.
        num_res_blocks: per level.
        latent_channels: c.
        regulariser: "vq", or "kl" for a Gaussian posterior (the paper's Table 3 d).
        num_codes: size of the codebook.
        codebook_decay: of its moving averages; they look back on about 1/(1 - decay) steps.
        codebook_warm_up: first steps of training in which nothing is quantised.
        normalised: VQGAN's blocks.
        norm_num_groups: of their group norm.
        checkpointing: keep only the blocks' ends in training and compute what lies within again.
        tile: largest side of a latent, in voxels, that is encoded or decoded at once outside training; a larger one
            goes through in overlapping windows, which are blended beyond the reach of their borders: without
            normalisation the result is the same. None: always at once.

    Raises:
        ValueError: another regulariser.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        res_channels: Sequence[int] = (32, 64),
        num_res_blocks: int = 2,
        latent_channels: int = 4,
        regulariser: str = "vq",
        num_codes: int = 8192,
        codebook_decay: float = 0.99,
        codebook_warm_up: int = 500,
        normalised: bool = False,
        norm_num_groups: int = 32,
        checkpointing: bool = False,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        if regulariser not in REGULARISERS:
            raise ValueError(f"regulariser: {regulariser!r} must be one of {REGULARISERS}.")
        self.latent_channels, self.checkpointing, self.tile = latent_channels, checkpointing, tile
        encoded = latent_channels * (2 if regulariser == "kl" else 1)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if normalised:
            self.factor = 2 ** (len(channels) - 1)
            vqgan: dict[str, Any] = {
                "spatial_dims": 3,
                "channels": channels,
                "num_res_blocks": [num_res_blocks] * len(channels),
                "norm_num_groups": norm_num_groups,
                "norm_eps": 1e-6,
                "attention_levels": [False] * len(channels),
                "with_nonlocal_attn": False,
            }
            self.encoder = autoencoderkl.Encoder(in_channels=1, out_channels=encoded, **vqgan)
            self.decoder = autoencoderkl.Decoder(in_channels=latent_channels, out_channels=1, **vqgan)
        else:
            self.factor = 2 ** len(channels)
            halve, double = [(2, 4, 1, 1)] * len(channels), [(2, 4, 1, 1, 0)] * len(channels)
            blocks = (channels, num_res_blocks, res_channels)
            self.encoder = vqvae.Encoder(3, 1, encoded, *blocks, halve, 0.0, "RELU")
            self.decoder = vqvae.Decoder(3, latent_channels, 1, *blocks, double, 0.0, "RELU", None)
        # What a latent's image and an image's latent depend on, in latents to each side.
        levels = (self.factor - 1).bit_length()
        self.reach = math.ceil(1 + sum((2 * num_res_blocks + 1) / 2**level for level in range(levels)))
        self.regulariser: Codebook | Gaussian
        if regulariser == "vq":
            self.regulariser = Codebook(num_codes, latent_channels, decay=codebook_decay, warm_up=codebook_warm_up)
        else:
            self.regulariser = Gaussian()

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Latent of images (B, 1, H, W, D), sides multiples of f.

        Returns:
            (B, c, H/f, W/f, D/f); the regulariser's term of the loss; the numbers of the codes, if there are any.
        """
        return self.regulariser(self.apply_to(self.encoder, image, self.factor))

    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, 1, H, W, D) of latents (B, c, H/f, W/f, D/f), which are first replaced by the nearest codes."""
        return self.apply_to(self.decoder, self.regulariser.snap(latent), 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """images (B, 1, H, W, D) -> their reconstruction, and what else `encode` returns."""
        latent, loss, indices = self.encode(image)
        return self.apply_to(self.decoder, latent, 1), loss, indices

    def apply_to(self, network: nn.Module, x: Tensor, voxels: int) -> Tensor:
        """Encoder or decoder on x, block by block or in tiles; `voxels` of x's are a latent's."""
        run: Callable[[Tensor], Tensor] = partial(self.run, network)
        if self.training or self.tile is None or max(x.shape[2:]) <= self.tile * voxels:
            return run(x)
        sides = [min(side, self.tile * voxels) for side in x.shape[2:]]
        weights = tile_weights(sides, self.reach * voxels).to(x.device)
        return sliding_window_inference(x, sides, 1, run, overlap=0.625, roi_weight_map=weights)  # type: ignore[return-value]

    def run(self, network: nn.Module, x: Tensor) -> Tensor:
        """The blocks one after the other."""
        for block in network.blocks:  # type: ignore[union-attr]
            again = self.checkpointing and self.training and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return x
