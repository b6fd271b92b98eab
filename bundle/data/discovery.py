"""Find the subjects in a folder and the scans of each: what files are there, never what is in them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

from bundle.data.choice import choose, listed, may_hold
from bundle.data.contrasts import load_registry, select
from bundle.data.naming import (
    IMAGES_OF_MANY,
    OTHER,
    OTHER_SUFFIXES,
    OWN_RESULTS,
    SCAN_SUFFIXES,
    TIME_POINT,
    UNKNOWN,
    Meaning,
    NamedFile,
    label_convention,
    read_folder,
    stem,
)
from bundle.data.words import Vocabulary, chunks, names_session
from bundle.errors import InputError

logger = logging.getLogger(__name__)

DERIVED = ("derivatives", "sourcedata", "code")  # beside the sub-* folders of a BIDS data set: not its scans
NO_PATHS = ("subject", "fault", "warnings", "unused", "label_convention")


@dataclass
class _Subject:
    name: str
    folder: Path
    key: str = ""
    files: list[NamedFile] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    item: dict[str, Any] = field(default_factory=dict)

    @property
    def scans(self) -> list[NamedFile]:
        """Its scans of known contrasts."""
        return [file for file in self.files if file.is_scan]

    @property
    def unread(self) -> list[NamedFile]:
        return [file for file in self.files if file.kind in (UNKNOWN, OTHER)]

    @property
    def kinds(self) -> set[str]:
        return {scan.kind for scan in self.scans}


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
    files = [file for group in beside.values() for file in read_folder(group, root, vocabulary)]
    homes: dict[Path, list[NamedFile]] = {}
    for file in files:
        homes.setdefault(file.folder, []).append(file)
    found = [subject for folder in sorted(homes) for subject in _divide(folder, homes[folder], root)]
    subjects = _without_strays(found, root)
    _refuse_divided(subjects, root)
    for subject in subjects:
        subject.item = _item(subject, root, wanted) if subject.scans else _unknown_item(subject, wanted)
    if not unreadable and not any(map(_says_something, files)):
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


def _says_something(file: NamedFile) -> bool:
    """Whether a file is, or may be, a scan of a contrast by its name, or is of a format that is not read."""
    unread = file.path.name.lower().endswith(OTHER_SUFFIXES)
    return file.is_scan or unread or (file.kind == UNKNOWN and bool(file.meaning.may_hold))


def _divide(folder: Path, files: Sequence[NamedFile], root: Path) -> list[_Subject]:
    """Divide the files of one folder into subjects by the words of their names that are in no table.

    BIDS names say subject and session; a session's name is added to the folder's. Any other such words are a subject of
    their own where the folder is the data set itself or is known to hold many, or where several differ and one
    contrast occurs with two of them; else all files belong to the folder's one subject.
    """
    many = folder == root or any(file.flat for file in files)
    files = [_without_rest(file, files, many) for file in files]
    scans = [file for file in files if file.is_scan]
    kinds: dict[str, set[str]] = {}
    for file in scans:
        if not file.bids:
            kinds.setdefault(file.key, set()).add(file.kind)
    twice = any(one & other for one, other in combinations(kinds.values(), 2)) if not many else True
    several = twice and "" not in kinds and len(kinds) > 1 and max(map(len, kinds.values())) > 1
    named = sorted(key for key in kinds if key)
    unclear = not many and not twice and len(named) > 1
    many = many or several

    subjects: dict[str, _Subject] = {}

    def place(file: NamedFile, key: str, session: str) -> None:
        name = "_".join(filter(None, (key, session)))
        subject = subjects.setdefault(name, _Subject(_subject_name(name, session, folder), folder, name))
        subject.files.append(file)
        if unclear and not subject.faults:
            said = f"the names of its scans hold different words ({', '.join(named)}): of one subject or of several?"
            subject.faults.append((said, "Give each subject a folder, or say it in a datalist.csv (--datalist)"))

    def owns(file: NamedFile) -> bool:
        return many or file.bids

    for file in scans:
        place(file, file.key if owns(file) else "", file.session)
    for file in files:
        if not file.is_scan:
            for key, session, placed in _owners(file, files, owns(file), list(kinds)):
                place(placed, key, session)
    return list(subjects.values())


def _without_rest(file: NamedFile, files: Sequence[NamedFile], many: bool) -> NamedFile:
    """The file without words after its contrast: they are the subject's name, a number of copies, or a doubt."""
    if not file.rest:
        return file
    scans = [other for other in files if other.is_scan]
    shared = len(scans) > 1 and len({scan.rest.lower() for scan in scans}) == 1
    alone = not any(scan.key for scan in scans)
    number = all(word.isdigit() for word in chunks(file.rest))
    if chunks(file.rest) == chunks(file.folder.name) or (number and (file.key or not many)):
        return replace(file, rest="")
    if not file.key and (many or (alone and all(scan.rest for scan in scans))):
        return replace(file, key=file.rest, rest="")
    if shared and (file.is_scan or file.rest.lower() == scans[0].rest.lower()):
        return replace(file, rest="")
    if file.kind in ("mask", "label"):
        return replace(file, meaning=Meaning(OTHER, reason=f"it is not known what '{file.rest}' in its name means"))
    if file.is_scan or file.kind == UNKNOWN:
        reason = file.meaning.reason or f"it is not known what '{file.rest}' in its name means"
        return replace(file.doubtful(reason), key="_".join(filter(None, (file.key, file.rest))), rest="")
    return file


