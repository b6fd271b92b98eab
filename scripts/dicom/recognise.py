"""Which contrast a series shows, from its tags: what they say, or what has to be asked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom import Dataset

SYNTHETIC = "SYNTHETIC"

# family: scanning sequence, and from - to of echo, repetition and inversion time in ms (None: there is no inversion).
# Deliberately narrow: what lies between the rows is asked.
TIMINGS: tuple[tuple[str, set[str], tuple[float, float], tuple[float, float], tuple[float, float] | None], ...] = (
    ("flair", {"SE", "IR"}, (60, 700), (4000, 15000), (1500, 3000)),
    ("t1", {"SE", "IR"}, (0, 35), (1200, 3500), (400, 1300)),  # T1 FLAIR
    ("t1", {"GR", "IR"}, (0, 10), (1200, 3500), (400, 1300)),  # MPRAGE
    ("t1", {"GR", "IR"}, (0, 10), (3, 15), (300, 1300)),  # the same, where the repetition time is that of an echo
    ("t1", {"SE"}, (0, 30), (250, 1000), None),
    ("t1", {"GR"}, (0, 10), (3, 50), None),
    ("t2", {"SE"}, (60, 700), (2000, 20000), None),
    ("pd", {"SE"}, (0, 40), (1800, 20000), None),
)

# words of a description, between blanks; what is no letter, digit, + or * is a blank
FAMILIES = {
    "flair": r"\S*flair|dark fluid|darkfluid|t2f",
    "t1": r"t1\S*|3dt1\S*|mprage|mp rage|bravo|f?spgr",
    "t2": r"t2\S*|3dt2\S*",
    "pd": r"pdw?|proton",
}
AGENT = r"(?:gd|gad\S*|con\S*|c|km)"
# "post op", "pre RT": before or after a treatment, not a contrast agent
TREATMENT = (
    r"(?: (?:op\S*|surg\S*|resect\S*|crani\S*|biops\S*|shunt\S*|rt|xrt|rad\S*|chemo\S*|treat\S*|tx|therap\S*|fossa|"
    r"stroke|trauma\S*|ictal|partum)(?!\S))"
)
ENHANCED = (
    r"(?<!no )(?<!non )(?<!without )(?<!w o )(?<!wo )(?<!ohne )(?:"
    rf"post ?{AGENT}|gd|gad\S*|\S*\+ ?{AGENT}|km|ce|t1w?ce|t1w?c|contrast|kontrast|enhanced|"
    r"dotarem|magnevist|prohance|multihance|omniscan|clariscan|vueway|elucirem)"
)
UNCLEAR = rf"post(?!{TREATMENT})|with|\S*\+"  # of contrast agent, or of something else, as in "T1 + FS"
PLAIN = rf"pre(?!{TREATMENT})|pre{AGENT}|nativ\S*|non|no|noncon\S*|without|w ?o|plain|unenhanced|ohne"
BOTH = r"w ?wo|w and w ?o|with and without|w w o"  # the name of an exam rather than of a series
OTHER = (
    r"loc|locali[sz]er|scout|survey|tof|mra|mrv|angio\S*|dwi|dti|diff\S*|adc|trace\S*|b\d{3,4}|perf\S*|dsc|dce|asl|"
    r"cbf|cbv|mtt|ttp|swi\S*|swan|swip|bold|fmri|rest|mip|minip|sub|subtr\S*|pha|phase|calib\S*|screen\S*|map|stir|"
    r"spine|cervical|neck|orbits?|t2star|t2\*|t2 star|mp2rage|inv1|inv2|hemo|mag"
)
NO_AGENT = ("", "no", "none", "n", "0", "false")


@dataclass(frozen=True)
class Finding:
    """What is known of a series.

    Attributes:
        contrast: as the registry names it; "unused" if it is no contrast of interest, "" if that has to be asked.
        why: what says so, or the question.
        lost: the contrasts that it may show, where it cannot be used as it is. Unless other series show them, they
            would be synthesised although they were scanned.
    """

    contrast: str
    why: str
    lost: frozenset[str] = frozenset()


def recognise(tags: Dataset, fault: str = "", after_agent: bool = False, few: bool = False) -> Finding:
    """Which of t1, t1ce, t2, flair and pd a series is.

    Two things speak: the description and the timing (echo, repetition and inversion time). Where both do, they have to
    agree; where neither does, or they differ, the answer is a question.

    Args:
        tags: of a slice.
        fault: why the series cannot become a volume.
        after_agent: whether an earlier series of the study may have had contrast agent.
        few: whether it has too few slices for a volume. Then its timing says nothing: it may be that of a localizer.
    """
    other = "is synthetic: it is never taken for a scan" if is_synthetic(tags) else _other(tags)
    if other:
        return Finding("unused", other)
    named = families(tags)
    timed = timing(tags) if named or not few else ""
    finding = _contrast(tags, named, timed, after_agent)
    reason = fault or ("is a derived image" if _image_type(tags)[:1] == ["DERIVED"] else "")
    return _left_out(reason, finding.contrast, named | ({timed} - {""})) if reason else finding


def _contrast(tags: Dataset, named: set[str], timed: str, after_agent: bool) -> Finding:
    """What description and timing say of a series that can be a scan."""
    if timed and named and timed not in named:
        return Finding("", f"the description says {' or '.join(sorted(named))}, the timing {timed}")
    if not named and not timed:
        return Finding("", "neither the description nor the timing tells the contrast")
    if len(named) > 1 and not timed:
        return Finding("", f"the description says {' and '.join(sorted(named))}")
    if not timed and _times(tags)[:2] != (None, None):
        return Finding("", f"the description says {min(named)}, but the timing is not typical of it")
    if not named and "GR" in _sequence(tags):
        return Finding("", "a gradient echo without a description: t1, or an angiography")
    family = timed or min(named)
    sources = " and ".join(name for name, says in (("description", named), ("timing", timed)) if says)
    return _enhancement(tags, after_agent, sources) if family == "t1" else Finding(family, sources)


def _left_out(reason: str, contrast: str, possible: set[str]) -> Finding:
    """A series that cannot be used as it is, of a contrast, or ("") of one of several families or of none."""
    lost = {contrast} if contrast else possible | ({"t1ce"} if "t1" in possible else set())
    if not lost:
        return Finding("unused", reason)
    what = " or ".join(sorted(lost))
    return Finding("", f"{what}, but it {reason}; left out, {what} would be synthesised", frozenset(lost))


def is_synthetic(tags: Dataset) -> bool:
    """Whether a program made up the image."""
    return SYNTHETIC in f"{tags.get('SeriesDescription', '')} {tags.get('ImageComments', '')}".upper()


def agent_given(tags: Dataset) -> str:
    """The contrast agent that the tags name, or ""."""
    agent = str(tags.get("ContrastBolusAgent") or "").strip()
    return "" if agent.lower() in NO_AGENT else agent


def says(pattern: str, tags: Dataset) -> str:
    """The first word of the description that matches, or ""."""
    match = re.search(rf"(?<!\S)(?:{pattern})(?!\S)", _words(tags))
    return match[0] if match else ""


def families(tags: Dataset) -> set[str]:
    """What the description says: one, or several where it is unclear, or none."""
    found = {family for family, pattern in FAMILIES.items() if says(pattern, tags)}
    if {"flair", "t1"} <= found:
        return {"t1"}  # T1 FLAIR
    return found - {"t2"} if "flair" in found else found


def timing(tags: Dataset) -> str:
    """The family whose echo, repetition and inversion times and scanning sequence these are, or ""."""
    echo, repetition, inversion = _times(tags)
    if echo is None or repetition is None:
        return ""
    for family, sequence, echoes, repetitions, inversions in TIMINGS:
        timed = echoes[0] <= echo <= echoes[1] and repetitions[0] <= repetition <= repetitions[1]
        if inversions is None:
            inverted = inversion is None and "IR" not in _sequence(tags)
        else:
            inverted = inversion is not None and inversions[0] <= inversion <= inversions[1]
        if timed and inverted and _sequence(tags) & sequence and _sequence(tags) - {"RM"} <= sequence:
            return family
    return ""


def _enhancement(tags: Dataset, after_agent: bool, sources: str) -> Finding:
    """T1 before or after contrast agent."""
    agent, enhanced, plain = agent_given(tags), says(ENHANCED, tags), says(PLAIN, tags)
    if says(BOTH, tags):
        return Finding("", f"t1 or t1ce: the description says '{says(BOTH, tags)}'")
    if plain and (agent or enhanced):
        other = f"ContrastBolusAgent is '{agent}'" if agent else f"also '{enhanced}'"
        return Finding("", f"t1 or t1ce: the description says '{plain}', but {other}")
    if agent or enhanced:
        return Finding("t1ce", f"{sources}; " + (f"agent {agent}" if agent else f"description '{enhanced}'"))
    if unclear := says(UNCLEAR, tags):
        return Finding("", f"t1 or t1ce: the description says '{unclear}', but no tag names a contrast agent")
    if after_agent and not plain:
        return Finding(
            "", "t1 or t1ce: an earlier series of the study says that contrast agent was given, or may say so"
        )
    return Finding("t1", sources)


def _other(tags: Dataset) -> str:
    """Why a series is none of the contrasts, or ""."""
    kind = _image_type(tags)
    if tags.get("Modality") != "MR":
        return f"is of modality {tags.get('Modality')}, not MR"
    if {"P", "R", "I", "PHASE", "PHASE MAP", "REAL", "IMAGINARY", "LOCALIZER"} & set(kind[2:]):
        return f"is of type {'/'.join(kind[2:])}"
    if "EP" in _sequence(tags):
        return "is echo-planar: diffusion, perfusion or functional"
    if tags.get("AngioFlag") == "Y":
        return "is an angiography"
    word = says(OTHER, tags)
    return f"the description says '{word}'" if word else ""


def _words(tags: Dataset) -> str:
    """The description in lower case; the protocol's name stands in: on its own it may name the whole exam."""
    text = str(tags.get("SeriesDescription") or tags.get("ProtocolName") or "").lower()
    return " ".join(re.sub(r"[^a-z0-9+*]", " ", text).split())


def _image_type(tags: Dataset) -> list[str]:
    return [str(value).upper() for value in tags.get("ImageType") or ()]


def _sequence(tags: Dataset) -> set[str]:
    value = tags.get("ScanningSequence") or ()
    return {value} if isinstance(value, str) else set(value)


def _times(tags: Dataset) -> tuple[float | None, float | None, float | None]:
    """Echo, repetition and inversion time in ms; None where there is none."""
    echo, repetition, inversion = (
        float(tags.get(name) or 0) or None for name in ("EchoTime", "RepetitionTime", "InversionTime")
    )
    return echo, repetition, inversion
