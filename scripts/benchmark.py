"""Time inference part by part and as a whole, for one configuration or for two in turn, with random weights.

python -m scripts.benchmark
python -m scripts.benchmark --settings configs/paper.json mode=sample device=cuda:0
python -m scripts.benchmark --settings batch_size=4 --against batch_size=16 --repeats 5
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bundle.data.output import as_json, write_text
from bundle.engines.device import half_type
from bundle.engines.options import SynthesisOptions
from bundle.engines.synthesis import SynthesisEvaluator
from bundle.errors import InputError, report_plainly
from bundle.networks.msg_ldm import read_exam

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "inference.json"
START = "import monai.bundle, bundle.engines.synthesis, bundle.networks.msg_ldm, bundle.transforms.exam"
NOTES = """\
start: a new process imports what inference needs. read to write: the parts of one subject, in order. network: all its
slices; structure, mean, encode, step and decode are the calls of one batch of slices that it is made of. whole: the
subject from its files to its results, without start. Seconds are medians of wall-clock time; CPU: seconds of all
threads. GFLOP: what torch.utils.flop_counter counts (convolutions, products, attention), two per multiply-add. Peak:
GFLOP/s as a share of what one large matrix product reaches on this device in this dtype."""


@dataclass
class Timing:
    """What one call took, in seconds."""

    wall: float
    cpu: float


class Benchmark:
    """One configuration of inference on a made-up subject that lacks one contrast.

    Args:
        settings: files to merge after configs/inference.json, and `key=value` for any of its ids.
        shape: voxels of the subject's scans, 1 mm each.
        folder: a place for the subject, the weights and the results.
    """

    def __init__(self, settings: Sequence[str], shape: Sequence[int], folder: Path) -> None:
        parser = ConfigParser()
        parser.read_config([str(CONFIG), *(item for item in settings if "=" not in item)])
        parser.update({"dataset_dir": str(folder / "scans"), "output_dir": str(folder / "out"), "overwrite": True})
        parser.update(dict(map(parse, (item for item in settings if "=" in item))))
        write_subject(folder / "scans" / "made_up", given(parser.get_parsed_content("options")), shape)
        torch.manual_seed(0)
        torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
        parser.update({"weights": str(folder / "model.pt")})
        self.evaluator: SynthesisEvaluator = parser.get_parsed_content("evaluator")
        self.inferer: Any = self.evaluator.inferer.slices
        self.device, self.amp = torch.device(self.evaluator.state.device), bool(self.inferer.amp)
        self.batch_size: int = self.inferer.batch_size
        self.network: Any = self.evaluator.network.eval()
        self.folder = folder

    def parts(self) -> dict[str, Callable[[], Any]]:
        """The subject's way through the program, in order: name -> call; each leaves what the next ones need."""
        evaluator, d = self.evaluator, {}
        read, *prepare = [t for t in evaluator.dataset.transform.transforms if type(t).__name__ != "FindExamd"]
        item = evaluator.dataset.data[0]
        _, made = evaluator.options.plan(item)

        def run(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
            def part() -> None:
                d[name] = call()

            return part

        def prepared() -> Any:
            data = dict(d["read"])
            for transform in prepare:
                data = transform(data)
            return data

        def inverted() -> Any:
            pred, uncertainty = d["network"]
            further = {} if uncertainty is None else {"uncertainty": MetaTensor(uncertainty)}
            data = {**d["preprocess"], "pred": MetaTensor(pred), **further}
            d["made"] = evaluator.finished(data, made)
            return list(evaluator.brought_back(d["made"], item[d["made"]["reference"]]))

        def written() -> None:
            data, aside = d["made"], self.folder / "written"
            aside.mkdir(exist_ok=True)
            evaluator.write_images(aside, d["invert"], data, item[data["reference"]], made)

        return {
            "start": lambda: subprocess.run([sys.executable, "-W", "ignore", "-c", START], check=True),
            "read": run("read", lambda: read(item)),
            "preprocess": run("preprocess", prepared),
            **{name: run(name, call) for name, call in self.calls(lambda: d["preprocess"]["image"]).items()},
            "network": run("network", lambda: evaluator.synthesise(d["preprocess"]["image"], made)),
            "invert": run("invert", inverted),
            "write": written,
            "whole": self.whole,
        }

    def whole(self) -> None:
        """The subject as the command does it."""
        self.evaluator.run()
        if self.evaluator.records[0]["status"] != "done":
            raise RuntimeError(self.evaluator.records[0]["reason"])

    def calls(self, image: Callable[[], Tensor]) -> dict[str, Callable[[], Any]]:
        """The calls of the network for a batch of slices from the middle of a stack (2C, H, W, D): name -> call."""
        network = self.network
        d: dict[str, Any] = {}

        def structure() -> None:
            volume, count = convert_to_tensor(image(), track_meta=False), len(network.contrasts)
            rows, columns = self.inferer.window(volume[:count].ne(0).any(0))
            stack, every = volume[:, rows, columns].movedim(-1, 0), torch.arange(volume.shape[-1])
            first = max((len(every) - self.batch_size) // 2, 0)
            x = self.inferer.batch(stack, every[first : first + self.batch_size], every, count).to(self.device)
            batch, d["presence"], _ = read_exam(x, count, network.region_channels)
            d["image"] = batch.contiguous(memory_format=torch.channels_last)
            d["structure"] = network.disentanglement.encode_structure(d["image"], d["presence"])

        def mean() -> None:
            d["wanted"] = torch.zeros_like(d["presence"])
            d["target"] = int((1 - d["presence"][0]).argmax())
            d["wanted"][:, d["target"]] = 1
            d["mean"] = network.disentanglement.reconstruct_unseen(d["structure"], d["wanted"])[:, [d["target"]]]

        def encode() -> None:
            d["available"] = network.encode_available(d["image"], d["presence"])
            d["latent"] = network.encode(d["mean"].clamp(0, 1))

        def step() -> None:
            contrast = torch.full((len(d["latent"]),), d["target"], device=self.device)
            condition = network.diffusion.condition(
                d["structure"].fused, d["available"], d["presence"], d["latent"].float()
            )
            network.diffusion(d["latent"].float(), torch.full_like(contrast, 50), contrast, condition)

        def decode() -> None:
            network.decode(d["latent"])

        def quietly(call: Callable[[], None]) -> Callable[[], None]:
            def part() -> None:
                with torch.no_grad(), torch.autocast(self.device.type, half_type(self.device), enabled=self.amp):
                    call()

            return part

        calls = {"structure": structure, "mean": mean, "encode": encode, "step": step, "decode": decode}
        return {name: quietly(call) for name, call in calls.items()}

    def time(self, call: Callable[[], Any]) -> Timing:
        """Wall-clock and CPU seconds of a call, until the device is done."""
        self.wait()
        wall, cpu = time.perf_counter(), cpu_seconds()
        call()
        self.wait()
        return Timing(time.perf_counter() - wall, cpu_seconds() - cpu)

    def wait(self) -> None:
        """For a device that computes while Python goes on."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def dtype(self) -> torch.dtype:
        """In which most of the network computes."""
        return half_type(self.device) if self.amp else torch.float32

    def peak(self, side: int | None = None) -> float:
        """GFLOP/s of the product of two square matrices, the best of five."""
        n = side or (8192 if self.device.type == "cuda" else 2048)
        a, b = (torch.randn(n, n, device=self.device).to(self.dtype()) for _ in range(2))
        return 2e-9 * n**3 / min(self.time(lambda: a @ b).wall for _ in range(5))

    def memory(self) -> dict[str, float]:
        """The most that was held, in GiB: by this process, and on its GPU."""
        unit = 2**30 if sys.platform == "darwin" else 2**20  # ru_maxrss counts bytes or KiB
        found = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
        if self.device.type == "cuda":
            found["device"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return found


def parse(item: str) -> tuple[str, Any]:
    """`key=value` as an override of the config; values as in Python, or text."""
    key, value = item.split("=", 1)
    if key == "device":
        return key, f"$torch.device('{value}')"
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def check_files(settings: Sequence[str]) -> None:
    """InputError where a file of the settings is missing."""
    for file in (Path(item) for item in settings if "=" not in item):
        if not file.is_file():
            raise InputError("is no file of settings", "Name a JSON file, or key=value", file)


def cpu_seconds() -> float:
    """User and system time of this process and of those that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def given(options: SynthesisOptions) -> list[str]:
    """The contrasts of the made-up subject: all but the targets, or but the second (T1CE) where none are named."""
    made = options.targets or [row.name for row in options.rows() if row.role != "input"][:2][-1:]
    return [name for name in options.contrasts if name not in made]


def write_subject(folder: Path, contrasts: Sequence[str], shape: Sequence[int], lesion: bool = False) -> None:
    """Write noisy ellipsoids that fill the grid as a brain fills that of BraTS, with some brain in every slice.

    With `lesion` there is a mask, too, of one that reaches through a third of each axis.
    """
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    inside = (axes[0] / 0.6) ** 2 + (axes[1] / 0.75) ** 2 + (axes[2] / 1.01) ** 2 < 1
    random = np.random.default_rng(0)
    for name in contrasts:
        values = inside * (200 + 100 * axes[0] + 20 * random.standard_normal(shape, np.float32))
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.eye(4)), folder / f"made_up_{name}.nii.gz")
    if lesion:
        label = 2 * (np.maximum.reduce([np.abs(axis) for axis in axes]) < 1 / 3)
        nib.save(nib.Nifti1Image(label.astype(np.uint8), np.eye(4)), folder / "made_up_seg.nii.gz")


