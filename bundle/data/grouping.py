"""Which of a folder's files belong to one subject, by the words of their names that are in no table."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from bundle.data.choice import SAY_WHICH, listed
from bundle.data.naming import OTHER, TIME_POINT, UNKNOWN, Meaning, NamedFile, has_agent, names_agent, without_agent
from bundle.data.words import Vocabulary, chunks, names_session

logger = logging.getLogger(__name__)

_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
LONGEST = 8  # words of a name whose subsets are looked up
MANY_SERIES = 64  # of one study there are fewer


@dataclass
class Subject:
    """The files of one subject, or of one session of it.

    Attributes:
        name: what it is called, not yet unique.
        folder: see `NamedFile.folder`.
        key, session: the words that tell it from the others of the folder.
        files: all of it.
        faults: why it is refused, each with the remedy.
        item: of the datalist.
    """

    name: str
    folder: Path
    key: str = ""
    session: str = ""
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
    def when(self) -> str:
        """Its session, by the files' names or the folder's."""
        return self.session.lower() or (self.folder.name.lower() if names_session(self.folder.name) else "")

    @property
    def kinds(self) -> set[str]:
        return {scan.kind for scan in self.scans}


def divide(folder: Path, files: Sequence[NamedFile], root: Path) -> list[Subject]:
    """Divide the files of one folder into subjects.

    BIDS names say subject and session; a session's name is added to the folder's. Other words that are in no table are
    a subject of their own where the folder is the data set itself or is known to hold many, or where several differ and
    one contrast occurs with two of them; else all files belong to the folder's one subject.

    Args:
        folder: of the files, see `NamedFile.folder`.
        files: all that belong there.
        root: the data set's folder.
    """
    many = folder == root or any(file.flat for file in files)
    files = _without_rests(files, many)
    kinds: dict[str, set[str]] = {}
    for file in files:
        if file.is_scan and not file.bids:
            kinds.setdefault(file.key, set()).add(file.kind)
    fault = None
    if not many and len(kinds) > 1:
        twice = sum(map(len, kinds.values())) > len(set.union(*kinds.values()))
        many = twice and "" not in kinds and max(map(len, kinds.values())) > 1
        named = sorted(filter(None, kinds))
        if not twice and len(named) > 1:
            said = f"the names of its scans hold different words ({', '.join(named)}), of one subject or of several"
            fault = (said, "Give each subject a folder, or say it in a datalist.csv (--datalist)")
    owners = _Owners(files, many)
    subjects: dict[tuple[str, str], Subject] = {}
    for file in files:
        for key, session, placed in owners.of(file):
            new = Subject(_subject_name(key, session, folder), folder, key, session, faults=[fault] if fault else [])
            subjects.setdefault((key, session), new).files.append(placed)
    return list(subjects.values())


def _without_rests(files: Sequence[NamedFile], many: bool) -> list[NamedFile]:
    """The files without words after their contrast: they are the subject's name, a number of copies, or a doubt."""
    scans = [file for file in files if file.is_scan]
    rests = {scan.rest.lower() for scan in scans}
    keys = {chunks(scan.key) for scan in scans}
    shared = rests.pop() if len(scans) > 1 and len(rests) == 1 else ""
    all_behind = keys == {()} and all(scan.rest for scan in scans) and (len(scans) > 1 or _is_number(scans[0].rest))
    return [_without_rest(file, keys, shared, many, all_behind) if file.rest else file for file in files]


def _without_rest(file: NamedFile, keys: set[tuple[str, ...]], shared: str, many: bool, all_behind: bool) -> NamedFile:
    words = chunks(file.rest)
    number = all(map(str.isdigit, words)) and words not in keys
    if words == chunks(file.folder.name) or (number and (file.key or not many)):
        return replace(file, rest="")
    if not file.key and (many or all_behind):
        return replace(file, key=file.rest, rest="")
    if file.rest.lower() == shared:
        return replace(file, rest="")
    unclear = f"it is not known what '{file.rest}' in its name means"
    if file.kind in ("mask", "label"):
        return replace(file, meaning=Meaning(OTHER, reason=unclear))
    if file.is_scan or file.kind == UNKNOWN:
        key = "_".join(filter(None, (file.key, file.rest)))
        return replace(file.doubtful(file.meaning.reason or unclear), key=key, rest="")
    return file


