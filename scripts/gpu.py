"""Train MSG-LDM on one GPU for a given time, after a check of what the GPU computes and how fast.

    python -m scripts.pack --dataset_dir SUBJECTS --output_dir PACKED
    python -m scripts.gpu --packed PACKED --output_dir RUN --seconds 600
    python -m scripts.gpu --packed PACKED --output_dir RUN --seconds 600 --label_maps MAPS --lesion_masks MASKS

The subjects stay on the GPU; windows are cut and augmented there, and a step is a CUDA graph. With --label_maps
subjects are generated on the GPU first; they make up most of what is seen at the start, and a fifth at the end. The
three stages share the time. Writes RUN/model.pt, the inference weights, and RUN/log.json. It runs on a CPU, too, but
slowly.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from bundle.data.contrasts import select
from bundle.data.output import as_json, write_text
from bundle.data.packed import Packed, gather, load_packed, pack
from bundle.data.slice_loader import SliceLoader
from bundle.data.splits import load_split
from bundle.engines.device import bfloat16_is_fast, half_is_fast, pick_device
from bundle.engines.device_losses import AutoencoderStage, DeviceLoss, DiffusionStage, DisentanglementStage
from bundle.engines.graphed import GraphedStep, in_parts
from bundle.engines.stage import save_atomically
from bundle.errors import InputError, report_plainly
from bundle.inferers.volume import VolumeInferer
from bundle.networks.msg_ldm import MSGLDM
from bundle.networks.weights import load_weights
from bundle.phantoms.generate import CONTRASTS, draw_subject
from bundle.phantoms.label_maps import read_label_map, read_lesion_mask
from bundle.transforms.intensity import limits

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train.json"
DRAWN = 128  # windows at once: a large batch takes hardly longer to draw than a small one
AUTOENCODER_WINDOW = 64
# stage: what it is, its share of the time, its highest learning rate
STAGES: dict[str, tuple[type[DeviceLoss], float, float]] = {
    "autoencoder": (AutoencoderStage, 0.12, 2e-3),
    "disentanglement": (DisentanglementStage, 0.66, 1.2e-3),
    "diffusion": (DiffusionStage, 0.22, 1e-3),
}
BRAIN = (144, 176, 136)  # voxels of an adult's, with what the network's sides have to be a multiple of
FIRST, LAST = 0.6, 0.2  # share of generated subjects at the start and at the end


class Mixture:
    """A loader of real and generated subjects, whose shares change with the time that has passed.

    Args:
        loader: of all subjects, the real ones first.
        real: their number.
        seconds: of the training.
    """

    def __init__(self, loader: SliceLoader, real: int, seconds: float) -> None:
        self.loader, self.real, self.seconds = loader, real, seconds

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        start, generated = time.monotonic(), len(self.loader.weights) - self.real
        while True:
            if generated:
                share = FIRST + (LAST - FIRST) * min((time.monotonic() - start) / self.seconds, 1)
                self.loader.weights[: self.real] = (1 - share) / self.real
                self.loader.weights[self.real :] = share / generated
            yield self.loader.batch()


def generate(maps: Sequence[str], masks: Sequence[str], count: int, device: torch.device, seed: int = 0) -> dict:
    """Subjects drawn from label maps in turn, scaled as scans are: name -> what `bundle.data.packed.pack` gives."""
    tissues = [torch.from_numpy(read_label_map(path)).to(device) for path in maps]
    lesions = [torch.from_numpy(read_lesion_mask(path)).to(device) for path in masks]
    rows = select(CONTRASTS)
    parts = {}
    for number in range(count):
        drawn = draw_subject(
            tissues[number % len(tissues)], torch.Generator(device).manual_seed(seed + number), lesions
        )
        images = []
        for image, row in zip(drawn.images, rows):
            low, high, _ = limits(image[drawn.brain].cpu().numpy(), row)
            images.append(((image - low) / (high - low)).clamp(0, 1) * drawn.brain)
        item = {"image": torch.stack(images).cpu(), "exists": torch.ones(len(rows)), "brain": drawn.brain[None].cpu()}
        parts[f"GEN-{number:04d}"] = pack({**item, "regions": drawn.regions.cpu(), "valid": drawn.valid.cpu()})
    return parts


def together(real: Packed, generated: Mapping[str, Any]) -> Packed:
    """Real and generated subjects on one grid, the real ones first."""
    if not generated:
        return real
    named = {}
    for k, name in enumerate(real.names):
        box = (slice(None), *(slice(int(a), int(b)) for a, b in zip(*real.corners[k])))
        named[name] = {"voxels": real.voxels[k][box], "exists": real.exists[k], "valid": real.valid[k]}
    return gather({**named, **generated})


def check(model: MSGLDM, device: torch.device, shape: Sequence[int] = BRAIN) -> dict[str, Any]:
    """What the device computes, against float32, and how long a volume of this shape takes."""
    result: dict[str, Any] = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU"}
    volume = torch.rand(1, 2 * len(model.contrasts), *shape, device=device)
    volume[:, len(model.contrasts) :] = 1
    volume[:, [len(model.contrasts) - 1, -1]] = 0  # the last contrast is missing
    made = {}
    for name, amp in {"float32": False, **({"half": True} if half_is_fast(device) else {})}.items():
        inferer = VolumeInferer(batch_size=64, amp=amp)
        inferer(volume[..., : shape[2] // 2], model)
        start = time.monotonic()
        made[name] = inferer(volume, model)
        if device.type == "cuda":
            torch.cuda.synchronize()
        result[f"seconds_per_volume_{name}"] = round(time.monotonic() - start, 3)
    if "half" in made:
        result["mean_difference_half"] = float((made["half"] - made["float32"]).abs().mean())
    return result


def train(
    model: MSGLDM,
    subjects: Packed,
    real: int,
    device: torch.device,
    seconds: float,
    window: int,
    batch_size: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Train the three stages one after the other; a row of figures for each."""
    rows = []
    for name, (kind, share, rate) in STAGES.items():
        begin = time.monotonic()
        stage = kind(model, bfloat16_is_fast(device)).to(device)
        model.eval().requires_grad_(False)
        stage.network.train().requires_grad_(True)
        side = min(AUTOENCODER_WINDOW, window) if name == "autoencoder" else window
        loader = SliceLoader(subjects, device, max(DRAWN, batch_size), window=side, shift=window // 4)
        loader.reseed(seed)
        torch.manual_seed(seed)
        batches = in_parts(stage.prepare(Mixture(loader, real, share * seconds)), batch_size)
        step = GraphedStep(stage.network, stage, next(batches), list(stage.parameters()), rate)
        left = share * seconds - (time.monotonic() - begin)
        if left <= 0:
            raise InputError(f"{name} took {share * seconds - left:.0f} s to start", "Give it more --seconds")
        print(f"{name}: ready after {time.monotonic() - begin:.1f} s", flush=True)
        log: list[dict[str, float]] = []
        steps = step.run(batches, left, log=log.append)
        stage.network.load_state_dict(step.averaged())
        if name == "autoencoder":
            set_latent_scale(model, loader)
        rows.append(
            {"stage": name, "steps": steps, "windows_per_second": round(steps * batch_size / left, 1), "log": log}
        )
        print(f"{name}: {steps} steps, {rows[-1]['windows_per_second']} windows/s", flush=True)
    return rows


@torch.no_grad()
def set_latent_scale(model: MSGLDM, loader: SliceLoader) -> None:
    """Scale the latents to a standard deviation of 1, measured on one batch."""
    model.eval()
    batch = loader.batch()
    images = batch["image"].flatten(0, 1)[batch["exists"].flatten() > 0][:, None]
    model.latent_scale.fill_(1 / float(model.autoencoder.encode(images)[0].std()))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", required=True, help="folder that scripts.pack wrote")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--seconds", type=float, default=600, help="of training, by the clock")
    parser.add_argument("--split_file", help="train on its training part only")
    parser.add_argument("--label_maps", help="folder of SynthSeg's label maps to generate subjects from")
    parser.add_argument("--lesion_masks", help="folder of lesion masks for some of them")
    parser.add_argument("--generated", type=int, default=160, help="how many subjects to generate")
    parser.add_argument("--initial_weights", help="go on from these")
    parser.add_argument("--config", nargs="*", default=(), help="config files behind train.json")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--window", type=int, default=128, help="side of a window in pixels, a multiple of 32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    device = pick_device()
    config = ConfigParser()
    config.read_config([str(CONFIG), *options.config])
    torch.manual_seed(options.seed)
    model: MSGLDM = config.get_parsed_content("network_def").to(device)
    if options.initial_weights:
        load_weights(model, options.initial_weights)
    subjects = load_packed(sorted(Path(options.packed).glob("*.npz")))
    if options.split_file:
        subjects = subjects.select(load_split(options.split_file)["training"])
    maps, masks = (
        sorted(str(path) for path in Path(folder).glob("*.nii*")) if folder else []
        for folder in (options.label_maps, options.lesion_masks)
    )
    if options.label_maps and not maps:
        raise InputError("holds no label map", "Name the folder of SynthSeg's label maps", options.label_maps)
    report: dict[str, Any] = {"check": check(model.eval(), device)}
    print(report["check"], flush=True)
    drawn = generate(maps, masks, options.generated, device, options.seed) if maps else {}
    everybody = together(subjects, drawn)
    sizes = options.window, options.batch_size
    report["stages"] = train(model, everybody, len(subjects.names), device, options.seconds, *sizes, options.seed)
    folder = Path(options.output_dir)
    save_atomically(model.cpu().state_dict(), folder / "model.pt")
    write_text(folder / "log.json", as_json({**vars(options), **report}))
    print(folder / "model.pt")


if __name__ == "__main__":
    report_plainly()
    main()
