"""Missing brain MRI contrasts, synthesised: the library of the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bundle.api import synthesise as synthesise

__version__ = "0.12.0"


def __getattr__(name: str) -> Any:
    """`bundle.synthesise`, imported when it is asked for: it needs PyTorch and MONAI, which take seconds to load."""
    if name == "synthesise":
        from bundle.api import synthesise

        return synthesise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
