"""Where results come from: the command, the state of the code, and the checksums of what was read."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bundle.data.discovery import scan_keys
from bundle.networks.weights import sha256

ROOT = Path(__file__).resolve().parents[2]


def command_line() -> str:
    """The command that runs, so that a shell would run it again from the same folder."""
    program, *arguments = sys.orig_argv
    return shlex.join([Path(program).name, *arguments])


def commit(root: Path = ROOT) -> str | None:
    """The git commit of a folder, with "+changes" behind it where tracked files differ from it.

    Args:
        root: the top of a working tree; anything else (an installed copy, perhaps inside another project) has none.
    """
    if not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        result = subprocess.run(describe, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return None
    return result.stdout.strip() or None


def checksums(items: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """SHA-256 of the files of each subject that can be used: subject -> contrast, "label" or "mask" -> checksum.

    Args:
        items: a datalist that `check_subjects` has checked.
    """
    return {
        item["subject"]: {key: sha256(item[key]) for key in scan_keys(item)} for item in items if "fault" not in item
    }
