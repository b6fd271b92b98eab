"""Export the network as TorchScript and ONNX, checked against PyTorch: the mean path whole, the diffusion in parts."""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from torch import Tensor, nn

from bundle import __version__
from bundle.data.output import as_json, staged
from bundle.errors import InputError, report_plainly
from bundle.networks.disentanglement import Disentanglement
from bundle.networks.hfib import HFIB
from bundle.networks.mmsf import MMSF
from bundle.networks.msg_ldm import MSGLDM, read_exam
from bundle.networks.structure_encoder import StructureEncoders
from bundle.networks.weights import load_weights

ROOT = Path(__file__).resolve().parents[1]
FORMATS = {"torchscript": ".ts", "onnx": ".onnx"}
TOLERANCE = 1e-4  # largest difference from PyTorch: images lie in [0, 1], latents have a standard deviation near 1
TENSORRT_TOLERANCE = 1e-2  # its TF32 products have 10 bits
SIDE = 16  # the network halves an image's side four times in all
OPSET = 20
TRACED, CHECKED = 2, 8  # samples per batch: two numbers, so that a batch size that got fixed is seen


class EveryEncoder(nn.Module):
    """Structure encoders without a branch: every contrast is encoded, and an absent one counts as nothing.

    `StructureEncoders` encodes the pairs of sample and contrast that are there, whose number depends on the data. Here
    there are always B M pairs, contrast by contrast; the absent ones' features are multiplied by 0.
    """

    def __init__(self, encoders: StructureEncoders) -> None:
        super().__init__()
        self.channels, self.shared = encoders.channels, encoders.shared
        self.encoders = encoders.encoders

    def forward(self, image: Tensor, presence: Tensor) -> tuple[list[Tensor], Tensor]:
        """Image and presence as `StructureEncoders` -> S_j, (M B, c_l, H_l, W_l), and each pair's sample, (M B,)."""
        b, m = presence.shape
        encoded = []
        for j in range(m):
            contrast = torch.full((b,), j, device=image.device) if self.shared else None
            encoded.append(self.encoders[0 if self.shared else j](image[:, j::m], contrast))
        there = presence.T.reshape(-1, 1, 1, 1)
        sample = torch.arange(b, device=image.device).repeat(m)
        return [torch.cat(scale) * there for scale in zip(*encoded)], sample