def _is_number(text: str) -> bool:
    """Whether there is a digit in every word of a text, as in S13408_I13722."""
    return all(any(map(str.isdigit, word)) for word in chunks(text))


class _Owners:
    """Says to which subjects of a folder its files belong.

    Args:
        files: all of the folder.
        many: the folder holds many subjects, so that the words of the names tell them apart.
    """

    def __init__(self, files: Sequence[NamedFile], many: bool) -> None:
        self.many = many
        self.keys = {file.key for file in files if file.is_scan}
        self.sessions: dict[str, set[str]] = defaultdict(set)
        for file in files:
            if file.is_scan:
                self.sessions[self.key(file)].add(file.session)
        self.by_words: dict[frozenset[str], list[str]] = defaultdict(list)
        self.by_word: dict[str, set[str]] = defaultdict(set)
        for key in self.sessions:
            self.by_words[frozenset(chunks(key))].append(key)
            for word in chunks(key):
                self.by_word[word].add(key)
        self.lone_label = sum(file.kind == "label" for file in files) == 1

    def key(self, file: NamedFile) -> str:
        """The words that say a file's subject; none where the folder does."""
        return file.key if self.many or file.bids else ""

    def of(self, file: NamedFile) -> Iterator[tuple[str, str, NamedFile]]:
        """The key and session of each subject that a file belongs to, and what it is to that."""
        key = self.key(file)
        label = file.kind in ("mask", "label")
        if file.is_scan:
            yield key, file.session, file
            return
        by_key = bool(key) or self.many or file.bids
        if not by_key and file.kind == "label" and self.lone_label and len(self.sessions) == 1:
            ((name, sessions),) = self.sessions.items()
            if len(sessions) == 1 and ("" in sessions or not file.session):
                yield name, next(iter(sessions)), file  # however it is named: W39_1998.09.19_Segm
                return
        if not by_key and label and file.key and file.key not in self.keys:
            reason = f"it is not known what '{file.key}' in its name means"
            file = replace(file, meaning=Meaning(OTHER, reason=reason))
        tiers = (
            [(n, session) for n in names for session in self.matching(n, file.session)] for names in self.near(key)
        )
        pairs = next(filter(None, tiers), [])
        if label and len(pairs) > 1:
            file = replace(
                file, meaning=Meaning(OTHER, reason="its name does not say which subject or session it is of")
            )
        for name, session in pairs or [(key, file.session)]:
            yield name, session, file

    def near(self, key: str) -> Iterator[Sequence[str]]:
        """The subject of that name; those whose words are all in it, most first; those that have all its words."""
        words = frozenset(chunks(key))
        yield [key] if key in self.sessions else []
        for number in range(min(len(words), LONGEST), 0, -1):
            for fewer in combinations(sorted(words), number):
                yield self.by_words.get(frozenset(fewer), [])
        if words:
            yield sorted(set.intersection(*(self.by_word.get(word, set()) for word in words)))

    def matching(self, key: str, session: str) -> list[str]:
        """The sessions of a subject that a file of that session may belong to."""
        sessions = sorted(self.sessions[key])
        same = [each for each in sessions if each.lower() == session.lower()]
        return same or ([] if session else sessions)


def _subject_name(key: str, session: str, folder: Path) -> str:
    if key:
        return "_".join(filter(None, (key, session)))
    home = folder.resolve() if folder.name in ("", "..") else folder
    point = names_session(home.name) or TIME_POINT.fullmatch(home.name)
    name = f"{home.parent.name}_{home.name}" if point else home.name
    return f"{name}_{session}" if session else name


