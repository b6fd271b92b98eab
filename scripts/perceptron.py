"""Train the voxel-wise perceptron, the floor for every network that sees context.

    python -m scripts.perceptron --dataset_dir DATA --split_file SPLIT --output_file FLOOR.json

One small perceptron per target and set of given contrasts: each contrast from all the others, and from each single one.
It sees, of one voxel, the given contrasts at three Gaussian scales (3-D), the distance to the brain's boundary, and the
position in the brain's box. It trains on the split's training part and is scored on its test part, as the evaluation
scores a network. The file holds a row per subject, target and given contrasts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from scipy import ndimage
from torch import Tensor, nn
from tqdm import tqdm

from bundle.data.contrasts import Contrast, select
from bundle.data.output import as_json, write_text
from bundle.engines.provenance import command_line, commit
from bundle.engines.scoring import Scorer, Subject
from bundle.errors import report_plainly
from bundle.metrics.brain import psnr
from bundle.transforms.intensity import to_level

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "evaluate.json"
SCALES = (0.0, 1.5, 4.0)  # mm, standard deviations of the Gaussian; the grid has voxels of 1 mm
MEASURES = ("psnr", "correlation", "csf_error", "lesion_contrast")
UNITS, BATCH, LEARNING_RATE = 96, 8192, 3e-3
DISTANCE_UNIT = 50.0  # mm: the deepest voxels of a brain come to about 1

Perceptron = Callable[[Tensor], Tensor]  # features (N, F) -> intensity (N, 1)


class Table(NamedTuple):
    """Voxels of a subject's brain: contrast -> values (N, scales), and where they lie (N, 4)."""

    values: dict[str, Tensor]
    place: Tensor

    def features(self, given: Sequence[str]) -> Tensor:
        """What a perceptron sees that is given these contrasts: (N, scales * given + 4)."""
        return torch.cat([*(self.values[name] for name in given), self.place], dim=1)


def table_of(subject: Subject, scales: Sequence[float] = SCALES) -> Table:
    """All voxels of the brain, in the order of `subject.brain`."""
    brain = subject.brain
    values = {
        name: torch.stack([smoothed(image, sigma)[brain] for sigma in scales], dim=1)
        for name, image in subject.images.items()
    }
    return Table(values, place_of(brain))


def smoothed(image: Tensor, sigma: float) -> Tensor:
    """An image (X, Y, Z) under a Gaussian of this standard deviation in voxels; 0: as it is."""
    return image if sigma == 0 else torch.from_numpy(ndimage.gaussian_filter(image.numpy(), sigma))


def place_of(brain: Tensor) -> Tensor:
    """Distance to the boundary (50 mm are 1) and position in the brain's box (-1 to 1 per axis) of voxels: (N, 4)."""
    depth = torch.from_numpy(ndimage.distance_transform_edt(brain.numpy()))[brain] / DISTANCE_UNIT
    voxels = brain.nonzero().float()
    low, high = voxels.amin(0), voxels.amax(0)
    position = 2 * (voxels - low) / (high - low).clamp(min=1) - 1
    return torch.cat([depth[:, None].float(), position], dim=1)


def some(table: Table, count: int, generator: torch.Generator) -> Table:
    """That many voxels, drawn at random."""
    drawn = torch.randperm(len(table.place), generator=generator)[:count]
    return Table({name: values[drawn] for name, values in table.values.items()}, table.place[drawn])


