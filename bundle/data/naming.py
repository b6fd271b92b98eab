"""What a file is, and of which subject, read from its name and folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundle.data.contrasts import Contrast
from bundle.data.words import TABLE, UNKNOWN_WORD, Vocabulary, Word, chunks, names_session
from bundle.errors import InputError

SCAN_SUFFIXES = (".nii.gz", ".nii")
OTHER_SUFFIXES = tuple(TABLE["other formats"])
OWN_RESULTS = ("_synth", "_uncertainty", "_gate")
UNKNOWN = "unknown"
OTHER = "other"  # known, and known to be neither a scan of a contrast, a label nor a mask
NOT_SCANS = (UNKNOWN, OTHER, "label", "mask")
LESION = ("lesion", "part of a lesion", "segmentation")
INITIALS = "agent or initials"
VERSIONS = "subject or version"
AGENT = ("agent", "perhaps agent", "agent or operation", INITIALS)
TEMPLATE, REGISTERED = "template", "registered"

# Folders that hold a part of a subject, by preference: where its scans are there both as acquired and as preprocessed
# (WMH: orig and pre), only the latter lie on one grid.
BESIDE = 1
PARTS = dict.fromkeys(("anat", "dwi", "func", "fmap", "perf", "images"), BESIDE)
PARTS.update(pre=0, preprocessed=0, preprocessed_data=0, raw=2, orig=2, raw_data=2)
IMAGES_OF_MANY = re.compile(r"images(tr|ts|val)", re.I)
LABELS_OF_MANY = re.compile(r"labels(tr|ts|val)", re.I)

TIME_POINT = re.compile(r"t\d", re.I)  # MSLesSeg's, also where that could be a contrast
_BRATS_TIME_POINT = re.compile(r"(?P<person>BraTS-[a-z]+-\d{5})-\d{3}", re.I)
_DECATHLON = re.compile(r"BRATS_\d+", re.I)
_NUMBERED = re.compile(r"(?:(?P<prefix>.*)[-_. ])?(?P<number>\d{4})", re.S)
_ENDINGS = re.compile(rf"({'|'.join(map(re.escape, (*SCAN_SUFFIXES, *OTHER_SUFFIXES)))})+$", re.I)


@dataclass(frozen=True)
class Meaning:
    """What the words of a name say of an image.

    Attributes:
        kind: a contrast's name, "label", "mask", "other" or "unknown".
        space: "" as acquired, else "template", "registered", or the contrast on whose grid it is.
        stripped, corrected: it is without skull; its intensities were corrected.
        token: the words that say the kind, in lower case.
        reason: why it is not used, where it is "other" or "unknown".
        may_hold: for "unknown", the contrasts that it may be; empty: any.
        lesion: which of `LESION` a label is.
        after: only the word "post" says that there is contrast agent; it may mean after an operation.
    """

    kind: str
    space: str = ""
    stripped: bool = False
    corrected: bool = False
    token: str = ""
    reason: str = ""
    may_hold: tuple[str, ...] = ()
    lesion: str = ""
    after: bool = False


@dataclass(frozen=True)
class NamedFile:
    """An image file, as its name and folders describe it.

    Attributes:
        path: where it is.
        folder: the subject's folder, or the folder of many subjects' files.
        meaning: what it is.
        rank: of the part of the subject that it lies in, 0 to 2; scans of the lowest rank are used.
        flat: it lies in a folder that is known to hold many subjects' files (imagesTr).
        key: the words before the contrast that say the subject, as they are in the name; without the folder's name.
        session: the words that say the session.
        rest: words after the contrast that are in no table.
        bids: the key is that of a BIDS name.
        assumed: the kind is read from a channel number, and nothing says what the numbers mean here.
    """

    path: Path
    folder: Path
    meaning: Meaning
    rank: int = BESIDE
    flat: bool = False
    key: str = ""
    session: str = ""
    rest: str = ""
    bids: bool = False
    assumed: bool = False

    @property
    def kind(self) -> str:
        """A contrast's name, "label", "mask", "other" or "unknown"."""
        return self.meaning.kind

    @property
    def is_scan(self) -> bool:
        """Whether it is a scan of a known contrast, in a format that is read."""
        return self.kind not in NOT_SCANS

    def doubtful(self, reason: str) -> NamedFile:
        """The same file as one that is not used, although it may be what its name says."""
        may_hold = self.meaning.may_hold or ((self.kind,) if self.is_scan else ())
        return replace(self, meaning=Meaning(UNKNOWN, reason=reason, may_hold=may_hold))