def measure(benchmarks: Sequence[Benchmark], repeats: int, skip: Sequence[str] = ()) -> list[dict[str, list[Timing]]]:
    """Time every part of every configuration `repeats` times, in turn, after one round that does not count."""
    parts = [{name: call for name, call in one.parts().items() if name not in skip} for one in benchmarks]
    found: list[dict[str, list[Timing]]] = [{name: [] for name in calls} for calls in parts]
    for number in range(repeats + 1):
        for benchmark, calls, timings in zip(benchmarks, parts, found):
            for name, call in calls.items():
                timing = benchmark.time(call)
                if number:
                    timings[name].append(timing)
    return found


def flops(benchmark: Benchmark) -> dict[str, float]:
    """GFLOP of the network's calls for one batch of slices, and of all slices."""
    evaluator = benchmark.evaluator
    data, (_, made) = evaluator.dataset[0], evaluator.options.plan(evaluator.dataset.data[0])
    calls = benchmark.calls(lambda: data["image"]) | {"network": lambda: evaluator.synthesise(data["image"], made)}
    counted = {}
    workers, benchmark.inferer.workers = benchmark.inferer.workers, 1  # the counter sees its own thread only
    for name, call in calls.items():
        with FlopCounterMode(display=False) as counter:
            call()
        counted[name] = counter.get_total_flops() / 1e9
    benchmark.inferer.workers = workers
    return counted