class EveryMMSF(MMSF):
    """MMSF on the pairs of `EveryEncoder`: its sums run along an axis, for TensorRT knows no scattered ones."""

    def gates(self, structure: Tensor, sample: Tensor, presence: Tensor) -> Tensor:
        """w_j of every pair: (M B, 1, H, W)."""
        b, m = presence.shape
        count = presence.sum(1).clamp(min=1).view(b, 1, 1, 1)
        total = structure.reshape(m, b, *structure.shape[1:]).sum(0)
        fraction = (count / m).expand(b, 1, *structure.shape[2:])
        context = self.gate_context(torch.cat([total / count, fraction], dim=1))
        return (self.gate_own(structure) + context.repeat(m, 1, 1, 1)).sigmoid()

    def forward(self, structure: Tensor, sample: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
        """(M B, c, H, W) -> F_l (B, c, H, W) and the gates."""
        b, m = presence.shape
        w = self.gates(structure, sample, presence)
        return self.fusion((w * structure).reshape(m, b, *structure.shape[1:]).sum(0)), w


class ShiftedHFIB(HFIB):
    """HFIB whose Gaussian is a sum of shifted images: ONNX fixes the number of groups of a convolution, here B c."""

    def low_pass(self, content: Tensor) -> Tensor:
        """G_theta(C): (B, c, H, W) -> (B, c, H, W)."""
        h, w = content.shape[2:]
        kernel = torch.softmax(-0.5 * (self.offsets / self.sigma(content)[..., None]) ** 2, dim=2)[..., None, None]
        low = F.pad(content, (self.radius,) * 4, mode="replicate")
        taps = range(2 * self.radius + 1)
        low = torch.stack([kernel[:, :, k] * low[:, :, k : k + h] for k in taps]).sum(0)
        return torch.stack([kernel[:, :, k] * low[..., k : k + w] for k in taps]).sum(0)


def branch_free(disentanglement: Disentanglement) -> Disentanglement:
    """A copy whose `encode_structure` does the same without branches on the data, less what only training needs."""
    free = copy.deepcopy(disentanglement)
    free.segmentation = nn.Identity()  # type: ignore[assignment]
    free.style_encoders = nn.ModuleList()
    for parent in list(free.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, HFIB):
                size, widths = 2 * child.radius + 1, (child.sigma_min, child.sigma_max)
                setattr(parent, name, like(child, ShiftedHFIB(child.theta.out_features, size, widths)))
            elif isinstance(child, MMSF):
                every = EveryMMSF(child.gate_own.in_channels)
                every.fusion = child.fusion  # with whatever normalisation it has
                setattr(parent, name, like(child, every))
    if isinstance(free.encoders, StructureEncoders):
        free.encoders = EveryEncoder(free.encoders)  # type: ignore[assignment]
    return free


def like(old: nn.Module, new: nn.Module) -> nn.Module:
    """The new module with the old one's weights."""
    new.load_state_dict(old.state_dict())
    return new


class StructurePath(nn.Module):
    """Exam -> F_s."""

    def __init__(self, network: MSGLDM) -> None:
        super().__init__()
        self.num_contrasts, self.region_channels = len(network.contrasts), network.region_channels
        self.disentanglement = branch_free(network.disentanglement)
        self.disentanglement.decoders = nn.ModuleList()

    def forward(self, exam: Tensor) -> Tensor:
        """(B, 2M, H, W) -> (B, c_L, H/2^(L-1), W/2^(L-1))."""
        return self.disentanglement.encode_structure(*read_exam(exam, self.num_contrasts, self.region_channels)).fused


class MeanPath(nn.Module):
    """Exam -> complete exam, what `MSGLDM.forward` makes with mode "mean" and all contrasts as targets."""

    def __init__(self, network: MSGLDM) -> None:
        super().__init__()
        self.num_contrasts, self.region_channels = len(network.contrasts), network.region_channels
        self.disentanglement = branch_free(network.disentanglement)

    def forward(self, exam: Tensor) -> Tensor:
        """(B, 2M, H, W) -> (B, M, H, W) in [0, 1]."""
        image, presence, region = read_exam(exam, self.num_contrasts, self.region_channels)
        structure = self.disentanglement.encode_structure(image, presence, region)
        styles = [style.expand(exam.shape[0], -1) for style in self.disentanglement.style_bank.mean]
        decoders = zip(self.disentanglement.decoders, styles)
        made = torch.cat([decoder(structure.fused, structure.scales, style) for decoder, style in decoders], dim=1)
        return torch.where(presence.bool()[:, :, None, None], image[:, : self.num_contrasts], made.clamp(0, 1))


class Encoder(nn.Module):
    """`MSGLDM.encode`."""

    scale: Tensor

    def __init__(self, network: MSGLDM) -> None:
        super().__init__()
        self.encoder, self.mean = network.autoencoder.encoder, network.autoencoder.quant_conv_mu
        self.register_buffer("scale", network.latent_scale)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, c, h, w)."""
        return self.mean(self.encoder(image)) * self.scale


class Decoder(nn.Module):
    """`MSGLDM.decode`."""

    scale: Tensor

    def __init__(self, network: MSGLDM) -> None:
        super().__init__()
        self.post, self.decoder = network.autoencoder.post_quant_conv, network.autoencoder.decoder
        self.register_buffer("scale", network.latent_scale)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, c, h, w) -> (B, 1, H, W)."""
        return self.decoder(self.post(latent / self.scale))


class Denoiser(nn.Module):
    """One evaluation of the denoiser, with its condition: what it thinks the clean latent is."""

    alphas_cumprod: Tensor

    def __init__(self, network: MSGLDM) -> None:
        super().__init__()
        self.diffusion = network.diffusion
        self.register_buffer("alphas_cumprod", network.alphas_cumprod)

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        target: Tensor,
        structure: Tensor,
        available: Tensor,
        presence: Tensor,
        mean: Tensor,
    ) -> Tensor:
        """z_t (B, c, h, w), t (B,), target (B,), then as `LatentDenoiser.condition` -> z_0 (B, c, h, w)."""
        condition = self.diffusion.condition(structure, available, presence, mean)
        prediction = self.diffusion(latent, timestep, target, condition)
        return self.diffusion.clean(prediction, latent, self.alphas_cumprod[timestep].reshape(-1, 1, 1, 1))


@dataclass(frozen=True)
class Part:
    """What becomes one file of each format.

    Attributes:
        name: of the file.
        module: what is exported.
        reference: what the network itself computes of the same inputs.
        examples: name -> tensor of each input; the first axis is the batch.
        output: name of the output.
    """

    name: str
    module: nn.Module
    reference: Callable[..., Tensor]
    examples: dict[str, Tensor]
    output: str

    def batch(self, size: int) -> Iterator[dict[str, Tensor]]:
        """The examples, so many samples at a time."""
        length = len(next(iter(self.examples.values())))
        for first in range(0, length, size):
            yield {name: tensor[first : first + size] for name, tensor in self.examples.items()}


