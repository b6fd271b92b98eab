"""Which scan told the network what: the gates of MMSF, and what is lost when a scan is withheld."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from numpy import mean
from torch import Tensor, nn

from bundle.errors import InputError
from bundle.networks.msg_ldm import read_exam

NOTE = """\
Gate: how far MMSF opens for a contrast, from 0 (ignored) to 1, mean over the scales and over the voxels where a given
contrast is above 0; by the number of contrasts that were given. Lost: by how much a target's PSNR falls when the
contrast is withheld from what was given, mean over what else was given, then over subjects; below 0 the target is
better without it. Both describe this network on these subjects, not what a sequence is worth to a reader."""

Lost = dict[str, dict[str, float]]


class GateReport:
    """Note the gates of every call of a network; the gates depend on what is given, not on what is made.

    A network without MMSF (the baselines, `decoupled: false`) has no gates and an empty report.

    Args:
        network: `MSGLDM`, or any other.

    Example:
        >>> with GateReport(network) as gates:  # doctest: +SKIP
        ...     inferer(stack, network)
        >>> gates.report()  # doctest: +SKIP
        [{"given": ["t1", "t2"], "source": "t1", "scale": 1, "gate": 0.62}, ...]
    """

    def __init__(self, network: nn.Module) -> None:
        self.network, self.mmsf = network, mmsf_of(network)
        self.sums: dict[tuple[tuple[str, ...], str, int], Tensor] = defaultdict(lambda: torch.zeros(2))
        self.inside = torch.zeros(())

    def __enter__(self) -> GateReport:
        self.handles = []
        if self.mmsf:
            encoders = self.network.get_submodule("disentanglement.encoders")
            self.handles.append(encoders.register_forward_pre_hook(self._see))
        self.handles += [module.register_forward_hook(self._note) for module in self.mmsf]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self.handles:
            handle.remove()

    def report(self) -> list[dict[str, Any]]:
        """Mean gates as rows {"given": contrasts in channel order, "source": one of them, "scale": 1..L, "gate"}.

        A gate is averaged over the voxels inside the brain (where a given contrast is above 0) of all calls. Scale 1 is
        the finest.
        """
        return [
            {"given": list(given), "source": source, "scale": scale, "gate": float(total / voxels)}
            for (given, source, scale), (total, voxels) in self.sums.items()
            if voxels > 0
        ]

    def _see(self, encoders: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Keep where the brain is, (B, 1, H, W), in what is encoded."""
        image, presence = inputs
        given = image[:, : presence.shape[1]] * presence[:, :, None, None]
        self.inside = (given.amax(1, keepdim=True) > 0).float()

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Add the gates of one scale, (N, 1, H_l, W_l)."""
        _, sample, presence = inputs
        gates = output[1].float()
        h, w = gates.shape[2:]
        share = F.adaptive_avg_pool2d(self.inside, (h, w))[sample]  # of the brain in each place of the scale
        sums = torch.stack([(gates * share).sum((1, 2, 3)), share.sum((1, 2, 3))], dim=1).cpu()
        names: Sequence[str] = self.network.contrasts  # type: ignore[assignment]
        given = [tuple(name for name, there in zip(names, row) if there) for row in presence.tolist()]
        scale = self.mmsf.index(module) + 1
        contrast = presence.T.nonzero()[:, 0]  # the pairs come contrast by contrast
        for j, s, pair in zip(contrast.tolist(), sample.tolist(), sums):
            self.sums[given[s], names[j], scale] += pair


class GateMaps:
    """The gates as images: a network of slices for `VolumeInferer`, whose maps are 0 in slices without brain.

    Args:
        network: one with MMSF; in evaluation mode when it is called.

    Raises:
        InputError: the network has none.
    """

    def __init__(self, network: nn.Module) -> None:
        if not mmsf_of(network):
            fault = f"gate_maps is true, but {type(network).__name__} has no gates with these settings"
            raise InputError(fault, "Leave --gate_maps out")
        self.network: Any = network

    def __call__(self, x: Tensor) -> Tensor:
        """The network's input (B, 2M [+ more], H, W) -> w_j in [0, 1], mean over the scales, (B, M, H, W).

        Scales are brought to full size bilinearly; the maps of absent contrasts are 0.
        """
        m = len(self.network.contrasts)
        image, presence, _ = read_exam(x, m, self.network.region_channels)
        structure = self.network.disentanglement.encode_structure(image, presence)
        contrast, sample = presence.T.nonzero(as_tuple=True)
        maps = x.new_zeros(len(x), m, *x.shape[2:])
        full = [F.interpolate(w.to(x.dtype), x.shape[2:], mode="bilinear") for w in structure.gates]
        maps[sample, contrast] = torch.stack(full).mean(0).squeeze(1)
        return maps


def mmsf_of(network: nn.Module) -> list[nn.Module]:
    """The MMSF modules of a network, finest scale first; none where it has none."""
    return list(getattr(getattr(network, "disentanglement", None), "mmsf", None) or [])


def value_of_sources(rows: Sequence[Mapping[str, Any]], measure: str = "psnr") -> Lost:
    """Target -> source -> what is lost when the source is withheld, in the units of the measure.

    That is the measure given S less the measure given S without the source: the mean over the sets S of a subject, then
    over the subjects. Pairs of which one set was not evaluated, or of which the measure is infinite, do not count.

    Args:
        rows: of results.json; only those of method "network" are looked at.
        measure: one of which higher is better.
    """
    known = {
        (row["subject"], row["target"], frozenset(row["given"])): row[measure]
        for row in rows
        if row["method"] == "network" and row.get(measure) is not None and isfinite(row[measure])
    }
    differences: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (subject, target, given), value in known.items():
        for source in given:
            without = known.get((subject, target, given - {source}))
            if without is not None:
                differences[target, source][subject].append(value - without)
    lost: Lost = {}
    for (target, source), subjects in sorted(differences.items()):
        lost.setdefault(target, {})[source] = float(mean([mean(values) for values in subjects.values()]))
    return lost


def as_markdown(gates: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], contrasts: Sequence[str]) -> str:
    """The table source x (mean gate by number given | PSNR lost per target), with its caption; "" if nothing is known.

    Args:
        gates: of `GateReport.report`; may be empty.
        rows: of results.json.
        contrasts: names in the order of the lines.
    """
    lost = value_of_sources(rows)
    counts = sorted({len(row["given"]) for row in gates})
    targets = [name for name in contrasts if name in lost]
    if not counts and not targets:
        return ""
    head = ["source", *(f"gate, {count} given" for count in counts), *(f"lost for {name} (dB)" for name in targets)]
    lines = ["## Which scan told it what", "", NOTE, "", _line(head), "|---" * len(head) + "|"]
    for source in contrasts:
        cells = [source]
        for count in counts:
            found = [row["gate"] for row in gates if row["source"] == source and len(row["given"]) == count]
            cells.append(f"{mean(found):.2f}" if found else "-")
        cells += [f"{lost[name][source]:+.2f}" if source in lost[name] else "-" for name in targets]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