def report(benchmark: Benchmark, timings: Mapping[str, Sequence[Timing]], settings: Sequence[str]) -> dict[str, Any]:
    """What was measured of one configuration, as it goes to the JSON file."""
    counted, peak = flops(benchmark), benchmark.peak()
    parts: dict[str, dict[str, Any]] = {}
    for name, timed in timings.items():
        walls = [timing.wall for timing in timed]
        parts[name] = {"seconds": median(walls), "all_seconds": walls, "cpu_seconds": median(t.cpu for t in timed)}
        if name in counted:
            share = counted[name] / median(walls) / peak
            parts[name] |= {"gflop": counted[name], "share_of_peak": share}
    options = benchmark.evaluator.options
    return {
        "settings": list(settings),
        "device": str(benchmark.device),
        "device_name": device_name(benchmark.device),
        "threads": torch.get_num_threads(),
        "dtype": str(benchmark.dtype()).removeprefix("torch."),
        "batch_size": benchmark.batch_size,
        "mode": options.mode,
        "num_samples": options.num_samples,
        "num_steps": options.num_steps,
        "parameters": parameters(benchmark.network),
        "torch": torch.__version__,
        "peak_gflop_per_second": peak,
        "memory_gib": benchmark.memory(),
        "parts": parts,
    }


