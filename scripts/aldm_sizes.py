"""Memory and arithmetic of ALDM's sizes, measured without a GPU and without computing anything.

    python -m scripts.aldm_sizes [--sizes tiny cpu default paper] [--shape 192 192 144] [--float32]

Each part is run on fake tensors, which have shapes and types but no values. Memory is the largest sum of all tensors
that live at once: weights, gradients, Adam's two moments and what the backward pass keeps. What a GPU's convolutions
need beside that, and fragmentation, come on top (10 to 20 %).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from bundle.networks.aldm import ALDM

CONFIGS = Path(__file__).parents[1] / "configs" / "aldm"
COLUMNS = ("size", "part", "million weights", "GiB, one training step", "TFLOP", "GiB, inference", "TFLOP")


def model_of(size: str) -> tuple[ALDM, float]:
    """The network of a size, on the current device, and the edge of its voxels in mm."""
    parser = ConfigParser()
    names = ["train"] if size == "default" else ["train", size]
    parser.read_config([str(CONFIGS / f"{name}.json") for name in names])
    return parser.get_parsed_content("network_def"), parser["spacing"]


def parts(model: ALDM, shape: Sequence[int], pairs: int = 1) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """What a step of each stage computes at full size: its network, and a call of it."""
    net, latent = model.autoencoder, [side // model.autoencoder.factor for side in shape]
    target = torch.zeros(pairs, dtype=torch.long)

    def autoencode() -> Tensor:  # the codebook is left out: its search is bounded, and its gradient passes straight on
        encoded = net.run(net.encoder, torch.zeros(1, 1, *shape))
        return net.run(net.decoder, encoded[:, : net.latent_channels].float())

    def translate() -> Tensor:  # the cycle of training goes through it twice
        return model.target_like(torch.zeros(pairs, net.latent_channels, *latent), target)

    def denoise() -> Tensor:
        z = torch.zeros(pairs, net.latent_channels, *latent)
        return model.diffusion(z, target, target, z)

    return {
        "autoencoder": (net, autoencode),
        "MS-SPADE, one way": (model.ms_spade, translate),  # type: ignore[dict-item]
        "diffusion UNet, one step": (model.diffusion, denoise),
    }


def measure(network: nn.Module, call: Callable[[], Tensor], training: bool, amp: bool) -> tuple[float, float]:
    """GiB at the peak and TFLOP of one step."""
    network.train(training)
    memory, flops = MemTracker(), FlopCounterMode(display=False)
    memory.track_external(network)
    with memory, flops, torch.set_grad_enabled(training):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            output = call()
        if training:
            output.float().square().mean().backward()
    peak = max(values["Total"] for values in memory.get_tracker_snapshot("peak").values())
    moments = 2 * 4 * sum(p.numel() for p in network.parameters()) if training else 0
    return (peak + moments) / 2**30, flops.get_total_flops() / 1e12


def table(sizes: Sequence[str], shape: Sequence[int], amp: bool) -> None:
    """Print a row per size and part."""
    print(f"{' x '.join(map(str, shape))} mm, batch 1, {'bfloat16 autocast' if amp else 'float32'}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for size in sizes:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model, spacing = model_of(size)
            voxels = [round(side / spacing) for side in shape]
            for name, (network, call) in parts(model, voxels).items():
                weights = sum(p.numel() for p in network.parameters()) / 1e6
                measured = [x for training in (True, False) for x in measure(network, call, training, amp)]
                figures = [f"{x:.2f}" if x >= 0.1 else f"{x:.1g}" for x in measured]
                print(f"| {size} | {name} | {weights:.2f} | {' | '.join(figures)} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "cpu", "default", "paper"])
    parser.add_argument("--shape", nargs=3, type=int, default=[192, 192, 144], help="field of view in mm")
    parser.add_argument("--float32", action="store_true", help="instead of autocast to bfloat16")
    options = parser.parse_args(arguments)
    table(options.sizes, options.shape, not options.float32)


if __name__ == "__main__":
    main()
