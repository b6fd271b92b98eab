"""A model of the tiny size for the tests of the networks."""

from __future__ import annotations

from typing import Any

from bundle.networks.msg_ldm import MSGLDM

CONTRASTS = ("t1", "t1ce", "t2", "flair")
CHANNELS = (4, 8, 8, 16)


def tiny(contrasts: tuple[str, ...] = CONTRASTS, **disentanglement: Any) -> MSGLDM:
    """MSG-LDM with few channels, in evaluation mode."""
    autoencoder = {
        "channels": (8, 8, 8),
        "latent_channels": 3,
        "num_res_blocks": 1,
        "norm_num_groups": 4,
        "attention_levels": (False,) * 3,
        "with_encoder_nonlocal_attn": False,
        "with_decoder_nonlocal_attn": False,
    }
    diffusion = {
        "channels": (8, 16),
        "attention_levels": (False, True),
        "num_head_channels": 8,
        "guidance_channels": 4,
        "norm_num_groups": 4,
    }
    settings = {"channels": CHANNELS, "style_channels": (4, 8), "style_dim": 4, **disentanglement}
    return MSGLDM(contrasts, autoencoder, settings, diffusion, num_steps=2).eval()
