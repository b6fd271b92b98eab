"""An ALDM of few channels for the tests."""

from __future__ import annotations

from typing import Any

import torch

from bundle.networks.aldm import ALDM

CONTRASTS = ("t1", "t1ce", "t2", "flair")


def tiny(contrasts: tuple[str, ...] = CONTRASTS, spade: bool = True, regulariser: str = "vq", **diffusion: Any) -> ALDM:
    """In evaluation mode; the UNet does not start as zero."""
    torch.manual_seed(0)
    model = ALDM(
        contrasts,
        {
            "channels": (4, 8),
            "res_channels": (4, 8),
            "num_res_blocks": 1,
            "latent_channels": 3,
            "num_codes": 32,
            "regulariser": regulariser,
        },
        {"stem_channels": 4, "res_channels": (8,), "spade_channels": (8, 4), "hidden_channels": 4} if spade else None,
        {"channels": (8, 16), "attention_levels": (False, True), "num_head_channels": 8, "norm_num_groups": 4}
        | diffusion,
        num_steps=2,
    )
    torch.nn.init.normal_(model.diffusion.unet.out[2].conv.weight, std=0.1)
    last = model.autoencoder.decoder.blocks[-1].conv  # so that images lie within [0, 1], and differ
    torch.nn.init.constant_(last.bias, 0.5)
    torch.nn.init.normal_(last.weight, std=0.1)
    for part in (model.autoencoder.encoder.blocks[-1].conv, model.autoencoder.decoder.blocks[0].conv):
        part.weight.data *= 5
    return model.eval()


def exam(side: int = 16, given: tuple[int, ...] = (0, 2), count: int = 4) -> torch.Tensor:
    """A random exam (1, 2M, H, W, D) of which some contrasts are there."""
    x = torch.zeros(1, 2 * count, side, side, side)
    for j in given:
        x[:, j] = torch.rand(side, side, side)
        x[:, count + j] = 1
    return x
