"""The page of a run, written when it is over."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine, Events

from bundle.data.report import write_report
from bundle.engines.options import flag
from bundle.engines.ranks import is_first


class Report:
    """Write report.html once every subject was looked at; see `bundle.data.report`.

    Args:
        output_dir: of the inference.
        write: whether to write it at all.

    Raises:
        InputError: `write` is neither True nor False.
    """

    def __init__(self, output_dir: str | Path, write: bool | str = True) -> None:
        self.path = Path(str(output_dir)) / "report.html"
        self.wanted = flag("report", write)

    def attach(self, engine: Engine) -> None:
        """Listen to an evaluator that keeps a record of every subject in `records`."""
        if self.wanted and is_first():
            engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the page."""
        write_report(self.path, engine.records)  # type: ignore[attr-defined]
