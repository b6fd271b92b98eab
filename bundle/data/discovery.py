"""Find the subjects in a folder and the scans of each: what files are there, never what is in them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bundle.data.contrasts import load_registry, select
from bundle.data.naming import (
    BESIDE,
    IMAGES_OF_MANY,
    OWN_RESULTS,
    SCAN_SUFFIXES,
    UNKNOWN,
    UNUSED,
    NamedFile,
    channel_names,
    label_convention,
    names_bids_subject,
    names_session,
    read_name,
    stem,
)
from bundle.errors import InputError

logger = logging.getLogger(__name__)

DERIVED = ("derivatives", "sourcedata", "code")  # beside the sub-* folders of a BIDS data set: not its scans
NOT_SCANS = (UNKNOWN, UNUSED, "label", "mask")


@dataclass
class _Subject:
    name: str
    folder: Path
    files: list[NamedFile] = field(default_factory=list)
    item: dict[str, Any] = field(default_factory=dict)

    @property
    def scans(self) -> list[NamedFile]:
        """Its scans of known contrasts; if there as acquired and preprocessed, the latter only."""
        scans = [file for file in self.files if file.kind not in NOT_SCANS]
        return [file for file in scans if file.rank == min(scan.rank for scan in scans)]

    @property
    def unknown(self) -> list[NamedFile]:
        return [file for file in self.files if file.kind == UNKNOWN]


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
        with "label_convention" (see `bundle.data.labels`), "mask" (a brain mask), "warnings" (a list of lines) and,
        where the subject cannot be used, "fault" (one line).

    Raises:
        InputError: the folder does not exist, holds no NIfTI file, or none of a wanted contrast.
    """
    registry, wanted = load_registry(overrides), [contrast.name for contrast in select(contrasts, overrides)]
    root = Path(dataset_dir).expanduser()
    if not root.is_dir():
        reason = "is not a folder" if root.exists() else "does not exist"
        raise InputError(reason, "Name the folder that holds the subjects' scans", root)
    paths, unreadable = _walk(root)
    if not paths and not unreadable:
        raise InputError("holds no NIfTI file (.nii, .nii.gz)", "Convert the scans first, e.g. with dcm2niix", root)

    channels = {folder: channel_names(folder) for folder in {path.parent for path in paths}}
    files = [read_name(path, root, registry, channels[path.parent]) for path in paths]
    found = [subject for folder in sorted({file.folder for file in files}) for subject in _divide(folder, files, root)]
    subjects = _without_strays(found, root)
    for subject in subjects:
        subject.item = _item(subject, root, wanted) if subject.scans else _unknown_item(subject, wanted)
    if not unreadable and not any(name in subject.item for subject in subjects for name in wanted):
        remedy = _naming_advice(paths[0])
        raise InputError(f"no file is named as one of the contrasts {', '.join(wanted)}", remedy, root)
    subjects += _report_unreadable(unreadable, subjects, root)
    _name_uniquely(subjects, root)
    return sorted((subject.item for subject in subjects), key=lambda item: item["subject"])


def scan_keys(item: Mapping[str, Any]) -> list[str]:
    """The keys of a datalist item under which there is a file: its contrasts, "label" and "mask"."""
    return [key for key in item if key not in ("subject", "fault", "warnings", "label_convention")]


def _walk(root: Path) -> tuple[list[Path], list[InputError]]:
    """All NIfTI files under the root, and what is wrong with the folders that cannot be entered."""
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
            elif name.endswith(SCAN_SUFFIXES) and not entry.is_dir():
                if not stem(entry).lower().endswith(OWN_RESULTS):
                    files.append(entry)
            elif entry.is_symlink() and (entry.is_dir() or not entry.exists()):
                fault = "is a link that leads nowhere or back to itself"
                faults.append(InputError(fault, "Remove it, or let it point to the scans", entry))

    visit(root, frozenset())
    return files, faults


def _divide(folder: Path, files: Sequence[NamedFile], root: Path) -> list[_Subject]:
    """Divide the files of one folder into subjects by their prefixes.

    BIDS prefixes name subject and session; a session's name is added to the folder's. Any other prefix is a subject of
    its own where the folder is the data set itself or is known to hold many, or where several such prefixes differ and
    one of them has more than one contrast; else it belongs to the folder's one subject.
    """
    mine = [file for file in files if file.folder == folder]
    scans = [file for file in mine if file.kind not in NOT_SCANS]
    free = {file.prefix for file in scans if not _names_subject(file.prefix)}
    kinds = {prefix: {file.kind for file in scans if file.prefix == prefix} for prefix in free - {""}}
    several = "" not in free and len(kinds) > 1 and max(map(len, kinds.values())) > 1
    many = folder == root or several or any(file.flat for file in mine)

    only_label = sum(file.kind == "label" for file in mine) == 1  # then however it is named: W39_1998.09.19_Segm

    subjects: dict[str, _Subject] = {}
    for file in mine:
        key = file.prefix
        if many and file.kind == UNKNOWN:  # a further contrast of a subject (IXI: -MRA) is no further subject
            key = next((prefix for prefix in sorted(kinds, reverse=True) if key.startswith(prefix)), key)
        elif not many and (key in free or file.kind == UNKNOWN or (file.kind == "label" and only_label)):
            key = key if _names_subject(key) else ""
        subjects.setdefault(key, _Subject(_subject_name(key, folder), folder)).files.append(file)
    return list(subjects.values())


