"""What the user may choose about a synthesis, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.data.choice import check_unread
from bundle.data.contrasts import Contrast, select
from bundle.errors import InputError

MODES = ("mean", "sample")


@dataclass(frozen=True)
class SynthesisOptions:
    """Which contrasts are made, and how.

    `mode` "mean" with one sample is the network's reconstruction, with N samples their average; "sample" is the
    diffusion sample of `seed`. N > 1 samples, of seeds `seed` to `seed` + N - 1, also give their standard deviation.

    Args:
        contrasts: names of the C contrasts in channel order.
        registry: overrides of the registry of contrasts.
        targets: names of the contrasts to make, also where they exist; None: those that are missing.
        mode: "mean" or "sample".
        num_samples: diffusion samples, at least 1.
        num_steps: denoising steps, 1 to `num_train_timesteps`.
        start_level: noise level at which denoising starts, in (0, 1]; 1 is pure noise.
        seed: of the first sample, at least 0.
        num_train_timesteps: T of the diffusion process.
        region_mask: the lesion label of a subject, where it has one, is a further input.
        noise_depth: slices of a sample within which its noise becomes another, at least 0; 0 is never.
        smallest_slice: side of what the network sees of a slice, in voxels, at least 1; it grows to hold the brain.
        mirrored: the reconstruction is the mean over slices and their mirror images; takes twice the time.
        three_planes: the reconstruction is the mean over axial, coronal and sagittal slices; takes three times as long.
        ignore_unread: make a missing contrast although a file of the subject that is not read may hold it.

    Raises:
        InputError: a value out of its range.
    """

    contrasts: Sequence[str]
    registry: Mapping[str, Any] | None = None
    targets: Sequence[str] | str | None = None
    mode: str = "mean"
    num_samples: int = 1
    num_steps: int = 8
    start_level: float = 0.02
    seed: int = 0
    num_train_timesteps: int = 1000
    region_mask: bool = False
    noise_depth: int = 0
    smallest_slice: int = 16
    mirrored: bool | str = False
    three_planes: bool | str = False
    ignore_unread: bool | str = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "contrasts", tuple(self.contrasts))
        if self.targets is not None:
            self._check_targets((self.targets,) if isinstance(self.targets, str) else self.targets)
        if self.mode not in MODES:
            raise InputError(f"mode {self.mode!r} is unknown", f"Use --mode {' or '.join(MODES)}")
        check_whole("num_samples", self.num_samples, 1)
        check_whole("num_steps", self.num_steps, 1, self.num_train_timesteps)
        check_whole("seed", self.seed, 0)
        check_whole("noise_depth", self.noise_depth, 0)
        check_whole("smallest_slice", self.smallest_slice, 1)
        for name in ("mirrored", "three_planes", "ignore_unread"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        level = self.start_level
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level <= 1:
            raise InputError(f"start_level {level!r} is not a level of noise", "Use a number above 0, at most 1")
        levels = round(level * (self.num_train_timesteps - 1))
        if self.samples and self.num_steps > levels:
            fault = f"num_steps is {self.num_steps}, but only {levels} noise levels lie below start_level {level}"
            raise InputError(fault, f"Use --num_steps with at most {levels}, or a higher --start_level")

    def _check_targets(self, targets: Any) -> None:
        known = [row.name for row in self.rows() if row.role != "input"]
        if not isinstance(targets, Sequence) or not targets:
            raise InputError(f"targets are {targets!r}", f"Use --targets with some of {', '.join(known)}")
        object.__setattr__(self, "targets", tuple(targets))
        for name in targets:
            if name not in known:
                fault = "can only be given, not made" if name in self.contrasts else "is unknown"
                raise InputError(f"target {name!r} {fault}", f"Use --targets with some of {', '.join(known)}")

    def rows(self) -> list[Contrast]:
        """The rows of the registry, in channel order."""
        return select(self.contrasts, self.registry)

    @property
    def inputs(self) -> list[str]:
        """The contrasts that the network may see: neither named as targets nor targets only."""
        return [row.name for row in self.rows() if row.role != "target" and row.name not in (self.targets or ())]

    @property
    def hidden(self) -> list[str]:
        """The contrasts that the network must not see."""
        return [name for name in self.contrasts if name not in self.inputs]

    @property
    def further_inputs(self) -> list[str]:
        """What else of a subject is read where it exists: a brain mask and, with `region_mask`, the lesion label."""
        return ["mask", "label"] if self.region_mask else ["mask"]

    @property
    def samples(self) -> int:
        """How many diffusion samples are drawn; 0 where the network's reconstruction is the result."""
        return 0 if self.mode == "mean" and self.num_samples == 1 else self.num_samples

    @property
    def views(self) -> str:
        """The option by which the reconstruction is a mean of several views; empty where it is none."""
        return "three_planes" if self.three_planes else "mirrored" if self.mirrored else ""

    def plan(self, item: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """The contrasts of a subject that are given to the network, and those that are made, in channel order.

        Raises:
            InputError: there is something to make, and nothing to make it from, or an unread file may hold it.
        """
        given = [name for name in self.inputs if name in item]
        made = [
            row.name
            for row in self.rows()
            if (row.name in self.targets if self.targets is not None else row.role != "input" and row.name not in item)
        ]
        if made and not given:
            fault = f"no scan is left to make {', '.join(made)} from"
            raise InputError(fault, f"Give at least one of {', '.join(self.inputs)}")
        if not self.ignore_unread:
            check_unread(item, made)
        return given, made

    def claim(self) -> dict[str, Any]:
        """What results depend on, for the sidecar."""
        return {
            "contrasts": self.contrasts,
            "registry": self.registry or {},
            "mode": self.mode,
            "num_samples": self.num_samples,
            "num_steps": self.num_steps,
            "start_level": self.start_level,
            "seed": self.seed,
            "region_mask": self.region_mask,
            "noise_depth": self.noise_depth,
            "smallest_slice": self.smallest_slice,
            "mirrored": self.mirrored,
            "three_planes": self.three_planes,
        }


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """InputError unless `value` is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} is {value!r}", f"Use --{name} with a whole number {limits}")


def flag(name: str, value: Any) -> bool:
    """A yes or no from the command line, where `true` arrives as text; InputError if it is neither."""
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        raise InputError(f"{name} is {value!r}", f"Use --{name} true or --{name} false")
    return known[str(value).lower()]


def check_switches(**values: Any) -> None:
    """InputError unless each value is True or False: `true` arrives from the command line as text, never false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}", f"Use --{name} True or --{name} False")
