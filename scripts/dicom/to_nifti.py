"""Convert a folder of DICOM series to the folders of scans that the inference reads."""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from bundle.data.contrasts import load_registry
from bundle.data.output import as_json, prepare_output, staged, write_text
from bundle.errors import InputError, report_plainly
from scripts.dicom.recognise import ENHANCED, UNCLEAR, Finding, agent_given, is_synthetic, recognise, says
from scripts.dicom.stacks import FEWEST, Stack, find_stacks

QUESTIONS = "questions.json"
UNUSED = "unused"


@dataclass
class Study:
    """The stacks of one exam of a patient, what each shows, and why the exam could not be written ("" if it could)."""

    name: str
    stacks: list[Stack]
    findings: dict[str, Finding] = field(default_factory=dict)
    fault: str = ""

    @property
    def open(self) -> list[Stack]:
        """Those that have to be asked about."""
        return [stack for stack in self.stacks if not self.findings[stack.key].contrast]

    @property
    def chosen(self) -> dict[str, Stack]:
        """Contrast -> its stack."""
        found = {self.findings[stack.key].contrast: stack for stack in self.stacks}
        return {contrast: stack for contrast, stack in found.items() if contrast not in ("", UNUSED)}


def convert(dicom_dir: Path, output_dir: Path, answers: Mapping[str, str]) -> list[Study]:
    """Write a folder per study of which every question is answered; the studies are returned.

    Its files are ``<study>_<contrast>.nii.gz`` (float32, on the grid of the series) and ``<study>_dicom.json``, which
    tells `scripts.dicom.to_dicom` where they come from.

    Args:
        dicom_dir: DICOM files, at any depth, of any number of patients.
        output_dir: outside of that folder.
        answers: a stack's key -> its contrast, or "unused".

    Raises:
        InputError: no DICOM image, or answers that make no sense.
    """
    stacks = find_stacks(dicom_dir)
    check_answers(answers, stacks)
    prepare_output(output_dir, dicom_dir)
    found = studies(stacks)
    for study in found:
        study.findings = decide(study.stacks, answers)
        if study.chosen and not study.open:
            try:
                write_study(study, dicom_dir, output_dir / study.name)
            except InputError as fault:  # one bad exam never stops the others
                study.fault = str(fault)
    return found


def studies(stacks: Sequence[Stack]) -> list[Study]:
    """The stacks by study; a study is named PatientID_date, with a number where that names several."""
    groups: dict[str, list[Stack]] = defaultdict(list)
    for stack in stacks:
        groups[str(stack.tags.StudyInstanceUID)].append(stack)
    names: dict[str, list[str]] = defaultdict(list)
    for uid in sorted(groups, key=lambda uid: (str(groups[uid][0].tags.get("StudyTime")), uid)):
        names[study_name(groups[uid][0])].append(uid)
    return [
        Study(name if len(uids) == 1 else f"{name}_{number}", groups[uid])
        for name, uids in sorted(names.items())
        for number, uid in enumerate(uids, 1)
    ]


def study_name(stack: Stack) -> str:
    """PatientID_StudyDate, of letters, digits and - only: it becomes the name of a folder."""
    parts = [str(stack.tags.get("PatientID") or "unnamed"), str(stack.tags.get("StudyDate") or "")]
    return "_".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", part).strip("-") for part in parts))) or "unnamed"


def decide(stacks: Sequence[Stack], answers: Mapping[str, str]) -> dict[str, Finding]:
    """What each stack of a study shows: as answered, else as recognised.

    Two of one contrast are a question, and so is one that cannot be used while no other shows its contrast.
    """
    agents = [when(stack) for stack in stacks if enhances(stack, answers.get(stack.key))]
    first = min(filter(None, agents), default="")
    findings = {
        stack.key: Finding(answers[stack.key], "answered")
        if stack.key in answers
        else recognise(
            stack.tags, stack.fault, after_agent=bool(first) and when(stack) > first, few=len(stack.files) < FEWEST
        )
        for stack in stacks
    }
    shown = {finding.contrast for finding in findings.values()} - {"", UNUSED}
    for stack in stacks:
        lost = findings[stack.key].lost
        if lost and lost <= shown:
            what = " and ".join(sorted(lost))
            findings[stack.key] = Finding(UNUSED, stack.fault or f"is a derived image; another series is {what}")
    for contrast in shown:
        same = [stack for stack in stacks if findings[stack.key].contrast == contrast]
        answered = [stack for stack in same if stack.key in answers]
        if len(answered) > 1:
            names = " and ".join(str(stack.number) for stack in answered)
            raise InputError(f"the answers name series {names} of one exam {contrast}", "Set all but one to unused")
        for stack in same if len(same) > 1 else ():
            if not answered:
                others = ", ".join(f"series {other.number}" for other in same if other is not stack)
                findings[stack.key] = Finding("", f"{contrast}, but so is {others}: which one?")
            elif stack not in answered:
                findings[stack.key] = Finding(UNUSED, f"{contrast}, but another was chosen")
    return findings


