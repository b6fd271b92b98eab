"""Which of a subject's files is used for what, and why the others are not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.data.naming import BESIDE, REGISTERED, TEMPLATE, UNKNOWN, NamedFile
from bundle.errors import InputError

SAY_WHICH = "Run 'list', correct the row of the datalist.csv that it writes, and pass that as --datalist"
FAMILIES = {"t1": ("t1", "t1ce"), "t2": ("t2", "flair")}  # what an unknown word after T1 or T2 may mean


@dataclass
class Choice:
    """What is used of a subject's files.

    Attributes:
        used: contrast, "label" or "mask" -> file.
        unused: the other files, each with the reason.
        fault: where the subject cannot be used, what is wrong and what to do.
        warnings: what the user has to know.
    """

    used: dict[str, NamedFile] = field(default_factory=dict)
    unused: list[tuple[NamedFile, str]] = field(default_factory=list)
    fault: tuple[str, str] | None = None
    warnings: list[str] = field(default_factory=list)


def choose(files: Sequence[NamedFile], wanted: Sequence[str], root: Path) -> Choice:
    """Choose among the files of one subject.

    Scans of the lowest rank are used, on one grid, then those without skull, then those that were corrected. Where two
    files are left for one contrast the subject is refused: nothing says which is meant.

    Args:
        files: the subject's, of which at least one is a scan.
        wanted: the contrasts that are asked for.
        root: the data set's folder, for the messages.
    """
    choice = Choice()
    scans = [file for file in files if file.is_scan]
    rank = min(scan.rank for scan in scans)
    kinds = sorted({scan.kind for scan in scans})
    if not set(kinds) & set(wanted):
        remedy = "Add a scan of one of these, or name its contrast in 'contrasts'"
        choice.fault = (f"has {', '.join(kinds)}, but none of {', '.join(wanted)}", remedy)
    groups = {name: [s for s in scans if s.kind == name and s.rank == rank] for name in wanted}
    groups = {name: group for name, group in groups.items() if group}
    left_out = [name for name in wanted if name not in groups and any(s.kind == name for s in scans)]
    if left_out:
        others = [s.path for s in scans if s.kind in left_out]
        choice.fault = (f"{listed(others, root)} lies apart from the preprocessed scans", SAY_WHICH)
    space = _choose_space(groups, choice, root)
    for name, group in groups.items():
        best = _best(_on_grid(group, name, space))
        if len(best) == 1:
            choice.used[name] = best[0]
        elif choice.fault is None:
            paths = [file.path for file in best]
            choice.fault = (f"{len(best)} files for one contrast, {name}: {listed(paths, root)}", SAY_WHICH)
    _choose_beside(files, rank, space, choice, root)
    _report_unused(files, choice)
    return choice


def listed(paths: Iterable[Path], folder: Path) -> str:
    """Paths as seen from a folder, in a sentence."""
    return " and ".join(os.path.relpath(path, folder) for path in paths)


def _choose_space(groups: Mapping[str, Sequence[NamedFile]], choice: Choice, root: Path) -> str:
    """On whose grid the scans are taken: "" as acquired, see `Meaning.space`."""
    spaces = sorted({file.meaning.space for group in groups.values() for file in group})
    mixed = [group for group in groups.values() if len({file.meaning.space for file in group}) > 1]
    if not mixed:
        if TEMPLATE in spaces and len(spaces) > 1 and choice.fault is None:
            paths = [file.path for group in groups.values() for file in group if file.meaning.space == TEMPLATE]
            choice.fault = (f"only {listed(paths, root)} is in the space of a template", SAY_WHICH)
        return spaces[0] if len(spaces) == 1 else ""
    covered = {space: [n for n, group in groups.items() if _on_grid(group, n, space, True)] for space in spaces}
    most = max(map(len, covered.values()))
    best = [space for space in spaces if len(covered[space]) == most]
    if TEMPLATE not in best:
        complete = [
            s for s in best if s and all(any(f.meaning.space == s for f in g) or n == s for n, g in groups.items())
        ]
        named = [s for s in best if s in groups]
        best = (complete or named)[:1] if len(complete or named) == 1 else [s for s in best if not s] or best
    if choice.fault is None and (len(best) > 1 or most < len(groups)):
        paths = [file.path for file in mixed[0]]
        fault = f"{len(paths)} files for one contrast, {mixed[0][0].kind}, on different grids: {listed(paths, root)}"
        choice.fault = (fault, SAY_WHICH)
    return best[0]


def _on_grid(group: Sequence[NamedFile], name: str, space: str, strictly: bool = False) -> list[NamedFile]:
    """The files of one contrast on the grid of a space; those as acquired where none was brought there."""
    there = [file for file in group if file.meaning.space == space]
    if not there and space != TEMPLATE:
        there = [file for file in group if not file.meaning.space]
    return there if there or strictly else list(group)


def _best(group: Sequence[NamedFile]) -> list[NamedFile]:
    top = max((file.meaning.stripped, file.meaning.corrected) for file in group)
    return [file for file in group if (file.meaning.stripped, file.meaning.corrected) == top]


def _choose_beside(files: Sequence[NamedFile], rank: int, space: str, choice: Choice, root: Path) -> None:
    """The brain mask and the lesion's label map, if there is one of each."""
    for key in ("label", "mask"):
        found = [file for file in files if file.kind == key and file.rank in (rank, BESIDE)]
        found = [file for file in found if _same_grid(file.meaning.space, space, choice.used)]
        whole = [file for file in found if file.meaning.lesion != "part of a lesion"] or found
        if len(whole) == 1:
            choice.used[key] = whole[0]
        elif whole:
            paths = [file.path for file in whole]
            choice.warnings.append(f"several {key} files, none is used: {listed(paths, root)}")