@torch.no_grad()
def parts_of(network: MSGLDM, size: int) -> list[Part]:
    """All parts, with an example of every subset of contrasts as their inputs; the images (size, size) are noise."""
    draw = torch.Generator().manual_seed(0)
    m = len(network.contrasts)
    subsets = [subset for subset in itertools.product((0.0, 1.0), repeat=m) if any(subset)]
    presence, b = torch.tensor(subsets), len(subsets)
    exam = torch.rand(b, network.in_channels, size, size, generator=draw)
    exam[:, m : 2 * m] = presence[:, :, None, None]
    around = 2 * m + network.region_channels
    exam[:, 2 * m : around] = exam[:, 2 * m : around].round()
    if network.region_mask:
        exam[:, around - 1] = torch.arange(b).reshape(b, 1, 1) % 2
    image, _, region = read_exam(exam, m, network.region_channels)
    structure = network.disentanglement.encode_structure(image, presence, region).fused
    available = network.encode_available(image, presence)
    # no empty image, which group normalisation divides by a deviation of nothing but rounding
    noise = torch.rand(b, 1, size, size, generator=draw)
    mean = network.encode(noise)
    latent = torch.randn(mean.shape, generator=draw)
    timestep = torch.randint(len(network.alphas_cumprod), (b,), generator=draw)
    target = torch.randint(m, (b,), generator=draw)
    conditions = {"structure": structure, "available": available, "presence": presence, "mean": mean}
    steps = {"latent": latent, "timestep": timestep, "target": target}

    def encode_structure(exam: Tensor) -> Tensor:
        image, presence, region = read_exam(exam, m, network.region_channels)
        return network.disentanglement.encode_structure(image, presence, region).fused

    def denoise(latent: Tensor, timestep: Tensor, target: Tensor, *conditions: Tensor) -> Tensor:
        rows = [slice(k, k + 1) for k in range(len(latent))]  # the network takes one target and one step at a time
        made = [(row, network.diffusion.condition(*(tensor[row] for tensor in conditions))) for row in rows]
        return torch.cat(
            [network._clean(int(target[row]), condition, latent[row], int(timestep[row])) for row, condition in made]
        )

    return [
        Part("mean", MeanPath(network), network, {"exam": exam}, "pred"),
        Part("structure", StructurePath(network), encode_structure, {"exam": exam}, "structure"),
        Part("encoder", Encoder(network), network.encode, {"image": noise}, "latent"),
        Part("denoiser", Denoiser(network), denoise, {**steps, **conditions}, "clean"),
        Part("decoder", Decoder(network), network.decode, {"latent": latent}, "image"),
    ]


def write_torchscript(part: Part, path: Path) -> None:
    """Trace a part. Nothing in it depends on the values of its inputs, so a trace is the whole of it."""
    with torch.no_grad(), warnings.catch_warnings():
        # of checks of the image's side, which the trace leaves out, and of torch's plans for TorchScript
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        example = tuple(next(part.batch(TRACED)).values())
        # its own check repeats the example; what is written is checked on other ones
        torch.jit.save(torch.jit.trace(part.module.eval(), example, check_trace=False), str(path))