def train(
    tables: Sequence[Table], given: Sequence[str], target: str, seconds: float, seed: int
) -> tuple[Perceptron, int]:
    """A perceptron for one target, after so many seconds of CPU time, and how many steps it made.

    Mean squared error, Adam, a learning rate that falls to 0 as a cosine; every voxel of the tables is drawn alike.
    """
    torch.manual_seed(seed)
    x = torch.cat([table.features(given) for table in tables])
    y = torch.cat([table.values[target][:, :1] for table in tables])
    mean, deviation = x.mean(0), x.std(0)
    network = nn.Sequential(
        nn.Linear(x.shape[1], UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    start, steps = time.process_time(), 0
    while (share := (time.process_time() - start) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * share))
        drawn = torch.randint(len(x), (BATCH,))
        loss = nn.functional.mse_loss(network((x[drawn] - mean) / deviation), y[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return (lambda features: network((features - mean) / deviation)), steps


@torch.no_grad()
def synthesis(network: Perceptron, table: Table, given: Sequence[str], subject: Subject, row: Contrast) -> Tensor:
    """The target (X, Y, Z) in [0, 1], 0 outside the brain, held to the level of its scale as every synthesis is."""
    volume = torch.zeros(subject.brain.shape)
    parts = table.features(given).split(1 << 18)
    volume[subject.brain] = torch.cat([network(part) for part in parts]).squeeze(1).clamp(0, 1)
    return (volume * to_level(volume, subject.brain, row)).clamp(0, 1)


def tasks(contrasts: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """Each contrast from all the others, then each from each single one: given contrasts, target."""
    rest = [(tuple(name for name in contrasts if name != target), target) for target in contrasts]
    return list(dict.fromkeys([*rest, *(((source,), target) for source, target in permutations(contrasts, 2))]))


def subjects(options: argparse.Namespace, part: str) -> Iterator[tuple[str, Subject]]:
    """The subjects of a part of the split, prepared as for the evaluation."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update({"dataset_dir": str(options.dataset_dir), "split_file": str(options.split_file), "split_part": part})
    dataset, contrasts = parser.get_parsed_content("dataset"), parser["contrasts"]
    for index, item in enumerate(tqdm(dataset.data, desc=part, unit="subject", disable=None)):
        if "fault" in item:
            raise SystemExit(f"{item['subject']}: {item['fault']}")
        yield item["subject"], Subject(dataset[index], contrasts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score the perceptrons of all tasks, and write the file after each."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of subjects")
    parser.add_argument("--split_file", type=Path, required=True, help="which of them train and test")
    parser.add_argument("--output_file", type=Path, required=True, help="JSON file of results")
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU time per perceptron (default: 30)")
    parser.add_argument("--voxels", type=int, default=300_000, help="per training subject (default: 300000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    learned = {name: some(table_of(one), options.voxels, generator) for name, one in subjects(options, "training")}
    tested = dict(subjects(options, "test"))
    tables = {name: table_of(one) for name, one in tested.items()}
    contrasts = next(iter(tested.values())).contrasts
    rules = {row.name: row for row in select(contrasts)}
    scorer = Scorer(MEASURES)
    trained: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for given, target in tasks(contrasts):
        needed = {*given, target}
        usable = {name: table for name, table in learned.items() if needed <= set(table.values)}
        asked = {name: subject for name, subject in tested.items() if needed <= set(subject.images)}
        if not usable or not asked:
            print(f"{target:6}from {', '.join(given)}: no subject of one of the parts has them", flush=True)
            continue
        network, steps = train(list(usable.values()), given, target, options.seconds, options.seed)
        for name, subject in asked.items():
            pred = synthesis(network, tables[name], given, subject, rules[target])
            where = subject.brain & subject.covered[target]
            row = {"subject": name, "given": list(given), "target": target, **scorer(pred, subject, target)}
            results.append({**row, "psnr_network_scale": psnr(pred, subject.images[target], where)})
            print(f"{target:6}from {', '.join(given):16}{name:22}{row['psnr']:6.2f} dB {row['correlation']:6.3f}")
        trained.append({"given": list(given), "target": target, "steps": steps, "subjects": list(usable)})
        print(f"{target:6}from {', '.join(given):16}{steps} steps, {len(usable)} training subjects", flush=True)
        report = {"command": command_line(), "commit": commit(), "perceptrons": trained, "results": results}
        write_text(options.output_file, as_json(report))


if __name__ == "__main__":
    main()