@dataclass
class _Name:
    """A name while it is read: what its folder says already is taken off."""

    path: Path
    words: list[Word]
    text: str
    leading: int = 0  # words that belong to the subject's name whatever they mean
    time_point: int | None = None


def stem(path: Path) -> str:
    """A file's name without its extension, also where that is doubled (.nii.gz.nii.gz)."""
    return _ENDINGS.sub("", path.name)


def folders_of_people(beside: Mapping[Path, Sequence[Path]], root: Path, vocabulary: Vocabulary) -> dict[Path, str]:
    """The folders whose name, an agent's (KM, GD) or a processing step's, may be a subject's.

    Beside other subjects' folders it is a person's. Alone in the data set's folder it is not clear where it holds
    several contrasts. Folders native and stripped there, with a contrast in both, may be two subjects or two versions.

    Args:
        beside: all image files by their folder.
        root: the data set's folder.
        vocabulary: what words mean.

    Returns:
        Folder -> the role that its name has instead: "unknown" (a subject's name) or, where it is not clear,
        `INITIALS` or `VERSIONS`.
    """
    held: dict[Path, dict[Path, set[str]]] = {}  # folder -> each folder in it -> contrasts there, at any depth
    for home, paths in beside.items():
        contrasts = {w.value for path in paths for w in vocabulary.read(stem(path)) if w.role == "contrast"}
        for folder in (home, *home.parents):
            if folder == root:
                break
            held.setdefault(folder.parent, {}).setdefault(folder, set()).update(contrasts)
    roles = {}
    for above, inside in held.items():
        words = {folder: vocabulary.read(folder.name) for folder in inside}
        short = [folder for folder in inside if _may_be_initials(words[folder]) and len(words[folder]) == 1]
        named = [folder for folder in inside if any(w.role in (UNKNOWN_WORD, "subject") for w in words[folder])]
        for folder in short:
            others = [inside[other] for other in (*named, *short) if other != folder]
            several = len(inside[folder]) > 1
            if others and (above == root or (several and any(inside[folder] & other for other in others))):
                roles[folder] = UNKNOWN_WORD
            elif above == root and several and len(inside) == 1 and root not in beside:
                roles[folder] = INITIALS
        steps = [
            f for f in inside if above == root and len(inside[f]) > 1 and f not in roles and _is_part(words[f], True)
        ]
        for folder in steps:
            if named:
                roles[folder] = UNKNOWN_WORD
            elif any(inside[folder] & inside[other] for other in steps if other != folder):
                roles[folder] = VERSIONS
    return roles


def _may_be_initials(words: Sequence[Word]) -> bool:
    """Whether a name begins with an agent's short name, which may be a person's initials."""
    return bool(words) and words[0].role in AGENT and words[0].text.isalpha() and len(words[0].text) <= 3


def read_folder(
    paths: Sequence[Path], root: Path, vocabulary: Vocabulary, people: Mapping[Path, str] | None = None
) -> list[NamedFile]:
    """What the files of one folder are.

    Args:
        paths: all image files that lie in the folder itself.
        root: the data set's folder, in which it lies, or it itself.
        vocabulary: what words mean.
        people: see `folders_of_people`.

    Raises:
        InputError: a dataset.json that is no JSON.
    """
    channels = channel_names(paths[0].parent)
    people = people or {}
    names = [_name(path, root, vocabulary, people) for path in paths]
    _mark_initials(names, root)
    _mark_time_points(names)
    _mark_common_start(names)
    found = [_read(name, root, vocabulary, channels, people) for name in names]
    stems = {stem(file.path).lower() for file in found}
    for number, file in enumerate(found):
        better = TABLE["passed over"].get(stem(file.path).lower())
        if file.path.parent.name.lower() in ("pre", "orig") and better in stems:  # WMH's 3DT1: T1 is it on FLAIR's grid
            meaning = Meaning(OTHER, reason=f"{better.upper()} beside it is the same scan on the grid of the others")
            found[number] = replace(file, meaning=meaning)
    return found