def write_onnx(part: Part, path: Path) -> None:
    """Export a part with a free batch size."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # lines about operators of packages that are not there
    example = next(part.batch(TRACED))
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the exporter, about itself
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # that several inputs share: so they should
        program = torch.onnx.export(
            part.module.eval(),
            tuple(example.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=[part.output],
            dynamic_shapes=tuple({0: batch} for _ in example),
            verbose=False,
        )
    assert program is not None
    program.save(path)


def run_torchscript(path: Path) -> Callable[..., Tensor]:
    """A function of the inputs, by name."""
    module = torch.jit.load(str(path))
    return lambda **inputs: module(*inputs.values())


def run_onnx(path: Path) -> Callable[..., Tensor]:
    """A function of the inputs, by name, that onnxruntime computes on the CPU."""
    return session(path, "CPUExecutionProvider")


def run_tensorrt(path: Path) -> Callable[..., Tensor]:
    """A function of the inputs, by name, that TensorRT computes; its engines are kept beside the ONNX file.

    Written by onnxruntime's documentation and never run: there was no GPU.
    """
    options = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(path.parent),
        "trt_engine_cache_prefix": path.stem,
    }
    return session(path, "TensorrtExecutionProvider", options)


def session(path: Path, provider: str, options: dict[str, Any] | None = None) -> Callable[..., Tensor]:
    """An ONNX file as a function of its inputs.

    Raises:
        InputError: onnxruntime, or what should compute, is not there; onnxruntime itself would take the CPU.
    """
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        remedy = "Install onnxruntime-gpu and TensorRT on a machine with an NVIDIA GPU"
        raise InputError(f"this onnxruntime has no {provider}", remedy)
    made = onnxruntime.InferenceSession(str(path), providers=[(provider, options or {})])
    return lambda **inputs: torch.from_numpy(made.run(None, {key: value.numpy() for key, value in inputs.items()})[0])


@torch.no_grad()
def difference(part: Part, run: Callable[..., Tensor]) -> float:
    """Largest difference from PyTorch over all examples."""
    return max(float((run(**inputs) - part.reference(*inputs.values())).abs().max()) for inputs in part.batch(CHECKED))


def export(
    network: MSGLDM, output_dir: Path, size: int, formats: Sequence[str], tensorrt: bool = False, weights: str = ""
) -> dict[str, dict[str, float]]:
    """Write every part in every format, and export.json with what a program needs to put them together.

    Args:
        network: on the CPU, in evaluation mode.
        output_dir: gets `<part>.ts`, `<part>.onnx` and export.json, all at once, if all could be checked.
        size: the image's side in pixels, a multiple of 16.
        formats: some of `FORMATS`.
        tensorrt: also build and check engines of the ONNX files.
        weights: checksum of the network's weights, for the record.

    Returns:
        By part and format, the largest difference from PyTorch, at most `TOLERANCE` (TensorRT: `TENSORRT_TOLERANCE`).

    Raises:
        InputError: the size cannot be used, or a package is not installed.
        ArithmeticError: a file does not compute what PyTorch computes.
    """
    if size < 2 * SIDE or size % SIDE:
        raise InputError(f"size is {size}", f"Use --size with a multiple of {SIDE} from {2 * SIDE} on")
    packages = ("onnx", "onnxscript", "onnxruntime") if "onnx" in formats else ()
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        remedy = "Install them: pip install -e '.[export]'; or do without: --formats torchscript"
        raise InputError(f"not installed: {', '.join(missing)}", remedy)
    writers = {"torchscript": write_torchscript, "onnx": write_onnx}
    runners = {"torchscript": run_torchscript, "onnx": run_onnx}
    differences: dict[str, dict[str, float]] = {}
    with staged(output_dir) as aside:
        for part in parts_of(network, size):
            found = differences[part.name] = {}
            for form in formats:
                path = aside / f"{part.name}{FORMATS[form]}"
                writers[form](part, path)
                found[form] = close(part, runners[form](path), path.name, TOLERANCE)
            if tensorrt:
                path = aside / f"{part.name}.onnx"
                found["tensorrt"] = close(part, run_tensorrt(path), f"{path.name} by TensorRT", TENSORRT_TOLERANCE)
        record = {
            "bundle_version": __version__,
            "weights_sha256": weights,
            "contrasts": network.contrasts,
            "size": size,
            "num_steps": network.num_steps,
            "start_level": network.start_level,
            "alphas_cumprod": network.alphas_cumprod.tolist(),
            "tolerance": TOLERANCE,
            "largest_difference": differences,
        }
        (aside / "export.json").write_text(as_json(record), encoding="utf-8")
    return differences


def close(part: Part, run: Callable[..., Tensor], name: str, tolerance: float) -> float:
    """The difference from PyTorch, which is told.

    Raises:
        ArithmeticError: it is larger than the tolerance.
    """
    found = difference(part, run)
    print(f"{name}: at most {found:.1e} from PyTorch", flush=True)
    if not found <= tolerance:
        raise ArithmeticError(f"{name} differs from PyTorch by {found:.1e}, more than {tolerance:.0e}.")
    return found


def read_network(config_file: Sequence[Path], weights: Path) -> tuple[MSGLDM, str]:
    """The network of a config with its weights, in evaluation mode on the CPU, and the checksum of the weights.

    Raises:
        InputError: the config is missing or describes another network, or the weights do not fit.
    """
    for path in config_file:
        if not path.is_file():
            raise InputError("the config is missing", "Name configs/inference.json of the bundle", path)
    parser = ConfigParser()
    parser.read_config([str(path) for path in config_file])
    network = parser.get_parsed_content("network_def")
    if not isinstance(network, MSGLDM):
        fault = f"its network is of type {type(network).__name__}"
        raise InputError(fault, "Give the config of an MSG-LDM: a plain network needs none of this", config_file[-1])
    return network.eval(), load_weights(network, weights)


def main(arguments: list[str] | None = None) -> None:
    """Export the network of a config."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("export"))
    parser.add_argument("--config_file", type=Path, nargs="+", default=[ROOT / "configs/inference.json"])
    parser.add_argument("--weights", type=Path, default=ROOT / "models/model.pt")
    parser.add_argument("--size", type=int, default=192, help="the image's side in pixels")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--tensorrt", action="store_true", help="also build and check TensorRT engines (untested)")
    options = parser.parse_args(arguments)
    if options.tensorrt and "onnx" not in options.formats:
        raise InputError("--tensorrt builds on the ONNX files", "Add onnx to --formats")
    network, checksum = read_network(options.config_file, options.weights)
    export(network, options.output_dir, options.size, options.formats, options.tensorrt, checksum)


if __name__ == "__main__":
    main()
