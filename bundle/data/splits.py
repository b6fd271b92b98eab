"""Split files: which subjects train, validate and test, so that no person is in two of these."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.naming import person_of
from bundle.errors import InputError

PARTS = ("training", "validation", "test")
WITHOUT = "without"  # in a split file: subject -> contrasts that are not used


def make_split(
    subjects: Sequence[str], validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> dict[str, list[str]]:
    """Draw a split; all sessions of a person go to one part.

    Args:
        subjects: the subjects' names, in any order: the split depends on their set and the seed alone.
        validation: share of the persons that validate, 0 <= validation < 1; at least one person unless 0.
        test: share of the persons that test, likewise.
        seed: of the draw.

    Raises:
        InputError: a name given twice, shares that leave nothing to train on, or too few persons.
    """
    _refuse_repeated(subjects, None)
    persons = sorted({person_of(subject) for subject in subjects})
    random.Random(seed).shuffle(persons)
    shares = {"validation": validation, "test": test}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise InputError(f"shares of {validation} and {test} leave nothing to train on", "Let them sum to less than 1")
    counts = {part: max(1, round(share * len(persons))) if share else 0 for part, share in shares.items()}
    if sum(counts.values()) >= len(persons):
        raise InputError(f"{len(persons)} persons are too few for this split", "Add subjects, or set a share to 0")
    ends = {"validation": counts["validation"], "test": sum(counts.values()), "training": len(persons)}
    parts, start = {}, 0
    for part, end in ends.items():
        chosen = set(persons[start:end])
        parts[part] = sorted(subject for subject in subjects if person_of(subject) in chosen)
        start = end
    return {part: parts[part] for part in PARTS}


def save_split(split: Mapping[str, Sequence[str]], path: str | Path) -> None:
    """Write a split as JSON: {"training": [names], "validation": [names], "test": [names]}."""
    text = json.dumps({part: list(split.get(part, ())) for part in PARTS}, indent=4, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def load_split(path: str | Path) -> dict[str, Any]:
    """Read a split file: each part's names, and under "without" the contrasts of a subject that are not to be used.

    A part that the file lacks is empty, and so is "without", for example {"patient01": ["t1"]} for a spoilt T1.

    Raises:
        InputError: no such file, not of this form, a subject named twice, or a person in two parts.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("does not exist", "Name a split file", path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"is not readable as JSON ({error})", "Correct it", path) from error
    form = '{"training": ["name", ...], "validation": [...], "test": [...]}'
    fault = InputError("is no split file", f"Write {form}", path)
    if not isinstance(content, dict):
        raise fault
    without = content.pop(WITHOUT, {})
    lists = [*content.values(), *(without.values() if isinstance(without, dict) else [without])]
    if not set(content) <= set(PARTS) or not all(map(_is_names, lists)) or not isinstance(without, dict):
        raise fault
    split = {part: content.get(part, []) for part in PARTS}
    listed = [subject for part in PARTS for subject in split[part]]
    _refuse_repeated(listed, path)
    _refuse_shared_persons(split, path)
    if unknown := sorted(set(without) - set(listed)):
        raise InputError(f'"{WITHOUT}" names {unknown[0]}, which is in no part', "Correct the name", path)
    return {**split, WITHOUT: without}


def apply_split(items: Sequence[Mapping[str, Any]], split: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    """The datalist's items of one part of a split, in the datalist's order, less the scans that it does not use.

    Raises:
        InputError: an unknown part, a subject of the split that the datalist does not have, or has twice, or a contrast
            that is not to be used and that the subject does not have.
    """
    if part not in PARTS:
        raise InputError(f"'{part}' is no part of a split", f"Use one of {', '.join(PARTS)}")
    names = [item["subject"] for item in items]
    _refuse_repeated(names, None)
    missing = sorted(set(split.get(part, ())) - set(names))
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise InputError(
            f"{len(missing)} subjects of the split's {part} part are not in the data ({shown})",
            "Correct the split file or the data set's folder",
        )
    wanted = set(split.get(part, ()))
    without = split.get(WITHOUT, {})
    return [_less(item, without.get(item["subject"], ())) for item in items if item["subject"] in wanted]


def _less(item: Mapping[str, Any], contrasts: Sequence[str]) -> Mapping[str, Any]:
    """An item without some of its scans."""
    for name in contrasts:
        if name not in item:
            fault = f"the split does without {name} of {item['subject']}, which has none"
            raise InputError(fault, f'Correct "{WITHOUT}" in the split file')
    return {key: value for key, value in item.items() if key not in contrasts}


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _refuse_repeated(subjects: Sequence[str], path: Path | None) -> None:
    repeated = sorted(subject for subject, count in Counter(subjects).items() if count > 1)
    if repeated:
        raise InputError(f"names subjects more than once: {', '.join(repeated[:5])}", "Name each once", path)


def _refuse_shared_persons(split: Mapping[str, Sequence[str]], path: Path) -> None:
    part_of: dict[str, str] = {}
    for part in PARTS:
        for subject in split[part]:
            other = part_of.setdefault(person_of(subject), part)
            if other != part:
                remedy = "Put all sessions of a person into one part"
                raise InputError(f"has sessions of {person_of(subject)} in both {other} and {part}", remedy, path)
