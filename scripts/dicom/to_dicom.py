"""Write synthesised volumes back as derived DICOM series of the exams that they belong to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from bundle import __version__
from bundle.data.contrasts import load_registry
from bundle.data.output import prepare_output, staged
from bundle.data.qc import top
from bundle.errors import InputError, report_plainly
from scripts.dicom.recognise import SYNTHETIC
from scripts.dicom.stacks import axes, position

TOP = 4095  # the stored value of 1: 12 bits, which every viewer shows
SERIES_NUMBER = 9001  # of the first contrast in the registry: consoles count up from 1
GRID_TOLERANCE = 0.05  # mm
KEPT = (
    *("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("SliceLocation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)


def write_subject(result: Path, output_dir: Path, dicom_dir: Path | None = None) -> list[Path]:
    """Write one series per contrast that was made of a subject.

    Args:
        result: the subject's folder in the output of the inference.
        output_dir: the series become ``<subject>/<contrast>/IM0001.dcm`` and so on in it.
        dicom_dir: the DICOM files, where they are no longer where `scripts.dicom.to_nifti` found them.

    Returns:
        The folders of the series.

    Raises:
        InputError: the scans do not come from `scripts.dicom.to_nifti`, their DICOM files are gone, or the volume lies
            on another grid than theirs.
    """
    report = json.loads((result / f"{result.name}.json").read_text(encoding="utf-8"))
    origin = read_origin(Path(report["inputs"][report["reference"]]))
    root = dicom_dir or Path(origin["dicom_dir"])
    sources = read_slices([root / name for name in origin["series"][report["reference"]]["files"]])
    written = []
    for contrast in report["targets"]:
        volume = on_slices(result / f"{result.name}_{contrast}_synth.nii.gz", sources)
        number = SERIES_NUMBER + list(load_registry(report["registry"])).index(contrast)
        series = Series(contrast, number, report, top(volume))
        folder = output_dir / result.name / contrast
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staged(folder) as aside:
            for instance, (pixels, source) in enumerate(zip(volume, sources), 1):
                image = derived_image(pixels, source, instance, series)
                image.save_as(aside / f"IM{instance:04}.dcm", enforce_file_format=True)
        written.append(folder)
    return written


@dataclass(frozen=True)
class Series:
    """A new series: which contrast, its number, the JSON that the inference wrote of its subject, and what is white."""

    contrast: str
    number: int
    report: dict[str, Any]
    white: float
    uid: str = field(default_factory=hd.UID)
    now: datetime = field(default_factory=datetime.now)

    @property
    def what(self) -> str:
        """What no reader may miss."""
        return f"{SYNTHETIC} {self.contrast.upper()}"

    @property
    def given(self) -> str:
        """The contrasts that it was computed from."""
        return ", ".join(self.report["input_intensities"])


def derived_image(pixels: np.ndarray, source: Dataset, instance: int, series: Series) -> Dataset:
    """An MR image in the study and frame of reference of a source slice, and at its place.

    Nothing of the source's acquisition is claimed (no echo time, no contrast agent): the scanning sequence is RM,
    research mode.

    Args:
        pixels: ``(rows, columns)``, in [0, 1]; 4095 stands for 1.
        source: the header of the slice.
        instance: the number of the image in its series.
        series: what it belongs to.
    """
    report, checksum = series.report, series.report["weights_sha256"]
    image = hd.SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=hd.UID(),
        sop_class_uid=MRImageStorage,
        instance_number=instance,
        modality="MR",
        manufacturer="msg-ldm-bundle",
        manufacturer_model_name="MSG-LDM",
        software_versions=__version__,
        device_serial_number=checksum[:16],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=f"{series.what} (from {series.given})"[:64],
        series_date=series.now.date(),
        series_time=series.now.time(),
        content_date=series.now.date(),
        content_time=series.now.time(),
        specific_character_set="ISO_IR 192",
    )
    image.copy_patient_and_study_information(source)
    for keyword in KEPT:
        if keyword in source:
            image.add(source[keyword])
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.DerivationDescription = (
        f"{series.what}: computed from {series.given} by msg-ldm-bundle {__version__}, weights {checksum[:12]}, "
        f"mode {report['mode']}, seed {report['seed']}. {TOP} is 1; {report['intensity_scale'][series.contrast]}."
    )
    image.ImageComments = f"{series.what}: not measured. For research, not for diagnosis."
    image.SourceImageSequence = [
        _item(
            ReferencedSOPClassUID=source.SOPClassUID,
            ReferencedSOPInstanceUID=source.SOPInstanceUID,
            PurposeOfReferenceCodeSequence=[
                hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
            ],
        )
    ]
    image.BurnedInAnnotation = "NO"
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "RM", "NONE", ""
    image.MRAcquisitionType = source.get("MRAcquisitionType", "")
    image.EchoTime = image.RepetitionTime = image.EchoTrainLength = None
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    width = round(series.white * TOP) + 1
    image.WindowCenter, image.WindowWidth = width // 2, width
    image.PixelData = np.round(np.clip(pixels, 0, 1) * TOP).astype("<u2").tobytes()
    return image


def on_slices(path: Path, sources: Sequence[Dataset]) -> np.ndarray:
    """A volume as ``(slices, rows, columns)`` of a DICOM series.

    Raises:
        InputError: it is not on the grid of that series.
    """
    image = sitk.ReadImage(str(path))
    size = np.array([sources[0].Columns, sources[0].Rows, len(sources)])
    corners = np.array([np.zeros(3), [size[0] - 1, 0, 0], [0, size[1] - 1, 0], size - 1])
    same = tuple(size) == image.GetSize() and all(
        np.abs(image.TransformContinuousIndexToPhysicalPoint(corner.tolist()) - place(corner, sources)).max()
        < GRID_TOLERANCE
        for corner in corners
    )
    if not same:
        remedy = "Run the inference on the files that scripts.dicom.to_nifti wrote, or on others of the same grid"
        raise InputError(f"is not on the grid of series {sources[0].get('SeriesNumber')}", remedy, path)
    return sitk.GetArrayFromImage(image)


def place(index: np.ndarray, sources: Sequence[Dataset]) -> np.ndarray:
    """Where ``(column, row, slice)`` lies, in mm along L, P and S."""
    first, (row, column, _) = sources[int(index[2])], axes(sources[0])
    along_column, along_row = first.PixelSpacing  # between rows, then between columns
    return position(first) + row * float(along_row) * index[0] + column * float(along_column) * index[1]


def read_origin(scan: Path) -> dict[str, Any]:
    """Which DICOM files a scan was made of.

    Raises:
        InputError: nothing says so.
    """
    found = sorted(scan.parent.glob("*_dicom.json"))
    if len(found) != 1:
        remedy = "Only scans that scripts.dicom.to_nifti wrote, or others in the same folder, can go back to DICOM"
        raise InputError(f"has {'no' if not found else 'more than one'} *_dicom.json beside it", remedy, scan)
    content: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8"))
    return content


def read_slices(paths: Sequence[Path]) -> list[Dataset]:
    """The headers of DICOM files.

    Raises:
        InputError: one is gone, or is no DICOM file any more.
    """
    try:
        return [dcmread(path, stop_before_pixels=True) for path in paths]
    except (OSError, InvalidDicomError) as error:
        fault = f"the DICOM file that it was made of cannot be read ({error})"
        raise InputError(fault, "Name the folder of the DICOM files: --dicom_dir DIR", paths[0].parent) from error


def _item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def main(arguments: list[str] | None = None) -> None:
    """Write the series of all subjects; the exit status is 1 if one could not be written."""
    report_plainly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result_dir", type=Path, help="the output folder of the inference")
    parser.add_argument("--output_dir", type=Path, required=True, help="for the series; outside of that folder")
    parser.add_argument("--dicom_dir", type=Path, help="where the DICOM files are, if they were moved")
    options = parser.parse_args(arguments)
    results = sorted(path.parent for path in options.result_dir.glob("*/*.json") if path.stem == path.parent.name)
    if not results:
        raise InputError("holds no result", "Name the --output_dir of the inference", options.result_dir)
    prepare_output(options.output_dir, options.result_dir)
    faults = 0
    for result in results:
        try:
            for folder in write_subject(result, options.output_dir, options.dicom_dir):
                print(f"{folder}: {len(list(folder.iterdir()))} images")
        except InputError as fault:  # one bad subject never stops the others
            faults += 1
            print(f"{result.name}: {fault}")
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