def _name(path: Path, root: Path, vocabulary: Vocabulary, people: Mapping[Path, str]) -> _Name:
    text = stem(path)
    text = text[_length_of_folder(text, path, root, vocabulary, people) :]
    own = {folder.name.lower() for folder in path.parents if folder in people}  # KM/T1_KM: the person or the agent
    words = [
        replace(word, role=INITIALS) if word.role in AGENT and word.text.lower() in own else word
        for word in vocabulary.read(text)
    ]
    return _Name(path, words, text)


def _length_of_folder(text: str, path: Path, root: Path, vocabulary: Vocabulary, people: Mapping[Path, str]) -> int:
    """How many characters at the start of a name repeat the names of its folders: P14/T2/P14_T2_FLAIR."""
    if text.lower().startswith("sub-"):
        return 0
    folders = path.relative_to(root).parts[:-1]
    ends = [match.end() for match in re.finditer(r"[^\W_]+\*?", text)]
    length = 0
    for first in range(len(folders)):
        for last in range(first + 1, len(folders) + 1):
            said = sum((chunks(name) for name in folders[first:last]), ())
            names_something = any(
                w.role in (UNKNOWN_WORD, "subject") for n in folders[first:last] for w in vocabulary.read(n)
            ) or any(root.joinpath(*folders[: n + 1]) in people for n in range(first, last))
            if len(said) == len(ends) and any(w.role == "contrast" for w in vocabulary.read(text)):
                continue  # AX_FLAIR_3/AX_FLAIR_3: that is all the name says
            if said and names_something and len(said) <= len(ends) and chunks(text)[: len(said)] == said:
                length = max(length, ends[len(said) - 1])
    return length


def _mark_initials(names: Sequence[_Name], root: Path) -> None:
    """See that KM in KM_T1 is no contrast agent but a person, where other subjects' files are named alike: LS_T1."""
    held: dict[str, set[str]] = {}
    short = [name for name in names if _may_be_initials(name.words) and name.words[0].end < len(name.text)]
    short = [name for name in short if not name.text[name.words[0].end].isalnum()]
    for name in names:
        if name in short or (name.words and name.words[0].role == UNKNOWN_WORD):
            contrasts = {word.value for word in name.words if word.role == "contrast"}
            held.setdefault(name.words[0].text.lower(), set()).update(contrasts)
    for name in short:
        start = name.words[0].text.lower()
        several = len(held[start]) > 1
        if several and any(held[start] == others for other, others in held.items() if other != start):
            name.words[0] = replace(name.words[0], role=UNKNOWN_WORD)
        elif several and name.path.parent == root and len(held) == 1 and len(short) == len(names):
            name.words[0] = replace(name.words[0], role=INITIALS)


def _mark_time_points(names: Sequence[_Name]) -> None:
    """See that T1 and T2 before a contrast are time points where all names of the folder are so: P14_T2_T1, P14_T3_T2.

    Nothing in the one name says so: P14_T2_FLAIR is a T2-weighted FLAIR elsewhere.
    """
    shapes = []
    for name in names:
        content = [n for n, word in enumerate(name.words) if word.role not in (UNKNOWN_WORD, "neutral")]
        scan = any(word.role == "contrast" for word in name.words)
        first = content[0] if content else 0
        fits = len(content) == 2 and TIME_POINT.fullmatch(name.words[first].text) is not None
        if fits:
            kind = name.words[content[1]]
            fits = kind.role in ("contrast", "mask", *LESION)
            shapes.append((name, first, kind.text.lower() in ("t1", "t2", "t1w", "t2w")))
        if scan and not fits:
            return
    if len(shapes) > 1 and any(certain for _, _, certain in shapes):
        for name, place, _ in shapes:
            name.words[place] = replace(name.words[place], role="session")
            name.time_point = place