def parameters(network: nn.Module) -> dict[str, int]:
    """Numbers to learn: of all, and of each part of a part of the network."""
    parts = (f"{a}.{b}" for a, part in network.named_children() for b, _ in part.named_children())
    counts = {name: sum(p.numel() for p in network.get_submodule(name).parameters()) for name in parts}
    return {"all": sum(p.numel() for p in network.parameters()), **counts}


def device_name(device: torch.device) -> str:
    """The GPU's name, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"


def ratios(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Time of the second to that of the first, per part: median, least and most of the rounds."""
    result = {}
    for name, part in first["parts"].items():
        if name in second["parts"]:
            pairs = zip(part["all_seconds"], second["parts"][name]["all_seconds"])
            found = [b / a for a, b in pairs]
            result[name] = {"ratio": median(found), "least": min(found), "most": max(found)}
    return result


def table(result: Mapping[str, Any]) -> str:
    """One configuration as Markdown."""
    head = (
        f"{' '.join(result['settings']) or 'defaults'}: {result['device']} ({result['device_name']}), "
        f"{result['threads']} threads, {result['dtype']}, {result['batch_size']} slices a batch, "
        f"mode {result['mode']}, {result['num_steps']} steps, {result['parameters']['all'] / 1e6:.1f} M parameters; "
        f"peak {result['peak_gflop_per_second']:.0f} GFLOP/s; memory "
        + ", ".join(f"{name} {held:.2f} GiB" for name, held in result["memory_gib"].items())
    )
    lines = [head, "", "| part | seconds | least - most | CPU | GFLOP | of peak |", "|---|---|---|---|---|---|"]
    for name, part in result["parts"].items():
        walls = part["all_seconds"]
        counted = f"{part['gflop']:.1f} | {part['share_of_peak']:.0%}" if "gflop" in part else " | "
        spread = f"{min(walls):.3f} - {max(walls):.3f}"
        lines.append(f"| {name} | {part['seconds']:.3f} | {spread} | {part['cpu_seconds']:.3f} | {counted} |")
    return "\n".join(lines) + "\n"


def ratio_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """The comparison as Markdown."""
    lines = ["second / first", "", "| part | ratio | least - most |", "|---|---|---|"]
    lines += [f"| {name} | {r['ratio']:.2f} | {r['least']:.2f} - {r['most']:.2f} |" for name, r in found.items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file.

    Raises:
        InputError: no round is to be timed, or a file of settings is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told = "override files and key=value pairs, as in mode=sample num_steps=8 batch_size=4 amp=False device=cpu"
    parser.add_argument("--settings", nargs="*", default=[], help=told)
    parser.add_argument("--against", nargs="*", help="those of a second configuration, timed in turn with the first")
    parser.add_argument("--shape", nargs=3, type=int, default=(240, 240, 155), help="voxels of the made-up scans")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--skip", nargs="*", default=[], choices=("start", "whole"), help="what is not timed")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        raise InputError(f"repeats is {options.repeats}", "Use --repeats with a whole number of at least 1")
    chosen = [options.settings] if options.against is None else [options.settings, options.against]
    for settings in chosen:
        check_files(settings)
    with tempfile.TemporaryDirectory() as folder:
        benchmarks = [Benchmark(one, options.shape, Path(folder) / str(number)) for number, one in enumerate(chosen)]
        timings = measure(benchmarks, options.repeats, options.skip)
        results = [report(*one) for one in zip(benchmarks, timings, chosen)]
    content: dict[str, Any] = {"shape": list(options.shape), "repeats": options.repeats, "results": results}
    for result in results:
        print(table(result))
    if len(results) == 2:
        content["ratios"] = ratios(*results)
        print(ratio_table(content["ratios"]))
    print(NOTES)
    if options.output is not None:
        write_text(options.output, as_json(content))


if __name__ == "__main__":
    report_plainly()
    main()
