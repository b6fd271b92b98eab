"""Faults that the user can mend, told in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

INTERRUPTED = 130  # the exit status of a command that Ctrl-C ended, as shells have it


class InputError(ValueError):
    """A fault of what the user gave, with its remedy.

    ``str(error)`` is one line: ``path: fault. remedy``.

    Args:
        fault: what is wrong, without a full stop at the end.
        remedy: what to do about it, a sentence.
        path: the file or folder at fault, where there is one.

    Example:
        >>> str(InputError("holds no scan", "Name a folder that does", "/data"))
        '/data: holds no scan. Name a folder that does'
    """

    def __init__(self, fault: str, remedy: str, path: str | Path | None = None) -> None:
        # All three stay in `args`: pickle rebuilds an exception from them, as when a data loader's worker raises it.
        super().__init__(fault, remedy, path)
        self.fault, self.remedy, self.path = fault, remedy, path

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        return " ".join(f"{where}{self.fault}. {self.remedy}".splitlines())


def input_error_in(error: BaseException | None) -> InputError | None:
    """The first `InputError` among an exception and those that it was raised from; None where there is none.

    MONAI raises what went wrong in a config or a transform again as ``RuntimeError(...) from error``.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, InputError):
            return error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def report_plainly() -> None:
    """From here on, what ends the program is told as the user needs it.

    A fault of the input is one line on stderr (exit status 1), Ctrl-C is one line (exit status 130), and everything
    else stays the traceback that it was.
    """
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    fault = input_error_in(error)
    if fault is not None:
        print(f"error: {fault}", file=sys.stderr)
    elif issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED)  # Python would end itself by the signal instead, without a status
    else:
        sys.__excepthook__(kind, error, trace)
