"""Find the subjects in a folder and the scans of each: what files are there, never what is in them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from bundle.data.choice import SAY_WHICH, choose, listed, may_hold
from bundle.data.contrasts import load_registry, select
from bundle.data.grouping import Subject, divide, refuse_divided, refuse_unclear_agents, without_strays
from bundle.data.naming import (
    IMAGES_OF_MANY,
    OTHER_SUFFIXES,
    OWN_RESULTS,
    SCAN_SUFFIXES,
    UNKNOWN,
    NamedFile,
    folders_of_people,
    label_convention,
    read_folder,
    stem,
)
from bundle.data.words import Vocabulary
from bundle.errors import InputError

DERIVED = ("derivatives", "sourcedata", "code")  # beside the sub-* folders of a BIDS data set: not its scans
NO_PATHS = ("subject", "fault", "warnings", "unused", "label_convention")


def find_subjects(
    dataset_dir: str | Path,
    contrasts: Sequence[str],
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The subjects under a folder, as a MONAI datalist sorted by their names; no scan is opened.

    Args:
        dataset_dir: one folder per subject (also BIDS), or flat files grouped by subject, at any depth.
        contrasts: the names of the contrasts wanted.
        overrides: rows that change the registry, see `load_registry`.

    Returns:
        One item per subject: "subject" (unique), the path of each contrast found under the contrast's name, "label"
        with "label_convention" (see `bundle.data.labels`), "mask" (a brain mask), "warnings" (a list of lines),
        "unused" and, where the subject cannot be used, "fault" (one line). "unused" are the other image files of the
        subject, each as {"file", "kind": a contrast, "label", "mask", "other" or "unknown", "reason": why it is not
        used, "may_hold": the wanted contrasts that it may be}.

    Raises:
        InputError: the folder does not exist, holds no image file, or no file whose name says a wanted contrast.
    """
    registry, wanted = load_registry(overrides), [contrast.name for contrast in select(contrasts, overrides)]
    root = Path(dataset_dir).expanduser()
    if not root.is_dir():
        reason = "is not a folder" if root.exists() else "does not exist"
        raise InputError(reason, "Name the folder that holds the subjects' scans", root)
    paths, unreadable = _walk(root)
    if not paths and not unreadable:
        raise InputError("holds no NIfTI file (.nii, .nii.gz)", "Convert the scans first, e.g. with dcm2niix", root)

    vocabulary = Vocabulary(registry)
    beside: dict[Path, list[Path]] = {}
    for path in paths:
        beside.setdefault(path.parent, []).append(path)
    people = folders_of_people(beside, root, vocabulary)
    files = [file for group in beside.values() for file in read_folder(group, root, vocabulary, people)]
    homes: dict[Path, list[NamedFile]] = {}
    for file in files:
        homes.setdefault(file.folder, []).append(file)
    found = [subject for folder in sorted(homes) for subject in divide(folder, homes[folder], root)]
    subjects = without_strays(found, root)
    refuse_divided(subjects, root, vocabulary)
    refuse_unclear_agents(subjects, root, vocabulary)
    for subject in subjects:
        subject.item = _item(subject, root, wanted) if subject.scans else _unknown_item(subject, wanted)
    if not unreadable and not any(file.kind in wanted or _may_be_scan(file) for file in files):
        remedy = _naming_advice(paths[0])
        raise InputError(f"no file is named as one of the contrasts {', '.join(wanted)}", remedy, root)
    subjects += _report_unreadable(unreadable, subjects, root)
    _name_uniquely(subjects, root)
    return sorted((subject.item for subject in subjects), key=lambda item: item["subject"])


def scan_keys(item: Mapping[str, Any]) -> list[str]:
    """The keys of a datalist item under which there is a file: its contrasts, "label" and "mask"."""
    return [key for key in item if key not in NO_PATHS]


def _walk(root: Path) -> tuple[list[Path], list[InputError]]:
    """All image files under the root, and what is wrong with the folders that cannot be entered."""
    files: list[Path] = []
    faults: list[InputError] = []

    def visit(folder: Path, above: frozenset[str]) -> None:
        above = above | {os.path.realpath(folder)}
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            faults.append(InputError(f"cannot be read ({error.strerror})", "Make the folder readable", folder))
            return
        is_bids = any(entry.name.startswith("sub-") for entry in entries)
        for entry in entries:
            name = entry.name.lower()
            if name.startswith(".") or (is_bids and name in DERIVED):
                continue
            if entry.is_dir() and os.path.realpath(entry) not in above:
                visit(entry, above)
            elif name.endswith((*SCAN_SUFFIXES, *OTHER_SUFFIXES)) and not entry.is_dir():
                if not stem(entry).lower().endswith(OWN_RESULTS):
                    files.append(entry)
            elif entry.is_symlink() and (entry.is_dir() or not entry.exists()):
                fault = "is a link that leads nowhere or back to itself"
                faults.append(InputError(fault, "Remove it, or let it point to the scans", entry))

    visit(root, frozenset())
    return files, faults


