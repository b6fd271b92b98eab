"""What a viewer's request needs: from the one scan that it names to the exam, and to the one contrast that it wants."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import MapTransform, Transform

from bundle.data.checks import check_subjects
from bundle.data.choice import check_unread
from bundle.data.contrasts import load_registry, select
from bundle.data.discovery import find_subjects
from bundle.data.naming import OWN_RESULTS, UNKNOWN, contrast_of, stem
from bundle.errors import InputError

FIRST_MISSING = "first missing"


class FindExamd(Transform):
    """Replace "image", the path of one scan, by the scans of its exam that lie beside it, without the wanted target.

    MONAI Label's own apps hand over one file and the client's options. Items without "image" pass as they are.

    Args:
        contrasts: names of the contrasts, in channel order.
        registry: overrides of the registry of contrasts.

    Input: "image", a path; "target", a contrast or "first missing" (or a list, of which the first counts). Output: the
    paths of the contrasts, "subject" and "warnings", as `find_subjects` has them; "target", the contrast to make.

    Raises:
        InputError: the scan is synthetic or of none of the contrasts, its exam cannot be used, the target is unknown,
            none is named and nothing is missing, or an unread file of the exam may be the target.
    """

    def __init__(self, contrasts: Sequence[str], registry: Mapping[str, Any] | None = None) -> None:
        self.contrasts, self.registry = tuple(contrasts), registry or {}
        self.targets = [row.name for row in select(self.contrasts, self.registry) if row.role != "input"]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if "image" not in d:
            return d
        exam = self.exam(Path(d.pop("image")))
        d["target"] = self.target(d.get("target", FIRST_MISSING), exam)
        return d | {
            key: value for key, value in exam.items() if key not in ("label", "label_convention", "unused", d["target"])
        }

    def exam(self, scan: Path) -> dict[str, Any]:
        """The item of `find_subjects` that a scan belongs to."""
        name = stem(scan)
        if name.lower().endswith(OWN_RESULTS):
            raise InputError("is synthetic", "Name a scan that was measured", scan)
        # first: a file that was sent along lies among all the temporary files, under a name that tells nothing
        if contrast_of(name, load_registry(self.registry)) != UNKNOWN:
            for item in find_subjects(scan.parent, self.contrasts, self.registry):
                if str(scan) in (item.get(contrast) for contrast in self.contrasts):
                    (checked,) = check_subjects([item])
                    if "fault" in checked:
                        raise InputError(checked["fault"], "")
                    return dict(checked)
        raise InputError(f"is none of {', '.join(self.contrasts)} by its name", "Name a scan of one of these", scan)

    def target(self, wanted: Any, exam: Mapping[str, Any]) -> str:
        """The contrast to make."""
        wanted = wanted[0] if isinstance(wanted, list) and wanted else wanted
        if wanted == FIRST_MISSING:
            wanted = next((name for name in self.targets if name not in exam), None)
            if wanted is None:
                fault = f"{exam['subject']}: nothing is missing of {', '.join(self.targets)}"
                raise InputError(fault, "Name a target to make it nonetheless")
        if wanted not in self.targets:
            raise InputError(f"target {wanted!r} is unknown", f"Use one of {', '.join((FIRST_MISSING, *self.targets))}")
        check_unread(exam, [wanted])
        return str(wanted)


class KeepTargetd(MapTransform):
    """Keep of volumes (C, X, Y, Z) the channel of the item's "target", (1, X, Y, Z); without one, all.

    Args:
        keys: the volumes.
        contrasts: names of the C contrasts.
    """

    def __init__(self, keys: str | Sequence[str], contrasts: Sequence[str]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.contrasts = tuple(contrasts)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if "target" in d:
            channel = self.contrasts.index(d["target"])
            for key in self.key_iterator(d):
                d[key] = d[key][channel : channel + 1]
        return d