def when(stack: Stack) -> str:
    """When a stack was acquired, so that texts compare as times do; "" if unknown."""
    return str(stack.tags.get("AcquisitionTime") or stack.tags.get("SeriesTime") or "")


def enhances(stack: Stack, answer: str | None) -> bool:
    """Whether a stack says, or may say, that contrast agent was given before it."""
    if answer in ("t1", "t1ce"):
        return answer == "t1ce"
    words = says(f"{ENHANCED}|{UNCLEAR}", stack.tags)
    return bool(not is_synthetic(stack.tags) and (agent_given(stack.tags) or words))


def write_study(study: Study, dicom_dir: Path, folder: Path) -> None:
    """Write a study's volumes, whole or not at all.

    Raises:
        InputError: pixels that cannot be decoded.
    """
    origin: dict[str, Any] = {"dicom_dir": str(dicom_dir.resolve()), "series": {}}
    outdated = [f"{study.name}_{contrast}.nii.gz" for contrast in load_registry()]
    with staged(folder, outdated) as aside:
        for contrast, stack in study.chosen.items():
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames([str(path) for path in stack.files])
            reader.SetOutputPixelType(sitk.sitkFloat32)  # slices may have different slopes
            try:
                image = reader.Execute()
            except RuntimeError as error:
                fault = f"the pixels of series {stack.number} cannot be read ({str(error).splitlines()[-1].strip()})"
                raise InputError(fault, "Export the series again, uncompressed", stack.files[0].parent) from error
            sitk.WriteImage(image, str(aside / f"{study.name}_{contrast}.nii.gz"))
            files = [path.relative_to(dicom_dir).as_posix() for path in stack.files]
            origin["series"][contrast] = {"SeriesInstanceUID": str(stack.tags.SeriesInstanceUID), "files": files}
        (aside / f"{study.name}_dicom.json").write_text(as_json(origin), encoding="utf-8")


def read_answers(path: Path) -> dict[str, str]:
    """A stack's key -> its answer, of those in a file of questions that have one.

    Raises:
        InputError: the file is missing or not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: question["answer"] for key, question in content.items() if question["answer"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        remedy = f"Give the {QUESTIONS} that this program wrote, with its answers filled in"
        raise InputError(f"is no file of answers ({error})", remedy, path) from error


def check_answers(answers: Mapping[str, str], stacks: Sequence[Stack]) -> None:
    """InputError unless each answer is a contrast or "unused", of a stack that can become a scan."""
    known = [*load_registry(), UNUSED]
    by_key = {stack.key: stack for stack in stacks}
    for key, answer in answers.items():
        if answer not in known:
            raise InputError(f"the answer '{answer}' to {key} is unknown", f"Use one of {', '.join(known)}")
        if answer == UNUSED or key not in by_key:
            continue
        reason = by_key[key].fault or ("is synthetic" if is_synthetic(by_key[key].tags) else "")
        if reason:
            raise InputError(f"series {by_key[key].number} cannot be {answer}: it {reason}", "Set it to unused")


def questions(found: Sequence[Study], answers: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What is asked, and what was answered, as the file of questions holds it."""
    return {
        stack.key: {
            "study": study.name,
            "series": stack.number,
            "description": stack.description,
            "question": study.findings[stack.key].why,
            "answer": answers.get(stack.key),
        }
        for study in found
        for stack in study.stacks
        if stack.key in answers or not study.findings[stack.key].contrast
    }


def tell(study: Study) -> None:
    """Print what every series of a study was taken for, and why."""
    state = "converted" if study.chosen else "no series of a known contrast"
    print(f"{study.name}: {study.fault or ('not converted, because of its questions' if study.open else state)}")
    for stack in study.stacks:
        finding = study.findings[stack.key]
        what = {"": "?", UNUSED: "-"}.get(finding.contrast, finding.contrast)
        print(f"  {what:6}{stack.number:>5}  {stack.description[:36]:36}  {len(stack.files):>4} slices  {finding.why}")


def main(arguments: list[str] | None = None) -> None:
    """Convert a folder; the exit status is 1 if an exam has open questions or could not be written."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dicom_dir", type=Path)
    parser.add_argument("--output_dir", type=Path, required=True, help="outside of the DICOM folder")
    parser.add_argument("--answers", type=Path, help=f"a {QUESTIONS} of an earlier call, its answers filled in")
    options = parser.parse_args(arguments)
    answers = read_answers(options.answers) if options.answers else {}
    found = convert(options.dicom_dir, options.output_dir, answers)
    for study in found:
        tell(study)
    asked = sum(len(study.open) for study in found)
    if asked:
        path = options.output_dir / QUESTIONS
        write_text(path, as_json(questions(found, answers)))
        print(f'{asked} open questions. Set each "answer" in this file to a contrast or "{UNUSED}", then give it:')
        print(f"  --answers {path}")
    if asked or any(study.fault for study in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
