"""What the user may choose about a translation, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bundle.engines.options import SynthesisOptions, check_whole
from bundle.errors import InputError


@dataclass(frozen=True)
class TranslationOptions(SynthesisOptions):
    """`SynthesisOptions`, which contrasts may be sources, and the network's grid.

    Args:
        sources: names of the contrasts that the network may see; None: all that are no targets.
        spacing: edge of a voxel of the network's grid in mm, above 0.
        slice_size: edge of an axial slice in mm.

    Raises:
        InputError: an unknown source, or one that is a target; a grid that is none.
    """

    sources: Sequence[str] | str | None = None
    spacing: float = 1.0
    slice_size: int = 192

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("slice_size", self.slice_size, 1)
        if isinstance(self.spacing, bool) or not isinstance(self.spacing, int | float) or not self.spacing > 0:
            raise InputError(f"spacing is {self.spacing!r}", "Use --spacing with a number of millimetres above 0")
        if self.sources is None:
            return
        names = (self.sources,) if isinstance(self.sources, str) else self.sources
        known = super().inputs
        if not isinstance(names, Sequence) or not names or not set(names) <= set(known):
            raise InputError(f"sources are {self.sources!r}", f"Use --sources with some of {', '.join(known)}")
        object.__setattr__(self, "sources", tuple(names))

    @property
    def inputs(self) -> list[str]:
        """The contrasts that the network may see, in channel order."""
        return [name for name in super().inputs if self.sources is None or name in self.sources]

    def claim(self) -> dict[str, Any]:
        """See `SynthesisOptions`; what follows from the sources is told by the inputs."""
        return {**super().claim(), "spacing": self.spacing, "slice_size": self.slice_size}
