"""The registry of contrasts: what each is called in file names, and how its intensities are scaled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import InputError

REGISTRY = Path(__file__).with_name("contrasts.json")
ROLES = ("both", "input", "target")
RESERVED = (
    "subject",
    "label",
    "label_convention",
    "mask",
    "fault",
    "warnings",
    "unused",
    "image",
    "pred",
    "brain",
    "intensity",
)


@dataclass(frozen=True)
class Percentiles:
    """Scale by two percentiles of the voxels in the brain, 0 <= low < high <= 100: they become 0 and `level`.

    With the 50th as `high` the typical brain is equally bright in all exams, however bright their lesions and vessels.
    """

    low: float = 0.5
    high: float = 99.5
    level: float = 1.0

    def __str__(self) -> str:
        return f"0 and {self.level:g} stand for the {self.low:g} and {self.high:g} percentile inside the brain"


@dataclass(frozen=True)
class Window:
    """Scale by two fixed intensities (in CT: Hounsfield units), low < high."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"0 and 1 stand for {self.low:g} and {self.high:g} of the scan"


@dataclass(frozen=True)
class Contrast:
    """One row of the registry.

    Attributes:
        name: lower case, as commands and results call it.
        patterns: what it is called in file names, without regard to case. Plain words ("mprage", "t1 weighted") count
            anywhere in a name. Any other pattern is a regular expression for what ends a name (its extension aside),
            after the start or one of ``- _ .`` and blank; it comes before all words, and of several the longest match.
        gadolinium: shows what only contrast agent shows.
        intensity: how intensities become [0, 1].
        role: "both", or "input" (is never synthesised) or "target" (is never given to the network).
    """

    name: str
    patterns: tuple[str, ...]
    gadolinium: bool = False
    intensity: Percentiles | Window = Percentiles()
    role: str = "both"


def load_registry(overrides: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Contrast]:
    """Every known contrast by its name, in registry order.

    Args:
        overrides: rows in the form of `contrasts.json`. The fields given replace those of a known contrast; an unknown
            name is a new row and needs its "patterns".

    Raises:
        InputError: a row that makes no sense; it names the row and the field.
    """
    rows: dict[str, dict[str, Any]] = json.loads(REGISTRY.read_text(encoding="utf-8"))
    for name, row in (overrides or {}).items():
        if not isinstance(row, Mapping):
            raise InputError(f"contrast '{name}': is not a set of fields", "Give it fields as in contrasts.json")
        rows[name] = {**rows.get(name, {}), **row}
    return {name: _contrast(name, row) for name, row in rows.items()}


def select(names: Sequence[str], overrides: Mapping[str, Mapping[str, Any]] | None = None) -> list[Contrast]:
    """The rows of the named contrasts, in the order given.

    Raises:
        InputError: a name that the registry does not know, a name given twice, or no name.
    """
    registry = load_registry(overrides)
    unknown = [name for name in names if name not in registry]
    if unknown:
        raise InputError(
            f"unknown contrast {_quoted(unknown)}",
            f"Known are {_quoted(registry)}; add a row with its file-name patterns to the registry for another",
        )
    if not names or len(set(names)) < len(names):
        raise InputError(f"contrasts {list(names)} are none, or name one twice", "Name each contrast once")
    return [registry[name] for name in names]


def _contrast(name: str, row: Mapping[str, Any]) -> Contrast:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
        raise InputError(
            f"contrast '{name}': this name cannot be used",
            f"Use lower-case letters, digits and _, and none of {_quoted(RESERVED)}",
        )
    unknown = [field for field in row if field not in ("patterns", "gadolinium", "intensity", "role")]
    if unknown:
        raise InputError(
            f"contrast '{name}': unknown field {_quoted(unknown)}", "Known: patterns, gadolinium, intensity, role"
        )
    role, gadolinium = row.get("role", "both"), row.get("gadolinium", False)
    if role not in ROLES:
        raise InputError(f"contrast '{name}': role '{role}' is unknown", f"Use one of {_quoted(ROLES)}")
    if not isinstance(gadolinium, bool):
        raise InputError(f"contrast '{name}': gadolinium is neither true nor false", "Use true or false")
    return Contrast(name, _patterns(name, row.get("patterns")), gadolinium, _intensity(name, row), role)


def _patterns(name: str, patterns: Any) -> tuple[str, ...]:
    if not isinstance(patterns, Sequence) or isinstance(patterns, str) or not patterns:
        raise InputError(f"contrast '{name}': has no list of file-name patterns", 'Write "patterns": ["..."]')
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InputError(
                f"contrast '{name}': pattern {pattern!r} is no regular expression ({error})", "Correct it"
            ) from error
    return tuple(patterns)


def _intensity(name: str, row: Mapping[str, Any]) -> Percentiles | Window:
    rule = row.get("intensity", {"percentiles": (Percentiles.low, Percentiles.high)})
    remedy = (
        'Write {"percentiles": [0.5, 99.5]}, {"percentiles": [0.5, 50], "level": 0.4} with a level in 0..1, or '
        '{"window": [0, 80]}, the lower number first'
    )
    match rule:
        case {"percentiles": [int() | float() as low, int() | float() as high], **others}:
            level = others.pop("level", 1.0)
            if not others and 0 <= low < high <= 100 and isinstance(level, int | float) and 0 < level <= 1:
                return Percentiles(low, high, level)
        case {"window": [int() | float() as low, int() | float() as high]} if low < high:
            return Window(low, high)
    raise InputError(f"contrast '{name}': intensity rule {rule!r} is unknown", remedy)


def _quoted(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