def _mark_common_start(names: Sequence[_Name]) -> None:
    """See that words at the start of all names, numbers aside, belong to the subject's name: Tumor_001_T1."""
    contrasts = {tuple(word.value for word in name.words if word.role == "contrast") for name in names} - {()}
    if len(contrasts) < 2:
        return
    common = min(len(name.words) for name in names)
    shapes = [[re.sub(r"\d+", "#", word.text.lower()) for word in name.words] for name in names]
    same = next((n for n in range(common) if len({shape[n] for shape in shapes}) > 1), common)
    for name in names:
        unknown = [n for n in range(same) if name.words[n].role == UNKNOWN_WORD]
        last = unknown[-1] + 1 if unknown else 0
        if not any(word.role in ("contrast", *AGENT) for word in name.words[:last]):
            name.leading = last


def _read(
    name: _Name,
    root: Path,
    vocabulary: Vocabulary,
    channels: Mapping[str, str] | None,
    people: Mapping[Path, str],
) -> NamedFile:
    path = name.path
    if LABELS_OF_MANY.fullmatch(path.parent.name):
        folder = path.parent if path.parent == root else path.parent.parent
        return NamedFile(path, folder, Meaning("label", lesion="segmentation"), flat=True, key=stem(path))
    numbered = _NUMBERED.fullmatch(name.text)
    if numbered and _may_be_numbered(path, numbered["prefix"] or "", root):
        number = numbered["number"]
        said = (channels or {}).get(str(int(number)))
        known = TABLE["numbers"].get(number) if channels is None else None
        if said is not None or known is not None:
            meaning = Meaning(str(known)) if said is None else meaning_of(vocabulary.read(said), vocabulary)
            file = NamedFile(path, path.parent, replace(meaning, token=number), key=(numbered["prefix"] or ""))
            assumed = said is None and not _DECATHLON.fullmatch(numbered["prefix"] or "")
            return _placed(replace(file, assumed=assumed), [], root, vocabulary, people)
    return _placed(_of_words(name, vocabulary), name.words, root, vocabulary, people)


def _of_words(name: _Name, vocabulary: Vocabulary) -> NamedFile:
    """The file by its words alone."""
    words = name.words
    content = [
        n
        for n, word in enumerate(words)
        if n >= name.leading
        and word.role not in (UNKNOWN_WORD, "neutral", "session", "subject", "copy")
        and not word.entity
    ]
    first = next((n for n in content if words[n].role == "contrast"), content[0] if content else len(words))
    ids = [
        n
        for n, word in enumerate(words[:first])
        if (n < name.leading and word.role != "session") or (word.role == UNKNOWN_WORD and not word.entity)
    ]
    rest = [word for word in words[first:] if word.role == UNKNOWN_WORD and not word.entity]
    subject = next((word for word in words if word.role == "subject"), None)
    sessions = [
        name.text[word.start : word.end] for n, word in enumerate(words) if word.role == "session" and n >= name.leading
    ]
    meaning = meaning_of(words[name.leading :], vocabulary)
    if meaning.kind == "mask" and (name.time_point is not None or _is_time_point(name.path)):
        meaning = Meaning("label", lesion="lesion", token="lesion")  # MSLesSeg's names: P14_T2_MASK
    if ids and meaning.kind not in (OTHER, UNKNOWN) and first < len(words) and words[first].role == "contrast":
        early = [word for word in words[name.leading : ids[-1]] if word.role in (*LESION, "mask")]
        if early:
            held = tuple(word.value for word in words if word.role == "contrast")
            meaning = Meaning(UNKNOWN, reason=f"'{early[0].text}' stands before the subject's name", may_hold=held)
    key = subject.text if subject else _spelled(name.text, words, ids)
    after = _spelled(name.text, rest, range(len(rest)))
    bids = subject is not None
    return NamedFile(name.path, name.path.parent, meaning, key=key, session="_".join(sessions), rest=after, bids=bids)


def _spelled(text: str, words: Sequence[Word], numbers: Iterable[int]) -> str:
    """Words as they are in a name, with what separates those that follow each other there."""
    spelled, before = "", None
    for number in numbers:
        word = words[number]
        between = "" if before is None else text[before.end : word.start]
        spelled += ("_" if any(map(str.isalnum, between)) else between) + text[word.start : word.end]
        before = word
    return spelled


