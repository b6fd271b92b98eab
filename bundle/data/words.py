"""Divide a file's name into words, and say what each means by the tables `words.json` and `contrasts.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bundle.data.contrasts import Contrast

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
ROLES = (
    *("agent", "perhaps agent", "agent or operation", "no agent", "target", "registered", "template", "own space"),
    *("stripped", "corrected", "neutral", "copy", "inversion recovery", "mask", "lesion", "part of a lesion"),
    "segmentation",
)
UNKNOWN_WORD = "unknown"
NONE = (UNKNOWN_WORD, "")
NUMBERED = ("agent", "perhaps agent", "agent or operation", "no agent", "copy", "segmentation", "mask")
LONGEST = 4  # chunks of a name that one entry of the tables may span

_PLAIN = re.compile(r"[a-z][a-z0-9]*([-_ ][a-z0-9]+)*", re.I)
_CHUNK = re.compile(r"[^\W_]+\*?")
# "+C", "C+", "-C", "C-", "T1Gd-" say whether there is contrast agent; the hyphen in "T1-C" and "T1-Gd" only separates
_SHORT = r"(?:c|cm|ce|gd|gad|gado|km|ks)"
_SIGNED = rf"(?:(?<![^\W_])|(?<=t1)|(?<=1w)){_SHORT}[-+](?![^\W_+-])"
_AGENT = rf"(?P<agent>\+c(?![^\W_])|{_SIGNED}|(?<![^\s_])-{_SHORT}(?![^\W_]))"
_SEPARATED = re.compile(rf"{_AGENT}|(?:(?!{_SIGNED})[^_\s.+()\[\],;&])+|\(\d+\)", re.I)
_SESSION = re.compile("|".join(TABLE["session"]), re.I)
_SPM = re.compile(f"[{''.join(TABLE['spm prefixes'])}]{{1,3}}")
_ENTITIES = {key: role for role, keys in TABLE["entities"].items() for key in keys}


@dataclass(frozen=True)
class Word:
    """A word of a name.

    Attributes:
        text: as it is in the name.
        role: what it means: "contrast", one of `ROLES`, "other", "subject", "session", "space", "unknown", or "loose",
            where it means something only together with others that are not beside it (weighted), or several things.
        value: the contrast's name, what another image is ("a phase image"), or the entry of the table.
        start, end: where it is in the name.
        entity: it is a part of a BIDS entity (acq-3D), whose unknown values mean nothing here.
    """

    text: str
    role: str
    value: str
    start: int
    end: int
    entity: bool = False


class Vocabulary:
    """What words mean; those of the contrasts' rows come before the others.

    A row's pattern that is plain words ("mprage", "t1 weighted") is a word anywhere in a name. Any other pattern is a
    regular expression for what ends a name, see `Contrast`.

    Args:
        registry: every known contrast by its name.
    """

    def __init__(self, registry: Mapping[str, Contrast]) -> None:
        self.registry = registry
        self.known: dict[str, tuple[str, str]] = {}
        self.spans: dict[tuple[str, ...], tuple[str, str]] = {}
        self.endings: list[tuple[re.Pattern[str], str]] = []
        for reason, words in TABLE["other"].items():
            self._add(words, "other", reason)
        for role in ROLES:
            self._add(TABLE[role], role)
        for row in registry.values():
            self._add([pattern for pattern in row.patterns if _PLAIN.fullmatch(pattern)], "contrast", row.name)
            endings = (pattern for pattern in row.patterns if not _PLAIN.fullmatch(pattern))
            self.endings += [(re.compile(rf"(?:.*[-_. ])?(?P<token>{e})", re.I | re.S), row.name) for e in endings]
        self._add(TABLE["unclear"], "loose")
        self.pieces = sorted(filter(self._may_be_piece, self.known), key=len, reverse=True)
        of_scans = ("contrast", "perhaps agent", "no agent")
        pieces = {
            piece for span, (role, _) in self.spans.items() if len(span) > 1 and role in of_scans for piece in span
        }
        self.loose = {piece for piece in pieces - set(self.known) if len(piece) > 3 and piece.isalpha()}
        self._divided: dict[str, list[str] | None] = {}

    def _add(self, words: Sequence[str], role: str, value: str | None = None) -> None:
        for word in words:
            pieces = tuple(re.split("[-_ ]", word.lower()))
            self.known["".join(pieces)] = self.spans[pieces] = (role, value or word)

    def _may_be_piece(self, word: str) -> bool:
        """Whether a word may stand in a name without a separator; two letters (pd-gm) are other words' parts, too."""
        if self.known[word][0] == "other" and word.isalpha():
            return len(word) > 2
        return len(word) > 1 or word == "2"

    def ending(self, name: str) -> Word | None:
        """The longest end of a name that one of the regular expressions matches."""
        matches = [(match, row) for pattern, row in self.endings if (match := pattern.fullmatch(name))]
        if not matches:
            return None
        match, row = max(matches, key=lambda found: len(found[0]["token"]))
        return Word(match["token"], "contrast", row, *match.span("token"))

    def read(self, name: str) -> list[Word]:
        """The words of a name without its extension, in order."""
        words: list[Word] = []
        end = self.ending(name)
        rest = name if end is None else name[: end.start]
        for match in _SEPARATED.finditer(rest):
            if match[0].startswith("("):
                words.append(Word(match[0], "copy", "copy", *match.span()))
            elif match["agent"]:
                role = "no agent" if "-" in match[0] else "agent"
                words.append(Word(match[0], role, match[0], *match.span()))
            else:
                words += self._entities(match[0], match.start(), bool(words) and words[0].role == "subject")
        words = self._joined(words)
        for number, word in enumerate(words):
            if word.role == UNKNOWN_WORD and not word.entity and word.text.lower() in self.loose:
                words[number] = replace(word, role="loose", value=word.text)
        return [*words, *([end] if end else [])]

    def _entities(self, text: str, start: int, bids: bool) -> Iterator[Word]:
        """The words of what stands between two separators other than a hyphen; BIDS's entities are key-value."""
        key, hyphen, rest = text.partition("-")
        role = _ENTITIES.get(key.lower(), "words" if bids and key.isalpha() else "")
        if not hyphen or not rest or not role or (key.lower() in self.known and not bids):
            for match in _CHUNK.finditer(text):
                yield from self._chunk(match[0], start + match.start(), False)
            return
        chunks = rest.split("-")
        count = 1
        if role in ("subject", "session"):  # their labels may hold hyphens, although BIDS says otherwise
            while count < len(chunks) and not self._means(chunks[count]):
                count += 1
        value, beyond = "-".join(chunks[:count]), "-".join(chunks[count:])
        place, end = start + len(key) + 1, start + len(key) + 1 + len(value)
        if role in ("subject", "session", "copy", "space"):
            yield Word(text[: end - start], role, value, start, end, True)
        elif role == "agent":
            none = value.lower() in ("none", "no", "without", "n")
            yield Word(text[: end - start], "no agent" if none else "agent", value, start, end, True)
            yield from (word for word in self._values(value, place) if word.role == "contrast")
        elif role == "magnetisation transfer":
            off = value.lower() == "off"
            yield Word(
                text[: end - start],
                "neutral" if off else "other",
                "a scan with magnetisation transfer",
                start,
                end,
                True,
            )
        elif role == "words":
            yield from self._values(value, place)
        else:
            yield Word(text[: end - start], "other", role, start, end, True)
        if beyond:
            yield from self._entities(beyond, end + 1, bids)

    def _means(self, chunk: str) -> bool:
        return chunk.lower() in _ENTITIES or any(word.role != UNKNOWN_WORD for word in self._chunk(chunk, 0, False))

    def _values(self, value: str, start: int) -> list[Word]:
        words = [w for m in _CHUNK.finditer(value) for w in self._chunk(m[0], start + m.start(), True)]
        return self._joined(words)

    def _chunk(self, text: str, start: int, entity: bool) -> Iterator[Word]:
        """The words of letters and digits without a separator: one word, or several that follow each other (3DT1)."""
        for piece in self._divide(text.lower()) or (text.lower(),):
            role, value = self.known.get(piece, NONE)
            if len(piece) < len(text) and role in (UNKNOWN_WORD, "other") and _SPM.fullmatch(piece):
                role, value = _spm(piece)
            end = start + len(piece)
            yield Word(text[: len(piece)], role, value, start, end, entity)
            start, text = end, text[len(piece) :]

    def _divide(self, text: str) -> list[str] | None:
        """The fewest known words that make up a text, of which one is known as it is; None where there are none."""
        if text in self.known:
            return None
        if text not in self._divided:
            self._divided[text] = self._fewest(text)
        return self._divided[text]

    def _fewest(self, text: str) -> list[str] | None:
        best: dict[int, list[str]] = {0: []}
        for start in range(len(text)):
            if start not in best:
                continue
            for piece in self.pieces:
                if text.startswith(piece, start) and self._may_follow(best[start], piece, text[start + len(piece) :]):
                    found = [*best[start], piece]
                    if len(found) < len(best.get(start + len(piece), [""] * 99)):
                        best[start + len(piece)] = found
            if start == 0:
                for length in range(1, 4):
                    if _SPM.fullmatch(text[:length]) and self._begins_with_contrast(text[length:]):
                        best.setdefault(length, [text[:length]])
        return best.get(len(text))

    def _begins_with_contrast(self, text: str) -> bool:
        return any(self.known[piece][0] == "contrast" and text.startswith(piece) for piece in self.pieces)

    def _may_follow(self, before: Sequence[str], piece: str, beyond: str) -> bool:
        """Whether a piece can stand there: "to" stands between two contrasts only (T2toT1), and ids are no words."""
        if self.known[piece][0] == "target":
            return bool(before) and self.known.get(before[-1], ("",))[0] == "contrast" and bool(beyond)
        return not piece.isdigit()

    def _joined(self, words: list[Word]) -> list[Word]:
        """Join words that mean something together: sessions, entries of several words, an agent's number."""
        joined: list[Word] = []
        while words:
            count, word = next(self._together(words))
            if word.role == UNKNOWN_WORD and any(earlier.role == "contrast" for earlier in joined):
                word = self._without_number(word)
            joined.append(word)
            words = words[count:]
        return joined

    def _without_number(self, word: Word) -> Word:
        """What a word behind the contrast means without the number that ends it: T1_post2."""
        numbered = re.fullmatch(r"([a-z]{2,})(\d+)", word.text.lower())
        role, value = self.known.get(numbered[1], NONE) if numbered else NONE
        return replace(word, role=role, value=value) if role in NUMBERED else word

    def _together(self, words: Sequence[Word]) -> Iterator[tuple[int, Word]]:
        first = words[0]
        for count in range(min(LONGEST, len(words)), 0, -1):
            some = words[:count]
            if any(word.role in ("subject", "session", "space") for word in some):
                continue
            if any(word.entity != first.entity for word in some):
                continue
            texts = [word.text.lower() for word in some]
            whole = replace(first, text=" ".join(word.text for word in some), end=some[-1].end)
            if _SESSION.fullmatch("-".join(texts)) and (
                count > 1 or first.role in (UNKNOWN_WORD, "agent or operation")
            ):
                yield count, replace(whole, role="session", value="-".join(texts))
            if count > 1 and tuple(texts) in self.spans:
                role, value = self.spans[tuple(texts)]
                yield count, replace(whole, role=role, value=value)
        yield 1, first


def _spm(letters: str) -> tuple[str, str]:
    """What SPM's letters before a name say: rT2, wmT1."""
    roles = {TABLE["spm prefixes"][letter] for letter in letters}
    role = next(role for role in ("other", "template", "registered", "corrected") if role in roles)
    return role, "a smoothed image" if role == "other" else letters


def names_session(text: str) -> bool:
    """Whether a text only tells apart the sessions of one subject: study1, visit 2, 2021-05-30."""
    return bool(_SESSION.fullmatch(re.sub(r"[-_. ]+", "-", text)))


@cache
def chunks(text: str) -> tuple[str, ...]:
    """The letters and digits between the separators of a text, in lower case."""
    return tuple(match.lower() for match in _CHUNK.findall(text))