def _same_grid(space: str, chosen: str, used: Mapping[str, NamedFile]) -> bool:
    """Whether a mask or label can be on the grid of one of the scans; the headers say so later."""
    if space in (TEMPLATE, REGISTERED):
        return space == chosen or any(file.meaning.space == space for file in used.values())
    return chosen != TEMPLATE


def _report_unused(files: Sequence[NamedFile], choice: Choice) -> None:
    taken = set(choice.used.values())
    for file in files:
        used = choice.used.get(file.kind)
        if file in taken:
            continue
        if file.meaning.reason:
            reason = file.meaning.reason
        elif used is not None and choice.fault is None:
            reason = f"{used.path.name} is used for {file.kind}"
        elif file.is_scan and choice.fault is None:
            reason = f"{file.kind} is not asked for"
        elif file.is_scan:
            reason = "it is not clear which file is meant"
        else:
            reason = f"it is one of several {file.kind} files, or lies on another grid than the scans"
        choice.unused.append((file, reason))


def may_hold(file: NamedFile, wanted: Sequence[str]) -> list[str]:
    """The contrasts asked for that an unused file may be; [] where it is known to be something else."""
    if file.kind != UNKNOWN:
        return []
    held = {name for hint in file.meaning.may_hold for name in FAMILIES.get(hint, (hint,))}
    return [name for name in wanted if not held or name in held]


def check_unread(item: Mapping[str, Any], made: Sequence[str]) -> None:
    """Refuse to make up a contrast that a file of the same subject may hold.

    Args:
        item: of a datalist, see `find_subjects`.
        made: the contrasts that are to be made.

    Raises:
        InputError: an unused file may be one of them that the subject lacks.
    """
    missing = {name for name in made if name not in item}
    unread = [entry for entry in item.get("unused", ()) if missing & set(entry["may_hold"])]
    if unread:
        names = sorted({name for entry in unread for name in entry["may_hold"] if name in missing}, key=made.index)
        more = f" (and {len(unread) - 1} more files)" if len(unread) > 1 else ""
        fault = f"{Path(unread[0]['file']).name}{more} may be the missing {', '.join(names)}: {unread[0]['reason']}"
        remedy = "Say in a --datalist which file is which (the command 'list' writes one), or add --ignore_unread True"
        raise InputError(fault, remedy, item["subject"])