def meaning_of(words: Sequence[Word], vocabulary: Vocabulary) -> Meaning:
    """What the words of a name say of an image."""
    space, words = _space(words, vocabulary)
    roles = {word.role for word in words}
    other = next((word for word in words if word.role == "other"), None)
    lesion = next((role for role in LESION if role in roles), "")
    if other is not None:
        return Meaning(OTHER, reason=f"it is {other.value}, by '{other.text}' in its name")
    if lesion:
        token = next(word.value for word in words if word.role == lesion)
        return Meaning("label", space=space, lesion=lesion, token=token)
    if "mask" in roles:
        return Meaning("mask", space=space)
    loose = next((word for word in words if word.role == "loose"), None)
    if loose is not None:
        return Meaning(UNKNOWN, reason=f"it is not known what '{loose.text}' in its name belongs to")
    contrast, reason, held = _contrast(words, vocabulary.registry)
    version = next((word.text for word in words if word.role == VERSIONS), None)
    if version is not None:
        reason = f"its folder '{version}' may be a subject, or hold a version of what lies in the folders beside it"
        return Meaning(UNKNOWN, reason=reason, may_hold=(contrast,) if contrast else held)
    after = {word.role for word in words if word.role in AGENT} == {"agent or operation"}
    if not contrast:
        return Meaning(UNKNOWN, reason=reason, may_hold=held, after=after)
    token = "".join(word.text.lower() for word in words if word.role == "contrast")
    token += "".join(word.text.lower() for word in words if word.role in AGENT)
    return Meaning(contrast, space, "stripped" in roles, "corrected" in roles, token, after=after)


def _space(words: Sequence[Word], vocabulary: Vocabulary) -> tuple[str, list[Word]]:
    """On whose grid the image was brought, and the other words; in FLAIR_to_T1 the scan is FLAIR."""
    kept: list[Word] = []
    space, skip = "", 0
    for number, word in enumerate(words):
        if skip:
            skip -= 1
        elif word.role == "space":
            space = _grid(vocabulary.read(word.value), vocabulary)
        elif word.role in ("target", REGISTERED) and any(earlier.role == "contrast" for earlier in kept):
            goal = _goal(words[number + 1 :])
            space = _grid(goal, vocabulary) if goal else space or (REGISTERED if word.role == REGISTERED else "")
            skip = len(goal)
        elif word.role == "own space":
            continue
        else:
            space = word.role if word.role == TEMPLATE or (word.role == REGISTERED and not space) else space
            kept.append(word)
    return space, kept


def _goal(words: Sequence[Word]) -> Sequence[Word]:
    """The words at the start that name a grid to which something was registered."""
    skipped = next((n for n, w in enumerate(words) if w.role not in ("neutral", "target", REGISTERED)), len(words))
    if skipped == len(words) or words[skipped].role not in ("contrast", TEMPLATE, "own space"):
        return ()
    end = skipped + 1
    while end < len(words) and words[end].role in (*AGENT, "no agent", "contrast", TEMPLATE, "own space"):
        end += 1
    return words[:end]


def _grid(words: Sequence[Word], vocabulary: Vocabulary) -> str:
    """The contrast whose grid some words name; "" for the scan's own, "template" for any other."""
    contrast, _, _ = _contrast([word for word in words if word.role != UNKNOWN_WORD], vocabulary.registry)
    own = any(word.role in ("own space", "no agent") for word in words)
    return contrast or ("" if own else TEMPLATE)


