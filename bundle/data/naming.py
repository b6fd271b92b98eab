"""What a file is, and of which subject, read from its name and folders in whichever of the usual conventions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bundle.data.contrasts import Contrast
from bundle.errors import InputError

SCAN_SUFFIXES = (".nii.gz", ".nii")
OWN_RESULTS = ("_synth", "_uncertainty", "_gate")
UNKNOWN = "unknown"
UNUSED = "unused"  # known, and known not to be wanted

# What a label file's name ends with, and how its values are to be read; None: as the scans' naming says.
LABELS: dict[str, str | None] = {
    "(label-)?lesions?_?(mask|roi)": "binary",
    "lesions?": "binary",
    "consensus_gt": "binary",
    "wmh": "wmh",
    "(tumou?r_)?seg(m|mentation)?": None,
}
MASKS = ("(desc-)?brain_?mask", "mask")
LESION_CHANGES = ("gt",)  # between two sessions (open_ms_longitudinal): not the lesions of either

# Folders that hold a part of a subject, by preference: where its scans are there both as acquired and as preprocessed
# (WMH: orig and pre), only the latter lie on one grid.
BESIDE = 1
PARTS = dict.fromkeys(("anat", "dwi", "func", "fmap", "perf", "images"), BESIDE)
PARTS.update(pre=0, preprocessed=0, raw=2, orig=2)
IMAGES_OF_MANY = re.compile(r"images(tr|ts|val)", re.I)
LABELS_OF_MANY = re.compile(r"labels(tr|ts|val)", re.I)

_BIDS = re.compile(r"(sub-[a-z0-9]+(_ses-[a-z0-9]+)?)(_[a-z]+-[a-z0-9]+)*", re.I)
_SESSION = re.compile(
    r"(session|study|visit|tp|time(point)?|exam|baseline|follow-?up|fu|pre-?op|post-?op)[-_ ]?\d*"
    r"|ses-[a-z0-9]+|\d{4}-?\d{2}-?\d{2}",
    re.I,
)
_TIME_POINT = re.compile(rf"(?P<person>.+?)[-_. ]({_SESSION.pattern})", re.I)
_BRATS_TIME_POINT = re.compile(r"(?P<person>BraTS-[a-z]+-\d{5})-\d{3}", re.I)
_DECATHLON = re.compile(r"BRATS_\d+", re.I)


@dataclass(frozen=True)
class NamedFile:
    """A NIfTI file, as its name and folders tell it: ``<folder>/[<part of a subject>/]<prefix><separator><token>``.

    Attributes:
        path: where it is.
        folder: the subject's folder, or the folder of many subjects' files.
        rank: of the part of the subject that it lies in, 0 to 2; scans of the lowest rank are used.
        flat: it lies in a folder that is known to hold many subjects' files (imagesTr).
        kind: a contrast's name, "label", "mask", "unused" or "unknown".
        token: the part of the name that tells the kind, in lower case.
        prefix: what goes before it, without what the folder's name says already.
        assumed: the kind is read from a channel number, and nothing says what the numbers mean here.
    """

    path: Path
    folder: Path
    rank: int
    flat: bool
    kind: str
    token: str
    prefix: str
    assumed: bool = False


def stem(path: Path) -> str:
    """A file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.I)


def read_name(
    path: Path, root: Path, registry: Mapping[str, Contrast], channels: Mapping[str, str] | None
) -> NamedFile:
    """What a file is, from its name and the folders between it and the root.

    Args:
        path: a NIfTI file under the root.
        root: the data set's folder.
        registry: every known contrast by its name.
        channels: what numbers at the end of names mean here, as `channel_names` gives it.
    """
    if LABELS_OF_MANY.fullmatch(path.parent.name):
        folder = path.parent if path.parent == root else path.parent.parent
        return NamedFile(path, folder, BESIDE, True, "label", "", stem(path))

    patterns = _contrast_patterns(registry)
    patterns += [(pattern, "label") for pattern in LABELS] + [(pattern, "mask") for pattern in MASKS]
    patterns += [(pattern, UNUSED) for pattern in LESION_CHANGES]
    kind, token, prefix = _longest_match(stem(path), patterns)
    numbered = kind in registry and token.isdigit()
    if numbered and not _may_be_numbered(path, prefix, root):
        kind, token, prefix, numbered = UNKNOWN, "", stem(path), False
    if numbered and channels is not None:
        kind = contrast_of(channels.get(str(int(token)), ""), registry)
    if kind in ("label", "mask"):  # it may be named after the scan that it was made from: T1_brain_mask
        made_from, _, before = _longest_match(prefix, _contrast_patterns(registry))
        prefix = prefix if made_from == UNKNOWN else before

    folder, rank, flat = path.parent, BESIDE, False
    while folder != root:
        if IMAGES_OF_MANY.fullmatch(folder.name):
            flat = True
        elif folder.name.lower() in PARTS:
            rank = PARTS[folder.name.lower()]
        elif not _is_named_after(folder, kind, registry):
            break
        folder = folder.parent
    if not flat:
        prefix = _beyond_folder(prefix, folder)
    bids = _BIDS.fullmatch(prefix)
    assumed = numbered and channels is None and not _DECATHLON.fullmatch(prefix)
    return NamedFile(path, folder, rank, flat, kind, token, bids[1] if bids else prefix, assumed)