def _names_subject(prefix: str) -> bool:
    return names_bids_subject(prefix) or names_session(prefix)


def _subject_name(key: str, folder: Path) -> str:
    if key and not names_session(key):
        return key
    home = folder.resolve() if folder.name in ("", "..") else folder
    name = f"{home.parent.name}_{home.name}" if names_session(home.name) else home.name
    return f"{name}_{key}" if key else name


def _without_strays(subjects: Sequence[_Subject], root: Path) -> list[_Subject]:
    """Subjects with scans of a known contrast, and those of which nothing but unknown files is there.

    Masks alone make no subject, nor do other files beside, above or below a subject's scans.
    """
    homes = {subject.folder for subject in subjects if subject.scans}
    around = {folder for home in homes - {root} for folder in (home, *home.parents)}
    kept = []
    for subject in subjects:
        flat = any(file.flat for file in subject.unknown)
        below = any(home in subject.folder.parents for home in homes - {root})
        if subject.scans or (subject.unknown and not below and (flat or subject.folder not in around)):
            kept.append(subject)
        elif subject.unknown and subject.folder == root:
            logger.warning("%s: not used, its name ends with no known contrast", subject.unknown[0].path)
    return kept


def _item(subject: _Subject, root: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The datalist item of a subject with scans of known contrasts."""
    item: dict[str, Any] = {"subject": subject.name, "warnings": []}
    scans = subject.scans
    kinds = sorted({scan.kind for scan in scans})
    if not set(kinds) & set(wanted):
        remedy = "Add a scan of one of these, or name its contrast in 'contrasts'"
        fault = InputError(f"has {', '.join(kinds)}, but none of {', '.join(wanted)}", remedy, subject.folder)
        item["fault"] = str(fault)
    for name in wanted:
        found = [scan.path for scan in scans if scan.kind == name]
        if len(found) == 1:
            item[name] = str(found[0])
        elif found:
            fault = InputError(
                f"{len(found)} files for one contrast, {name}: {_listed(found, root)}",
                "Keep one of them, or give the other a name that ends otherwise",
                subject.folder,
            )
            item["fault"] = str(fault)
    if any(scan.assumed for scan in scans):
        item["warnings"].append(
            "numbered files were taken in the Decathlon's order (0000 FLAIR, 0001 T1, 0002 T1CE, 0003 T2): "
            "no dataset.json says what the numbers mean"
        )
    for key in ("label", "mask"):
        files = [file for file in subject.files if file.kind == key and file.rank in (scans[0].rank, BESIDE)]
        if len(files) == 1:
            item[key] = str(files[0].path)
        elif files:
            item["warnings"].append(f"several {key} files, none is used: {_listed([f.path for f in files], root)}")
        if len(files) == 1 and key == "label":
            item["label_convention"] = label_convention(files[0], scans)
    return item


def _unknown_item(subject: _Subject, wanted: Sequence[str]) -> dict[str, Any]:
    """The datalist item of files of which none is of a known contrast."""
    paths = [file.path for file in subject.unknown]
    names = _listed(paths[:4], paths[0].parent) + (" ..." if len(paths) > 4 else "")
    fault = InputError(
        f"none of the contrasts {', '.join(wanted)} by the names of its files ({names})",
        _naming_advice(paths[0]),
        paths[0] if len(paths) == 1 else subject.folder,
    )
    return {"subject": subject.name, "warnings": [], "fault": str(fault)}


def _listed(paths: Sequence[Path], folder: Path) -> str:
    return " and ".join(os.path.relpath(path, folder) for path in paths)


def _naming_advice(path: Path) -> str:
    if IMAGES_OF_MANY.fullmatch(path.parent.name):
        return (
            "If it is a 4-D file of the Decathlon, which holds all contrasts, split it into one 3-D file per contrast, "
            f"{stem(path)}_0000.nii.gz and so on"
        )
    return "Name files as <subject>_t1.nii.gz, or add the ending of your names to the contrast's row in the registry"


def _report_unreadable(faults: Sequence[InputError], subjects: Sequence[_Subject], root: Path) -> list[_Subject]:
    """What cannot be entered is a warning to the subject that it lies in, else it stands for a subject that failed."""
    failed = []
    for fault in faults:
        path = Path(str(fault.path))
        owners = [subject for subject in subjects if subject.folder != root and subject.folder in path.parents]
        for subject in owners:
            subject.item["warnings"].append(str(fault))
        if not owners:
            name = path.name if path != root else root.resolve().name
            failed.append(_Subject(name, path, item={"subject": name, "warnings": [], "fault": str(fault)}))
    return failed


def _name_uniquely(subjects: Sequence[_Subject], root: Path) -> None:
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


def _names_above(subject: _Subject, root: Path) -> list[str]:
    """The names of the folders between a subject and the root, nearest first, that its own name does not contain."""
    parts = subject.folder.relative_to(root).parts[::-1]
    return [part for part in parts if f"_{part}_" not in f"_{subject.name}_"]