def _may_be_scan(file: NamedFile) -> bool:
    """Whether a file that is not read is of another format, or says several contrasts, or one with a doubt."""
    unread = file.path.name.lower().endswith(OTHER_SUFFIXES)
    return unread or (file.kind == UNKNOWN and bool(file.meaning.may_hold))


def _item(subject: Subject, root: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The datalist item of a subject with scans of known contrasts."""
    choice = choose(subject.files, wanted, root)
    faults = subject.faults or ([choice.fault] if choice.fault else [])
    item: dict[str, Any] = {"subject": subject.name, "warnings": []}
    if faults:
        item["fault"] = str(InputError(*faults[0], subject.folder))
    item.update({key: str(file.path) for key, file in choice.used.items() if key in wanted})
    if any(file.assumed for file in choice.used.values()):
        item["warnings"].append(
            "numbered files were taken in the Decathlon's order (0000 FLAIR, 0001 T1, 0002 T1CE, 0003 T2): "
            "no dataset.json says what the numbers mean"
        )
    item["warnings"] += choice.warnings
    item.update({key: str(choice.used[key].path) for key in ("label", "mask") if key in choice.used})
    if "label" in item:
        item["label_convention"] = label_convention(choice.used["label"], subject.scans)
    item["unused"] = _unused(choice.unused, wanted)
    if not faults:
        item["warnings"] += [
            f"{os.path.relpath(entry['file'], root)} is not used: {entry['reason']}"
            for entry in item["unused"]
            if entry["may_hold"]
        ]
    return item


def _unused(files: Sequence[tuple[NamedFile, str]], wanted: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"file": str(file.path), "kind": file.kind, "reason": reason, "may_hold": may_hold(file, wanted)}
        for file, reason in files
    ]


def _unknown_item(subject: Subject, wanted: Sequence[str]) -> dict[str, Any]:
    """The datalist item of files of which none is of a known contrast."""
    files = subject.unread
    paths = [file.path for file in files]
    names = listed(paths[:4], paths[0].parent) + (" ..." if len(paths) > 4 else "")
    if all(map(_may_be_scan, files)):
        converted = all(path.name.lower().endswith(OTHER_SUFFIXES) for path in paths)
        remedy = "No other scan of the subject was found" if converted else SAY_WHICH
        fault = InputError(f"{names}: {files[0].meaning.reason}", remedy)
    else:
        fault = InputError(
            f"none of the contrasts {', '.join(wanted)} by the names of its files ({names})",
            _naming_advice(paths[0]),
            paths[0] if len(paths) == 1 else subject.folder,
        )
    unused = _unused([(file, file.meaning.reason) for file in subject.files], wanted)
    return {"subject": subject.name, "warnings": [], "unused": unused, "fault": str(fault)}


def _naming_advice(path: Path) -> str:
    if IMAGES_OF_MANY.fullmatch(path.parent.name):
        return (
            "If it is a 4-D file of the Decathlon, which holds all contrasts, split it into one 3-D file per contrast, "
            f"{stem(path)}_0000.nii.gz and so on"
        )
    return "Name files as <subject>_t1.nii.gz, or add the ending of your names to the contrast's row in the registry"


def _report_unreadable(faults: Sequence[InputError], subjects: Sequence[Subject], root: Path) -> list[Subject]:
    """What cannot be entered is a warning to the subject that it lies in, else it stands for a subject that failed."""
    failed = []
    for fault in faults:
        path = Path(str(fault.path))
        owners = [subject for subject in subjects if subject.folder != root and subject.folder in path.parents]
        for subject in owners:
            subject.item["warnings"].append(str(fault))
        if not owners:
            name = path.name if path != root else root.resolve().name
            failed.append(
                Subject(name, path, item={"subject": name, "warnings": [], "unused": [], "fault": str(fault)})
            )
    return failed


def _name_uniquely(subjects: Sequence[Subject], root: Path) -> None:
    """Put the names of the folders above before the names that occur twice, without regard to case, until none does."""
    for depth in count():
        counts = Counter(subject.item["subject"].lower() for subject in subjects)
        twice = [subject for subject in subjects if counts[subject.item["subject"].lower()] > 1]
        if not twice:
            return
        above = [_names_above(subject, root)[depth:] for subject in twice]
        for number, (subject, names) in enumerate(zip(twice, above, strict=True)):
            if names:
                subject.item["subject"] = f"{names[0]}_{subject.item['subject']}"
            elif not any(above):
                subject.item["subject"] += f"_{number + 1}"


def _names_above(subject: Subject, root: Path) -> list[str]:
    """The names of the folders between a subject and the root, nearest first, that its own name does not contain."""
    parts = subject.folder.relative_to(root).parts[::-1]
    return [part for part in parts if f"_{part}_" not in f"_{subject.name}_"]
