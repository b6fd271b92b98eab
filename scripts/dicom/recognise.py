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
ENHANCED = (
    r"(?<!no )(?<!non )(?<!without )(?<!w o )(?<!wo )(?<!ohne )(?:"
    rf"post{AGENT}?|gd|gad\S*|\S*\+ ?(?:c|gd)?|km|ce|t1w?ce|t1w?c|contrast|kontrast|enhanced|dotarem|with)"
)
PLAIN = rf"pre{AGENT}?|nativ\S*|non|no|noncon\S*|without|w ?o|plain|unenhanced|ohne"
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
    """

    contrast: str
    why: str


def recognise(tags: Dataset, fault: str = "", after_agent: bool = False) -> Finding:
    """Which of t1, t1ce, t2, flair and pd a series is.

    Two things speak: the description and the timing (echo, repetition and inversion time). Where both do, they have to
    agree; where neither does, or they differ, the answer is a question.

    Args:
        tags: of a slice.
        fault: why the series cannot become a volume.
        after_agent: whether another series of the study says that contrast agent was given before this one.
    """
    if is_synthetic(tags):
        return Finding("unused", "is synthetic: it is never taken for a scan")
    reason = fault or _other(tags)
    if reason:
        return Finding("unused", reason)
    named, timed = families(tags), timing(tags)
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
    if after_agent and not plain:
        return Finding("", "t1 or t1ce: taken after another series says that contrast agent was given")
    return Finding("t1", sources)


def _other(tags: Dataset) -> str:
    """Why a series is none of the contrasts, or ""."""
    kind = [str(value).upper() for value in tags.get("ImageType") or ()]
    if kind[:1] == ["DERIVED"]:
        return "is a derived image"
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


def _sequence(tags: Dataset) -> set[str]:
    value = tags.get("ScanningSequence") or ()
    return {value} if isinstance(value, str) else set(value)


def _times(tags: Dataset) -> tuple[float | None, float | None, float | None]:
    """Echo, repetition and inversion time in ms; None where there is none."""
    echo, repetition, inversion = (
        float(tags.get(name) or 0) or None for name in ("EchoTime", "RepetitionTime", "InversionTime")
    )
    return echo, repetition, inversion
