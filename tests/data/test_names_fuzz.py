"""Names put together at random: a file is used for what it is, or is reported, or its subject is refused."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from bundle.data.discovery import find_subjects, scan_keys
from bundle.errors import InputError
from tests.data.test_discovery import CONTRASTS, make

SEEDS = 240
WORDS = {  # kind -> ways to say it, each a list of words
    "t1": [["T1"], ["T1w"], ["MPRAGE"], ["T1", "pre"], ["T1", "weighted"], ["3DT1"], ["native", "T1"]],
    "t1ce": [["T1", "Gd"], ["T1ce"], ["T1c"], ["T1", "post"], ["T1", "post", "contrast"], ["gado"], ["T1", "KM"]],
    "t2": [["T2"], ["T2w"], ["T2", "tse"], ["T2", "weighted"]],
    "flair": [["FLAIR"], ["T2", "FLAIR"], ["dark", "fluid"], ["FLAIR", "3D"]],
    "mask": [["brain", "mask"], ["T1", "bet", "mask"], ["brainmask"]],
    "label": [["lesion", "mask"], ["tumor", "mask"], ["seg"]],
    "other": [["T2", "phase"], ["T1", "mt", "on"], ["ADC"], ["DWI"], ["T1", "map"], ["T2star"]],
}
ENTITIES = {  # kind -> entities and suffix
    "t1": [(["acq-mprage"], "T1w"), ([], "T1w"), (["rec-norm"], "T1w")],
    "t1ce": [(["ce-gd"], "T1w"), (["acq-postcontrast"], "T1w"), (["acq-3D", "ce-GADO"], "T1w")],
    "t2": [([], "T2w"), (["acq-tse"], "T2w")],
    "flair": [([], "FLAIR"), (["acq-FLAIRax"], "T2w"), (["acq-3D"], "FLAIR")],
    "mask": [(["desc-brain"], "mask")],
    "label": [(["desc-T1lesion"], "mask"), (["label-lesion"], "mask")],
    "other": [(["part-phase"], "T2w"), (["acq-MTon"], "T1w"), ([], "dwi"), (["task-rest"], "bold"), ([], "T2starw")],
}
PROCESSED = [
    ["bet"],
    ["N4"],
    ["reg"],
    ["brain"],
    ["to", "T1"],
    ["ax"],
    ["sag"],
    ["coreg"],
    ["to", "MNI"],
    ["(1)"],
    ["copy"],
]
IDS = (["p1", "p2", "p3"], ["Anna", "Bert", "Carla"], ["001", "002", "003"], ["BraTS-7", "BraTS-8", "BraTS-9"])
SESSIONS = ([""], ["visit1", "visit2"], ["20240305", "20240611"], ["baseline", "followup"])


def any_case(word: str, draw: random.Random) -> str:
    return draw.choice([word, word, word.lower(), word.upper(), word.title()])


def words_name(kind: str, subject: str, session: str, odd: str, draw: random.Random) -> str:
    groups = [draw.choice(WORDS[kind])]
    if kind in CONTRASTS and draw.random() < 0.3:
        groups[0] = groups[0] + draw.choice(PROCESSED)
    groups += [[word] for word in (subject, session) if word]
    if draw.random() < 0.1:
        groups.insert(draw.randint(0, len(groups)), [odd])
    if draw.random() < 0.4:
        draw.shuffle(groups)
    else:
        groups = [*groups[1:], groups[0]]
    words = [word for group in groups for word in group]
    if draw.random() < 0.1 and not {"to", "reg", "coreg"} & set(words):  # T2 reg FLAIR is not T2 FLAIR reg
        draw.shuffle(words)
    separator = draw.choice("__-. +")
    return separator.join(word if word in (subject, session) else any_case(word, draw) for word in words)


def bids_name(kind: str, subject: str, session: str, draw: random.Random) -> str:
    entities, suffix = draw.choice(ENTITIES[kind])
    entities = [*entities, *draw.choice([[], [], ["run-1"], ["space-T1w"], ["echo-2"], ["space-MNI152NLin6Asym"]])]
    if draw.random() < 0.3:
        draw.shuffle(entities)
    head = [f"sub-{subject.replace('-', '')}", *([f"ses-{session}"] if session else [])]
    return "_".join([*head, *entities, suffix])


def data_set(draw: random.Random) -> dict[str, tuple[str, str, str]]:
    """Path -> (subject, session, kind)."""
    ids, sessions, style = draw.choice(IDS), draw.choice(SESSIONS), draw.choice(["bids", "words", "words"])
    layout = draw.choice(["flat", "subject", "session"])
    say_id, say_session = draw.random() < 0.5 or layout == "flat", draw.random() < 0.5 or layout != "session"
    odd = draw.choice(["odd", "xyz7", "301", "siemens", "study", "final"])  # in no table, but for the last two
    files = {}
    for subject in ids:
        for session in sessions:
            kinds = draw.sample(CONTRASTS, draw.randint(1, 4)) + draw.sample(
                ["mask", "label", "other"], draw.randint(0, 2)
            )
            kinds += [draw.choice(CONTRASTS)] if draw.random() < 0.3 else []
            for kind in kinds:
                if style == "bids":
                    name = bids_name(kind, subject, session, draw)
                    folder = f"sub-{subject.replace('-', '')}"
                else:
                    name = words_name(kind, subject if say_id else "", session if say_session else "", odd, draw)
                    folder = subject
                folder = {"flat": "", "subject": f"{folder}/", "session": f"{folder}/{session}/"}[layout]
                if layout != "flat" and draw.random() < 0.2:
                    folder += draw.choice(["anat/", "raw/", "images/", "coregistered/", "NIFTI/", "2/"])
                ending = draw.choice([".nii.gz", ".nii.gz", ".nii.gz", ".nii", ".mha"])
                files[f"{folder}{name}{ending}".replace("//", "/")] = (subject, session, kind)
    return files


def silently_wrong(files, root: Path, items) -> list[str]:
    """What is wrong and not said, a line each."""
    lines = []
    truth = {root / path: meant for path, meant in files.items()}
    mentioned = set()
    refused = set()
    for item in items:
        used = {key: Path(item[key]) for key in scan_keys(item)}
        unused = {Path(entry["file"]): entry for entry in item["unused"]}
        mentioned |= {*used.values(), *unused}
        studies = {truth[path][:2] for key, path in used.items()}
        if "fault" in item:
            refused |= {truth[path][:2] for path in (*used.values(), *unused)}
            continue
        lines += [f"{path.name} is used for {key}" for key, path in used.items() if truth[path][2] != key]
        if len(studies) > 1:
            lines.append(f"scans of several studies: {[path.name for path in used.values()]}")
        for path, (*study, kind) in truth.items():
            held = any(kind in entry["may_hold"] for entry in unused.values())
            if tuple(study) in studies and kind in CONTRASTS and kind not in used and not held:
                lines.append(f"{kind} of {item['subject']} is made up although there is {path.relative_to(root)}")
    for path, (*study, kind) in truth.items():
        if path not in mentioned and tuple(study) not in refused and kind in CONTRASTS:
            lines.append(f"{path.relative_to(root)} is passed over")
    return lines


@pytest.mark.parametrize("block", range(4))
def test_nothing_is_silently_wrong(tmp_path, block):
    counts: Counter[str] = Counter()
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        files = data_set(random.Random(seed))
        root = make(tmp_path / str(seed), *files)
        scans = sum(kind in CONTRASTS for *_, kind in files.values())
        counts["scans"] += scans
        try:
            items = find_subjects(root, CONTRASTS)
        except InputError:
            counts["refused sets"] += 1
            continue
        assert silently_wrong(files, root, items) == [], f"seed {seed}: {sorted(files)}"
        counts["used"] += sum(name in item for item in items if "fault" not in item for name in CONTRASTS)
    assert counts["used"] > 0.4 * counts["scans"], counts