def _contrast(words: Sequence[Word], registry: Mapping[str, Contrast]) -> tuple[str, str, tuple[str, ...]]:
    """The contrast that words name; else "", why none, and the contrasts that it may be."""
    named = list(dict.fromkeys(word.value for word in words if word.role == "contrast"))
    agents = [n for n, word in enumerate(words) if word.role in AGENT]
    if not named and any(words[n].role == "agent" for n in agents) and "t1ce" in registry:
        named = ["t1ce"]
    if not named:
        return "", "its name holds no known contrast", ()
    combined = dict(TABLE["combinations"]).get(" ".join(named))
    if len(named) > 1 and not combined:
        held = tuple(named)
        return "", f"its name holds several contrasts ({', '.join(named)})", held
    contrast = combined or named[0]
    inversion = next((word.text for word in words if word.role == "inversion recovery"), None)
    if inversion and contrast != "flair":
        return "", f"it is not known what '{inversion}' in its name means, FLAIR or STIR", (contrast, "flair")
    if agents and any(word.role == "no agent" and not word.value.startswith("nativ") for word in words):
        return "", "its name says both with and without contrast agent", ("t1", "t1ce")
    if not agents or registry[contrast].gadolinium:
        return contrast, "", ()
    text = words[agents[0]].text
    places = [n for n, word in enumerate(words) if word.role == "contrast"]
    near = any(
        all(w.role != UNKNOWN_WORD or w.entity for w in words[min(a, c) : max(a, c)])
        for a in agents
        for c in places
        if words[a].role != INITIALS
    )
    if contrast == "t1" and len(named) == 1 and near and "t1ce" in registry:
        return "t1ce", "", ()
    return "", f"'{text}' in its name may mean contrast agent", (contrast, "t1ce") if contrast == "t1" else (contrast,)


def _placed(
    file: NamedFile, words: Sequence[Word], root: Path, vocabulary: Vocabulary, people: Mapping[Path, str]
) -> NamedFile:
    """The file with its subject's folder, and with what the folders between the two say of it."""
    folder, rank, flat, said = file.path.parent, BESIDE, False, list[Word]()
    while folder != root:
        name = folder.name.lower()
        inner = vocabulary.read(folder.name)
        if people.get(folder) == UNKNOWN_WORD:
            break
        if IMAGES_OF_MANY.fullmatch(name):
            flat = True
        elif folder in people:
            said += [replace(word, role=people[folder]) for word in inner]
        elif name in PARTS:
            rank = PARTS[name]
            said += [word for word in inner if word.role == "other"]
        elif folder == file.path.parent and _is_time_point(file.path):
            break
        elif any(w.role == "contrast" for w in inner) and _fits(file, inner, vocabulary):
            said += [word for word in inner if word.role != "contrast"] if file.is_scan else []
        elif inner and _is_part(inner, folder.parent == root):
            said += inner
        else:
            break
        folder = folder.parent
    meaning = file.meaning
    if any(word.role not in (UNKNOWN_WORD, "neutral") for word in said):
        meaning = meaning_of([*(replace(word, entity=True) for word in said), *words], vocabulary)
    if file.path.name.lower().endswith(OTHER_SUFFIXES):
        meaning = _unread(file.path, meaning)
    if names_session(folder.name) and chunks(file.session) == chunks(folder.name):
        file = replace(file, session="")  # the folder says it already
    return replace(_with_bids_folder(replace(file, folder=folder), root), rank=rank, flat=flat, meaning=meaning)


def _is_part(words: Sequence[Word], first: bool) -> bool:
    """Whether a folder, in the root or not, is only named after what its files are (coregistered, post contrast)."""
    roles = {word.role for word in words}
    whole = {REGISTERED, TEMPLATE, "own space", "stripped", "corrected", "mask", "segmentation", "no agent", *AGENT}
    if first:
        return bool(roles & whole) and roles <= {*whole, "neutral"}
    return not roles & {UNKNOWN_WORD, "session", "subject", "contrast", "copy", "space", "target", "loose"}


def names_agent(folder: str, vocabulary: Vocabulary) -> bool:
    """Whether a folder's name says nothing but that there is contrast agent (Gd, post)."""
    return has_agent(folder, vocabulary) and _is_part(vocabulary.read(folder), True)


def has_agent(folder: str, vocabulary: Vocabulary) -> bool:
    """Whether a word in a folder's name says that there is contrast agent."""
    return any(word.role in AGENT for word in vocabulary.read(folder))


def without_agent(folder: str, vocabulary: Vocabulary) -> str:
    """The words of a folder's name that do not say whether there is contrast agent, in lower case."""
    agents = (*AGENT, "no agent")
    return " ".join(word.text.lower() for word in vocabulary.read(folder) if word.role not in agents)


def _fits(file: NamedFile, folder_words: Sequence[Word], vocabulary: Vocabulary) -> bool:
    """Whether a folder is named after the contrast of the scan in it (IXI-T1), or what it holds is no scan."""
    return not file.is_scan or file.kind == meaning_of(folder_words, vocabulary).kind