def without_strays(subjects: Sequence[Subject], root: Path) -> list[Subject]:
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
        parent = subject.folder.parent
        parts = parent != root and (parent in homes or names_session(parent.name))
        near = [
            s
            for s in with_scans
            if s.folder != root and (_near(s.folder, subject.folder, root) or (parts and s.folder.parent == parent))
        ]
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


def refuse_divided(subjects: Sequence[Subject], root: Path, vocabulary: Vocabulary) -> None:
    """Refuse what may be one study whose files were divided, because some of their names or folders have a word more.

    So is what may be one study with a folder for each series.

    Where only the session, or upper and lower case, tells two apart they are refused if no contrast occurs twice; where
    only leading zeros do (sub-01, sub-1) they are refused anyhow.
    """
    with_scans = [subject for subject in subjects if subject.scans]
    alike: dict[tuple[Path, frozenset[str], str], list[Subject]] = {}
    for subject in with_scans:
        words = frozenset(chunks(subject.key))
        alike.setdefault((subject.folder, words, subject.session.lower()), []).append(subject)
    for subject in with_scans:
        words = frozenset(chunks(subject.key))
        for number in range(len(words) + 1):
            for fewer in map(frozenset, combinations(sorted(words), number)):
                for session in {subject.session.lower(), ""}:
                    for other in alike.get((subject.folder, fewer, session), ()):
                        if (fewer and fewer != words) or not subject.kinds & other.kinds:
                            _refuse_pair(subject, other, root)
    homes: dict[Path, list[Subject]] = defaultdict(list)
    within: dict[Path, list[Subject]] = defaultdict(list)
    for subject in with_scans:
        homes[subject.folder].append(subject)
        within[subject.folder.parent].append(subject)
    for subject in with_scans:
        for above in subject.folder.parents:
            for other in homes.get(above, ()):
                same = other.name.lower() == subject.name.lower() if above == root else not other.key
                if same and (subject.when in ("", other.when) or not subject.kinds & other.kinds):
                    _refuse_pair(subject, other, root)
    numbers: dict[tuple[str, ...], list[Subject]] = defaultdict(list)
    for subject in with_scans:
        place = (subject.folder.relative_to(root).as_posix(), subject.key, subject.session)
        numbers[tuple(_LEADING_ZEROS.sub("", text.lower()) for text in place)].append(subject)
    for found in numbers.values():  # sub-01 and sub-1
        for one, other in combinations(found, 2):
            _refuse_pair(one, other, root)
    for one, other in _in_folders_of_series(with_scans, root, vocabulary):
        _refuse_pair(one, other, root)
    for folder, found in within.items():
        if names_session(folder.name) and folder != root:  # what is in it are parts of a study, or the subjects then
            for one, other in combinations(found, 2):
                if not one.kinds & other.kinds:
                    _refuse_pair(one, other, root)