def _owners(
    file: NamedFile, files: Sequence[NamedFile], by_key: bool, keys: Sequence[str]
) -> list[tuple[str, str, NamedFile]]:
    """The (key, session) of the subjects to which a file that is no scan belongs, and what it is to them."""
    own = file.key if by_key else ""
    scans = [other for other in files if other.is_scan]
    pairs = sorted({(scan.key if by_key or scan.bids else "", scan.session) for scan in scans})
    exact = [
        (key, session)
        for key, session in pairs
        if (key.lower(), session.lower()) == (own.lower(), file.session.lower())
    ]
    if not exact and by_key:  # a further image of a subject (IXI: -MRA) is no further subject
        words = set(chunks(own))
        within = [key for key, _ in pairs if key and words.issuperset(chunks(key))]
        own = max(within, key=len, default=own)
        exact = [pair for pair in pairs if pair == (own, file.session)]
    labels = file.kind in ("mask", "label")
    lone = file.kind == "label" and sum(other.kind == "label" for other in files) == 1
    if (
        not by_key and lone and len(pairs) == 1 and (not pairs[0][1] or not file.session)
    ):  # then however it is named: W39_1998.09.19_Segm
        return [(*pairs[0], file)]
    if not by_key and labels and file.key and file.key not in keys:
        reason = f"it is not known what '{file.key}' in its name means"
        file = replace(file, meaning=Meaning(OTHER, reason=reason))
    if exact:
        return [(*exact[0], file)]
    same = [pair for pair in pairs if pair[0] == own and not file.session]
    if len(same) == 1 and labels:
        return [(*same[0], file)]
    if same:
        other = Meaning(OTHER, reason="its name says no session") if labels else file.meaning
        return [(*pair, replace(file, meaning=other)) for pair in same]
    return [(own, file.session, file)]


def _subject_name(key: str, session: str, folder: Path) -> str:
    if key and key != session:
        return key
    home = folder.resolve() if folder.name in ("", "..") else folder
    point = names_session(home.name) or TIME_POINT.fullmatch(home.name)
    name = f"{home.parent.name}_{home.name}" if point else home.name
    return f"{name}_{key}" if key else name


def _without_strays(subjects: Sequence[_Subject], root: Path) -> list[_Subject]:
    """Subjects with scans of a known contrast, and those of which nothing but unknown files is there.

    Other files beside, above or below a subject's scans are that subject's, but for those in the root. Masks alone make
    no subject.
    """
    with_scans = [subject for subject in subjects if subject.scans]
    homes = {subject.folder for subject in with_scans}
    around = {folder for home in homes - {root} for folder in (home, *home.parents)}
    kept = list(with_scans)
    for subject in subjects:
        if subject.scans:
            continue
        near = [s for s in with_scans if s.folder != root and _near(s.folder, subject.folder, root)]
        flat = any(file.flat for file in subject.files)
        if near and not flat:
            for owner in near:
                owner.files += [_unowned(file) for file in subject.files]
        elif subject.unread and (flat or subject.folder not in around):
            kept.append(subject)
        elif subject.unread and subject.folder == root:
            logger.warning("%s: not used, %s", subject.unread[0].path, subject.unread[0].meaning.reason)
    return kept


def _near(home: Path, folder: Path, root: Path) -> bool:
    return folder != root and (home == folder or home in folder.parents or folder in home.parents)


def _unowned(file: NamedFile) -> NamedFile:
    """A label or mask whose name says another subject or session than the scans is not used."""
    if file.kind in ("label", "mask"):
        return replace(file, meaning=Meaning(OTHER, reason="its name or folder says another subject or session"))
    return file


def _refuse_divided(subjects: Sequence[_Subject], root: Path) -> None:
    """Refuse what looks like one study whose files were divided: names that differ by a word, and no contrast twice."""
    by_words: dict[tuple[Path, frozenset[str]], list[_Subject]] = {}
    for subject in subjects:
        by_words.setdefault((subject.folder, frozenset(chunks(subject.key))), []).append(subject)
    with_scans = [subject for subject in subjects if subject.scans]
    for subject in with_scans:
        words = sorted(set(chunks(subject.key)))[:8]
        for count_ in range(len(words) + 1):
            for fewer in combinations(words, count_):
                for other in by_words.get((subject.folder, frozenset(fewer)), ()):
                    _refuse_pair(subject, other, root)
    folders: dict[Path, list[_Subject]] = {}
    for subject in with_scans:
        folders.setdefault(subject.folder, []).append(subject)
    for subject in with_scans:
        for above in subject.folder.parents:
            for other in folders.get(above, ()):
                if above != root or other.name.lower() == subject.name.lower():
                    _refuse_pair(subject, other, root)


def _refuse_pair(one: _Subject, other: _Subject, root: Path) -> None:
    if one.scans and other.scans and not one.kinds & other.kinds and one is not other:
        files = listed([one.scans[0].path, other.scans[0].path], root)
        fault = f"{files} may be of one study or of two, by their names"
        for subject in (one, other):
            if not subject.faults:
                subject.faults.append((fault, "Name them alike, or say it in a datalist.csv (--datalist)"))


def _item(subject: _Subject, root: Path, wanted: Sequence[str]) -> dict[str, Any]:
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


def _unknown_item(subject: _Subject, wanted: Sequence[str]) -> dict[str, Any]:
    """The datalist item of files of which none is of a known contrast."""
    files = subject.unread
    paths = [file.path for file in files]
    names = listed(paths[:4], paths[0].parent) + (" ..." if len(paths) > 4 else "")
    if all(map(_says_something, files)):
        fault = InputError(f"{names}: {files[0].meaning.reason}", "No other scan of the subject was found")
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
            failed.append(
                _Subject(name, path, item={"subject": name, "warnings": [], "unused": [], "fault": str(fault)})
            )
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