def contrast_of(name: str, registry: Mapping[str, Contrast]) -> str:
    """The contrast that a name without extension ends with, or "unknown"."""
    return _longest_match(name, _contrast_patterns(registry))[0]


def names_session(text: str) -> bool:
    """Whether a text only tells apart the sessions of one subject: study1, visit 2, 2021-05-30."""
    return bool(_SESSION.fullmatch(text))


def names_bids_subject(text: str) -> bool:
    """Whether a text is a BIDS subject, with or without its session: sub-01, sub-01_ses-2."""
    return bool(_BIDS.fullmatch(text))


def person_of(subject: str) -> str:
    """The person that a subject's name tells of: it without the session, or BraTS's time point, that it ends with."""
    match = _BRATS_TIME_POINT.fullmatch(subject) or _TIME_POINT.fullmatch(subject)
    return match["person"] if match else subject


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
    named = next((means for pattern, means in LABELS.items() if re.fullmatch(pattern, label.token)), None)
    if named is not None:
        return named
    tokens = {scan.token for scan in scans}
    if any(token.isdigit() for token in tokens):
        return "decathlon"
    return "brats" if tokens & {"t1ce", "t1n", "t1c", "t2f"} or "brats" in label.path.name.lower() else "auto"


def _contrast_patterns(registry: Mapping[str, Contrast]) -> list[tuple[str, str]]:
    return [(pattern, contrast.name) for contrast in registry.values() for pattern in contrast.patterns]


def _longest_match(name: str, patterns: Iterable[tuple[str, str]]) -> tuple[str, str, str]:
    """(kind, token, prefix) by the longest pattern that ends the name; ("unknown", "", name) if none does."""
    matches = [(match, kind) for pattern, kind in patterns if (match := _compiled(pattern).fullmatch(name))]
    if not matches:
        return UNKNOWN, "", name
    match, kind = max(matches, key=lambda found: len(found[0]["token"]))
    return kind, match["token"].lower(), (match["prefix"] or "").rstrip("-_. ")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:(?P<prefix>.*?)[-_. ])?(?P<token>{pattern})", re.I | re.S)


def _may_be_numbered(path: Path, prefix: str, root: Path) -> bool:
    """Whether a number that ends a name can be a channel's; what a scanner exports is numbered too (IM_0001)."""
    parent = path.parent
    return (
        parent == root or bool(IMAGES_OF_MANY.fullmatch(parent.name)) or prefix.lower().startswith(parent.name.lower())
    )


def _is_named_after(folder: Path, kind: str, registry: Mapping[str, Contrast]) -> bool:
    """Whether a folder is named after the contrast of the scans in it (IXI-T1); a number alone is a subject's name."""
    named, token, _ = _longest_match(folder.name, _contrast_patterns(registry))
    return named == kind != UNKNOWN and not token.isdigit()


def _beyond_folder(prefix: str, folder: Path) -> str:
    """The prefix without its subject folder's name; what goes on from that name is kept only if it is a session."""
    if not folder.name or not prefix.lower().startswith(folder.name.lower()):
        return prefix
    rest = prefix[len(folder.name) :]
    if rest and (rest[0] not in "-_. " or names_bids_subject(prefix)):
        return prefix
    rest = rest.strip("-_. ")
    return rest if names_session(rest) else ""
