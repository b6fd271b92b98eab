"""The baselines with few channels."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import BasicUNet
from torch import nn

from bundle.networks.baselines.adversarial_diffusion import AdversarialDiffusion
from bundle.networks.baselines.completion import Completion, Generator
from bundle.networks.baselines.pixel_diffusion import PixelDiffusion
from bundle.networks.baselines.resvit import ResViT
from bundle.networks.baselines.voxel_mlp import VoxelMLP

CONTRASTS = ("t1", "t1ce", "t2", "flair")
NAMES = ("pix2pix", "mmgan", "resvit", "syndiff", "palette", "voxel_mlp")
UNET = {"channels": (8, 16), "num_head_channels": 8, "norm_num_groups": 4}


def small(name: str, contrasts: Sequence[str] = CONTRASTS) -> Completion:
    """A baseline by its name, in evaluation mode; those with diffusion do not start from MONAI's 0 at the end."""
    m = len(contrasts)
    model: Completion
    if name == "pix2pix":  # and the U-Net regression, trained otherwise
        model = Generator(contrasts, BasicUNet(2, 2 * m, m, (4, 4, 8, 8, 8, 4)))
    elif name == "mmgan":
        model = Generator(contrasts, BasicUNet(2, m, m, (4, 4, 8, 8, 8, 4)), presence_maps=False)
    elif name == "resvit":
        model = Generator(
            contrasts, ResViT(2 * m, m, channels=4, hidden_size=16, mlp_dim=16, num_layers=1, num_blocks=2)
        )
    elif name == "voxel_mlp":
        model = VoxelMLP(contrasts, units=8)
        for perceptron in model.perceptrons:
            nn.init.constant_(perceptron[-1].bias, 0.5)  # so that nothing is clipped
    elif name == "syndiff":
        model = AdversarialDiffusion(contrasts, UNET)
        nn.init.normal_(model.generator.unet.out[-1].conv.weight, std=0.3)
    else:
        assert name == "palette", name
        model = PixelDiffusion(contrasts, UNET, num_steps=3)
        nn.init.normal_(model.denoiser.unet.out[-1].conv.weight, std=0.3)
    return model.eval()