def refuse_unclear_agents(subjects: Sequence[Subject], root: Path, vocabulary: Vocabulary) -> None:
    """Refuse what may be of a study after an operation, or else be the scan with contrast agent of another study.

    Such are a contrast that is there both with and without "post" (post_T2 beside T2) where a post_T1 is the only T1CE,
    and subjects in a folder named after contrast agent, or that differ only by such a word in a folder's name (post/p1,
    p1_post), unless each of them has a T1CE.
    """
    alike: dict[tuple[object, ...], list[Subject]] = defaultdict(list)
    for subject in subjects:
        after = {kind for file in subject.unread if file.meaning.after for kind in file.meaning.may_hold}
        plain = {scan.kind for scan in subject.scans if not scan.meaning.after}
        t1ce = [scan for scan in subject.scans if scan.kind == "t1ce"]
        if t1ce and after & plain and all(scan.meaning.after for scan in t1ce):
            names = ", ".join(sorted(after & plain))
            fault = f"there are {names} with and without 'post', which may mean contrast agent or a second study"
            subject.faults.insert(0, (f"{fault}: {listed([t1ce[0].path], root)}", SAY_WHICH))
        elif subject.scans:
            *above, own = subject.folder.relative_to(root).parts or [""]
            place = [without_agent(part, vocabulary) for part in above] + [without_agent(own, vocabulary) or own]
            alike[(tuple(filter(None, place)), subject.key.lower(), subject.session.lower())].append(subject)
    for found in alike.values():
        if all("t1ce" in subject.kinds for subject in found):
            continue
        parts = {subject.folder.relative_to(root).parts for subject in found}
        inside = any(names_agent(part, vocabulary) for path in parts for part in path[:-1])
        if inside or (len(parts) > 1 and any(has_agent(part, vocabulary) for path in parts for part in path)):
            fault = "it is not clear by the folders' names whether a T1 would be with contrast agent: "
            for subject in found:
                subject.faults.append((fault + listed([s.scans[0].path for s in found], root), SAY_WHICH))


def _in_folders_of_series(
    subjects: Sequence[Subject], root: Path, vocabulary: Vocabulary
) -> Iterator[tuple[Subject, Subject]]:
    """Pairs of subjects that may be one study with a folder for each series of it.

    They have one place but for folders named after contrasts (T1/p1, FLAIR/p1; p1/T1/001, p1/FLAIR/002), one BIDS name,
    or they are all that a folder holds, with a contrast each (p1/scans/2/T1, p1/scans/3/FLAIR).
    """
    alike: dict[tuple[object, ...], list[Subject]] = defaultdict(list)
    below: dict[Path, list[Subject]] = defaultdict(list)
    of_contrast: dict[str, bool] = {}
    for subject in subjects:
        parts = [part.lower() for part in subject.folder.relative_to(root).parts]
        for part in parts[:-1]:
            of_contrast.setdefault(part, any(word.role == "contrast" for word in vocabulary.read(part)))
        series = [number for number, part in enumerate(parts[:-1]) if of_contrast[part]]
        place = tuple(part for number, part in enumerate(parts) if number not in series)
        alike[(place, subject.key.lower(), subject.session.lower())].append(subject)
        if subject.scans[0].bids:
            alike[(subject.key.lower(), subject.session.lower())].append(subject)
        if series and series[0]:
            alike[tuple(parts[: series[0]])].append(subject)
        for above in list(subject.folder.parents)[: max(0, len(parts) - 1)]:
            below[above].append(subject)
    for above, found in below.items():
        kinds = [kind for subject in found for kind in subject.kinds]
        if len(set(kinds)) == len(kinds) == len(found) == len({subject.folder for subject in found}):
            alike[(above,)] = found
    for found in alike.values():
        for one, other in combinations(found if len(found) < MANY_SERIES else (), 2):
            if one.folder != other.folder and not one.kinds & other.kinds and _may_be_one_session(one, other, root):
                yield one, other


def _may_be_one_session(one: Subject, other: Subject, root: Path) -> bool:
    """Whether the names of their files and folders do not say two sessions."""
    said = []
    for subject in (one, other):
        folders = [part.lower() for part in subject.folder.relative_to(root).parts if names_session(part)]
        point = [subject.folder.name.lower()] if TIME_POINT.fullmatch(subject.folder.name) else []
        said.append({*folders, *point, *filter(None, [subject.session.lower()])})
    return not said[0] or not said[1] or bool(said[0] & said[1])


def _refuse_pair(one: Subject, other: Subject, root: Path) -> None:
    if one is not other:
        files = listed([one.scans[0].path, other.scans[0].path], root)
        fault = f"{files} may be of one study or of two, by their names"
        for subject in (one, other):
            if not subject.faults:
                subject.faults.append((fault, "Name them alike, or say it in a datalist.csv (--datalist)"))