def _is_time_point(path: Path) -> bool:
    """Whether a file's folder T1 or T2 is a time point: the name repeats both its name and that of the folder above."""
    said = (*chunks(path.parent.parent.name), *chunks(path.parent.name))
    return bool(TIME_POINT.fullmatch(path.parent.name)) and chunks(stem(path))[: len(said)] == said


def _with_bids_folder(file: NamedFile, root: Path) -> NamedFile:
    """A file below a folder sub-x belongs to that subject, and to the session of a folder ses-y in it."""
    folders = [file.folder, *file.folder.parents]
    folders = folders[: folders.index(root)] if root in folders else []
    subject = next((folder for folder in folders if folder.name.lower().startswith("sub-")), None)
    if subject is None or (file.bids and file.key.lower() != subject.name.lower()):
        return file
    session = next((folder.name for folder in folders if folder.name.lower().startswith("ses-")), "")
    extra = file.session if file.bids else file.session or session
    return replace(file, folder=subject, key=subject.name, session=extra or session, bids=True)


def _unread(path: Path, meaning: Meaning) -> Meaning:
    suffix = next(suffix for suffix in OTHER_SUFFIXES if path.name.lower().endswith(suffix))
    reason = f"{suffix} files are not read; convert it to NIfTI with {TABLE['other formats'][suffix]}"
    if meaning.kind in (OTHER, "label", "mask"):
        return Meaning(OTHER, reason=reason)
    return Meaning(
        UNKNOWN, reason=reason, may_hold=meaning.may_hold or (() if meaning.kind == UNKNOWN else (meaning.kind,))
    )


def contrast_of(name: str, registry: Mapping[str, Contrast]) -> str:
    """The contrast that a name without extension says, or "unknown"."""
    numbered = _NUMBERED.fullmatch(name)
    if numbered and numbered["number"] in TABLE["numbers"]:
        return str(TABLE["numbers"][numbered["number"]])
    vocabulary = Vocabulary(registry)
    file = _of_words(_Name(Path(name), vocabulary.read(name), name), vocabulary)
    return UNKNOWN if not file.is_scan or (file.key and file.rest and not file.rest.isdigit()) else file.kind


def person_of(subject: str) -> str:
    """The person that a subject's name tells of: it without the session, or BraTS's time point, that it ends with."""
    if match := _BRATS_TIME_POINT.fullmatch(subject):
        return match["person"]
    for match in re.finditer(r"[-_. ]", subject):
        rest = subject[match.end() :]
        if match.start() and (names_session(rest) or TIME_POINT.fullmatch(rest)):
            return subject[: match.start()]
    return subject


def channel_names(folder: Path) -> dict[str, str] | None:
    """Number -> name of the numbered channels of the scans in a folder; None where nothing says so.

    nnU-Net and the Decathlon say so in a dataset.json, there or in the folder above.

    Raises:
        InputError: that file is no JSON.
    """
    path = next((p for p in (folder / "dataset.json", folder.parent / "dataset.json") if p.is_file()), None)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"is not readable as JSON ({error})", "Correct or remove it", path) from error
    names = content.get("channel_names") or content.get("modality") if isinstance(content, dict) else None
    return {str(number): str(name) for number, name in names.items()} if isinstance(names, dict) else None


def label_convention(label: NamedFile, scans: Iterable[NamedFile]) -> str:
    """How a label file's values are to be read (see `bundle.data.labels`): by its name, else by that of the scans."""
    named = TABLE["labels"].get(label.meaning.token) or TABLE["labels"].get(label.meaning.lesion)
    if named is not None:
        return str(named)
    tokens = {scan.meaning.token for scan in scans}
    if any(token.isdigit() for token in tokens):
        return "decathlon"
    return "brats" if tokens & {"t1ce", "t1n", "t1c", "t2f"} or "brats" in label.path.name.lower() else "auto"


def _may_be_numbered(path: Path, prefix: str, root: Path) -> bool:
    """Whether a number that ends a name can be a channel's; what a scanner exports is numbered too (IM_0001)."""
    parent = path.parent
    named = stem(path).lower().startswith(parent.name.lower())
    return parent == root or bool(IMAGES_OF_MANY.fullmatch(parent.name)) or named
