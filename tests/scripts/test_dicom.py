"""DICOM series become the inference's input without a guess, and its results become valid DICOM at the same place."""

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install -e '.[dicom]'")
sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed: pip install -e '.[dicom]'")
pytest.importorskip("highdicom", reason="highdicom is not installed: pip install -e '.[dicom]'")

from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid  # noqa: E402

from bundle.data.discovery import find_subjects  # noqa: E402
from bundle.errors import InputError  # noqa: E402
from scripts.dicom import to_dicom, to_nifti  # noqa: E402
from scripts.dicom.recognise import recognise  # noqa: E402
from scripts.dicom.stacks import find_stacks  # noqa: E402
from tests.phantom import affine_of, brightness, within, world_of  # noqa: E402

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (36, 44, 12)  # columns, rows, slices
OBLIQUE = affine_of(SHAPE, (1.9, 2.1, 4.8), "LPS", (13, -8))
SAGITTAL = affine_of(SHAPE, (1.9, 1.7, 5.0), "PIR", (5, 4))  # its slices go against the normal of their axes
T1 = {"ScanningSequence": "SE", "EchoTime": 12, "RepetitionTime": 550, "SeriesDescription": "AX T1"}
T2 = {"ScanningSequence": "SE", "EchoTime": 95, "RepetitionTime": 4500, "SeriesDescription": "AX T2"}
FLAIR = {
    "ScanningSequence": ["SE", "IR"],
    "EchoTime": 110,
    "RepetitionTime": 9000,
    "InversionTime": 2500,
    "SeriesDescription": "AX T2 FLAIR",
}
MPRAGE = {"ScanningSequence": ["GR", "IR"], "EchoTime": 2.9, "RepetitionTime": 2300, "InversionTime": 900}


def tags_of(**tags):
    dataset = pydicom.Dataset()
    for name, value in {"ImageType": ["ORIGINAL", "PRIMARY", "M"], "Modality": "MR", **tags}.items():
        setattr(dataset, name, value)
    return dataset


def write_series(
    folder, number, affine=OBLIQUE, shape=SHAPE, study="1.2.826.0.1.1", patient="P 01", leave_out=(), **tags
):
    """A series of the phantom, its files in no order; its SeriesInstanceUID."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    values = np.round(brightness(world_of(shape, affine)) * within(world_of(shape, affine))).astype(np.int16)
    series = generate_uid()
    for k in np.random.default_rng(number).permutation(shape[2]):
        if k in leave_out:
            continue
        d = tags_of(**{"SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "2D", **tags})
        d.SOPClassUID, d.SOPInstanceUID = MRImageStorage, generate_uid()
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, "1.2.826.0.1.7"
        d.SpecificCharacterSet, d.PatientName, d.PatientID = "ISO_IR 100", "M\u00fcller^Zo\u00eb", patient
        d.PatientBirthDate, d.PatientSex, d.PatientAge = "19700101", "F", "054Y"
        d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber = "20240305", "1015", "7", "A1"
        d.StudyDescription, d.ReferringPhysicianName = "Head", "Who^Doctor"
        d.SeriesNumber, d.InstanceNumber = number, int(k) + 1
        d.PositionReferenceIndicator, d.PatientPosition, d.BodyPartExamined = "", "HFS", "HEAD"
        d.Manufacturer, d.PixelSpacing, d.SliceThickness = "Maker", [spacing[1], spacing[0]], spacing[2]
        d.ImageOrientationPatient = [round(float(x), 9) for x in (lps[:3, :2] / spacing[:2]).T.ravel()]
        d.ImagePositionPatient = [round(float(x), 6) for x in lps[:3, 3] + lps[:3, 2] * k]
        d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 1
        d.Columns, d.Rows = shape[:2]
        d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
        d.RescaleSlope, d.RescaleIntercept = (0.5, 20)
        d.PixelData = ((values[:, :, k].T - 20) * 2).astype("<i2").tobytes()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d.save_as(folder / f"{number}_{generate_uid()[-9:]}", enforce_file_format=True)
    return series


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """An exam of two scans, a localizer and a file of something else, converted, with a result for each missing one."""
    folder = tmp_path_factory.mktemp("exam")
    dicom = folder / "in" / "disc"
    write_series(dicom / "a", 3, SAGITTAL, **MPRAGE, SeriesDescription="t1_mprage sag")
    write_series(dicom / "a", 4, OBLIQUE, **FLAIR)
    write_series(dicom / "b", 1, OBLIQUE, (36, 44, 3), SeriesDescription="loc")
    (dicom / "README").write_text("no DICOM")
    shutil.copy(next((dicom / "a").glob("4_*")), dicom / "b" / "copy")
    study = to_nifti.convert(folder / "in", folder / "scans", {})[0]
    return folder, study


def result_of(folder, scans, name="P-01_20240305"):
    """What the inference would write: a T2, on the grid of the T1."""
    scan = nib.load(scans / name / f"{name}_t1.nii.gz")
    world = world_of(scan.shape, scan.affine)
    volume = (np.sqrt(brightness(world) / 500) * within(world)).astype(np.float32)
    (folder / name).mkdir(parents=True)
    nib.save(nib.Nifti1Image(volume, scan.affine), folder / name / f"{name}_t2_synth.nii.gz")
    report = {"inputs": {"t1": str(scans / name / f"{name}_t1.nii.gz")}, "reference": "t1", "targets": ["t2"]}
    report |= {"input_intensities": {"t1": {}, "flair": {}}, "weights_sha256": 64 * "a", "mode": "mean", "seed": 0}
    report["intensity_scale"] = {"t2": "0 and 1 stand for the 0.5 and 99.5 percentile inside the brain"}
    (folder / name / f"{name}.json").write_text(json.dumps({**report, "registry": {}}))
    return volume


@pytest.mark.parametrize(
    ("tags", "contrast"),
    [
        (T1, "t1"),
        ({**T1, "SeriesDescription": "AX T1 POST GD"}, "t1ce"),
        ({**T1, "SeriesDescription": "t1_tse_tra+c"}, "t1ce"),
        ({**T1, "ContrastBolusAgent": "Gadovist"}, "t1ce"),
        ({**T1, "ContrastBolusAgent": "NONE"}, "t1"),
        ({**T1, "SeriesDescription": "AX T1 POST OP"}, "t1"),  # a treatment, not an agent
        ({**T1, "SeriesDescription": "AX T1 post-operative"}, "t1"),
        ({**T1, "SeriesDescription": "T1 POST RT"}, "t1"),
        ({**T1, "SeriesDescription": "T1 post treatment"}, "t1"),
        ({**T1, "SeriesDescription": "T1_POSTOP_SAG"}, "t1"),
        ({**T1, "SeriesDescription": "AX T1 POST OP", "ContrastBolusAgent": "Gadovist"}, "t1ce"),
        ({**T1, "SeriesDescription": "T1 PRE OP", "ContrastBolusAgent": "Gadovist"}, "t1ce"),
        ({**T1, "SeriesDescription": "T1 post op post Gd"}, "t1ce"),
        ({**T1, "SeriesDescription": "T1 post contrast"}, "t1ce"),
        ({**T1, "SeriesDescription": "T1 postcon"}, "t1ce"),
        ({**T1, "SeriesDescription": "T1 Magnevist"}, "t1ce"),
        ({**T1, "SeriesDescription": "AX T1 POST"}, ""),  # of what?
        ({**T1, "SeriesDescription": "T1 post op post"}, ""),
        ({**T1, "SeriesDescription": "T1 + FS"}, ""),
        ({**T1, "SeriesDescription": "T1 with fat sat"}, ""),
        ({**T1, "SeriesDescription": "AX T1 POST", "ContrastBolusAgent": "Gadovist"}, "t1ce"),
        ({**T2, "SeriesDescription": "AX T2 POST"}, "t2"),
        ({**T1, "ContrastBolusAgent": "Gadovist", "SeriesDescription": "AX T1 PRE"}, ""),
        ({**T1, "SeriesDescription": "T1 W/WO"}, ""),
        ({**T1, "SeriesDescription": "T1 non contrast"}, "t1"),
        ({**T1, "SeriesDescription": "T1-W posterior fossa W/O GD"}, "t1"),
        (T2, "t2"),
        ({**T2, "ContrastBolusAgent": "Gadovist"}, "t2"),
        ({**T2, "SeriesDescription": ""}, "t2"),  # by its timing
        (FLAIR, "flair"),
        ({**FLAIR, "SeriesDescription": "t2_tirm_dark-fluid"}, "flair"),
        ({**FLAIR, "SeriesDescription": "AX T1"}, ""),  # they contradict each other
        ({**MPRAGE, "SeriesDescription": "Sag MPRAGE"}, "t1"),
        ({**MPRAGE, "SeriesDescription": "study 4"}, ""),
        ({"ScanningSequence": ["SE", "IR"], "EchoTime": 24, "RepetitionTime": 2100, "InversionTime": 780,
          "SeriesDescription": "T1 FLAIR"}, "t1"),
        ({"ScanningSequence": "SE", "EchoTime": 20, "RepetitionTime": 3000, "SeriesDescription": "PD/T2"}, "pd"),
        ({"SeriesDescription": "AX FLAIR"}, "flair"),  # anonymised: the description alone
        ({"SeriesDescription": "series 7"}, ""),
        ({**T2, "InversionTime": 160, "SeriesDescription": "T2 fs"}, ""),
        ({"ScanningSequence": "GR", "EchoTime": 3.6, "RepetitionTime": 22, "SeriesDescription": "3D TOF"}, "unused"),
        ({"ScanningSequence": "EP", "EchoTime": 90, "RepetitionTime": 4000, "SeriesDescription": "T2"}, "unused"),
        ({**T1, "ImageType": ["DERIVED", "PRIMARY", "MPR"]}, ""),
        ({**T1, "ImageType": ["DERIVED", "PRIMARY", "MPR"], "SeriesDescription": "T1 SUB"}, "unused"),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "results"}, "unused"),
        ({**T1, "ImageType": ["ORIGINAL", "PRIMARY", "P"]}, "unused"),
        ({**T2, "SeriesDescription": "SYNTHETIC T2 (from t1)"}, "unused"),
    ],
)  # fmt: skip
def test_contrasts(tags, contrast):
    finding = recognise(tags_of(**tags))
    assert finding.contrast == contrast and finding.why


def test_t1_after_contrast_agent_is_asked():
    assert recognise(tags_of(**T1), after_agent=True).contrast == ""
    assert recognise(tags_of(**{**T1, "SeriesDescription": "T1 pre"}), after_agent=True).contrast == "t1"
    assert recognise(tags_of(**{**T1, "SeriesDescription": "T1 PRE OP"}), after_agent=True).contrast == ""


@pytest.mark.parametrize(
    ("tags", "contrasts"),
    [
        (T1, {"t1"}),
        ({**T1, "SeriesDescription": ""}, {"t1"}),
        ({**T1, "SeriesDescription": "AX T1 POST GD"}, {"t1ce"}),
        ({**T1, "SeriesDescription": "AX T1 POST"}, {"t1", "t1ce"}),
        ({**FLAIR, "SeriesDescription": "AX T1"}, {"flair", "t1", "t1ce"}),
        ({**T1, "SeriesDescription": "T1 loc"}, set()),
        ({**T1, "SeriesDescription": "T1 SUB"}, set()),
        ({**T1, "Modality": "CT"}, set()),
        ({"SeriesDescription": "results"}, set()),
    ],
)
def test_a_contrast_that_would_be_left_out_is_asked(tags, contrasts):
    finding = recognise(tags_of(**tags), fault="lacks slices")
    assert finding.lost == contrasts and finding.contrast == ("" if contrasts else "unused")
    if len(contrasts) == 1:
        (name,) = contrasts
        assert finding.why == f"{name}, but it lacks slices; left out, {name} would be synthesised"


def test_the_timing_of_a_few_slices_says_nothing():
    localizer = tags_of(ScanningSequence="GR", EchoTime=4, RepetitionTime=8, SeriesDescription="3 plane")
    assert recognise(localizer, fault="has 3 slices", few=True).contrast == "unused"
    assert recognise(localizer, fault="lacks slices").lost == {"t1", "t1ce"}
    assert recognise(tags_of(**T1), fault="has 3 slices", few=True).lost == {"t1"}


def test_conversion(exam):
    folder, study = exam
    assert {stack.number: study.findings[stack.key].contrast for stack in study.stacks} == {
        1: "unused", 3: "t1", 4: "flair"
    }  # fmt: skip
    item = find_subjects(folder / "scans", ["t1", "t1ce", "t2", "flair"])[0]
    assert item["subject"] == "P-01_20240305" and item["warnings"] == []
    assert set(item) == {"subject", "t1", "flair", "warnings", "unused"} and item["unused"] == []
    for contrast, affine in (("t1", SAGITTAL), ("flair", OBLIQUE)):
        image = nib.load(item[contrast])
        assert sorted(image.shape) == sorted(SHAPE) and image.get_data_dtype() == np.float32
        world = world_of(image.shape, image.affine)
        truth = np.round(brightness(world) * within(world))
        error = np.abs(image.get_fdata() - truth)
        corners = {
            tuple(np.round(corner, 2) + 0.0) for corner in world_of(SHAPE, affine)[::35, ::43, ::11].reshape(-1, 3)
        }
        found = {tuple(np.round(corner, 2) + 0.0) for corner in world[::35, ::43, ::11].reshape(-1, 3)}
        apart = max(min(np.abs(np.subtract(a, b)).max() for b in found) for a in corners)
        print(f"{contrast}: values differ by {error.max():.3f}, corners by {apart:.4f} mm")
        assert apart < 0.02 and np.quantile(error, 0.999) <= 1  # of 500; at the border a voxel may be in or out


def test_way_back(exam):
    folder, _ = exam
    volume = result_of(folder / "out", folder / "scans")
    to_dicom.main([str(folder / "out"), "--output_dir", str(folder / "back")])
    series = folder / "back" / "P-01_20240305" / "t2"
    files = sorted(series.iterdir())
    images = [pydicom.dcmread(file) for file in files]
    sources = {stack.number: stack for stack in find_stacks(folder / "in")}[3]
    originals = [pydicom.dcmread(file) for file in sources.files]
    assert len(images) == len(originals) == SHAPE[2]
    for image, original in zip(images, originals):
        for name in (
            *("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientAge", "AccessionNumber"),
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "StudyDescription"),
        ):
            assert image[name].value == original[name].value, name
        assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"] and image.BurnedInAnnotation == "NO"
        assert image.SeriesDescription == "SYNTHETIC T2 (from t1, flair)"
        assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert image.SOPInstanceUID != original.SOPInstanceUID
        assert image.EchoTime is image.RepetitionTime is None and image.Manufacturer == "msg-ldm-bundle"
    assert str(images[0].PatientName) == "M\u00fcller^Zo\u00eb"
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert {image.WindowWidth for image in images} == {round(np.percentile(volume[volume > 0], 99.5) * 4095) + 1}
    assert {image.SeriesInstanceUID for image in images}.isdisjoint({originals[0].SeriesInstanceUID})

    # read by another program than wrote it, at the places that the tags say
    back = sitk.ReadImage([str(file) for file in files])
    found = sitk.GetArrayFromImage(back).T / 4095
    scan = nib.load(folder / "scans" / "P-01_20240305" / "P-01_20240305_t1.nii.gz")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(back.GetDirection(), (3, 3)) * back.GetSpacing()
    affine[:3, 3] = back.GetOrigin()
    values, places = np.abs(found - volume).max(), np.abs(LPS @ affine - scan.affine).max()
    print(f"round trip: values differ by {values:.6f} of 1, the affine by {places:.5f} mm")
    assert values < 0.5 / 4095 + 1e-6 and places < 1e-3

    again = to_nifti.convert(folder / "back", folder / "never", {})[0]  # its own results are no scans
    assert again.chosen == {} and "synthetic" in again.findings[again.stacks[0].key].why
    with pytest.raises(InputError, match="cannot be t2: it is synthetic"):
        to_nifti.convert(folder / "back", folder / "never", {again.stacks[0].key: "t2"})


def test_valid_dicom(exam, tmp_path):
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("no dciodvfy: apt-get install dicom3tools")
    folder, _ = exam
    result_of(tmp_path / "out", folder / "scans")
    to_dicom.main([str(tmp_path / "out"), "--output_dir", str(tmp_path / "back")])
    for file in (tmp_path / "back" / "P-01_20240305" / "t2").iterdir():
        told = subprocess.run([validator, str(file)], capture_output=True, text=True).stderr
        assert "MRImage" in told and "Error" not in told, told


def test_questions_and_answers(tmp_path, capsys):
    dicom, scans = tmp_path / "in", tmp_path / "scans"
    sag = write_series(dicom, 5, SAGITTAL, **T1)
    write_series(dicom, 6, **{**T1, "SeriesDescription": "AX T1 repeat"})
    odd = write_series(dicom, 7, **{**T2, "SeriesDescription": "study"} | {"EchoTime": 45})
    write_series(dicom, 8, study="1.2.826.0.1.2", patient="../x", **T2)
    command = [str(dicom), "--output_dir", str(scans)]
    with pytest.raises(SystemExit):
        to_nifti.main(command)
    out = capsys.readouterr().out
    assert "P-01_20240305: not converted" in out and "x_20240305: converted" in out and "3 open questions" in out
    assert sorted(path.name for path in scans.iterdir()) == ["questions.json", "x_20240305"]
    asked = json.loads((scans / "questions.json").read_text())
    assert [question["series"] for question in asked.values()] == [5, 6, 7]
    assert asked[sag]["question"] == "t1, but so is series 6: which one?" and asked[sag]["answer"] is None

    asked[sag]["answer"], asked[odd]["answer"] = "t1", "pd"  # the other t1 then follows
    (scans / "questions.json").write_text(json.dumps(asked))
    to_nifti.main([*command, "--answers", str(scans / "questions.json")])
    assert sorted(path.name for path in (scans / "P-01_20240305").iterdir()) == [
        f"P-01_20240305_{ending}" for ending in ("dicom.json", "pd.nii.gz", "t1.nii.gz")
    ]

    asked[sag]["answer"] = "t7"
    (scans / "questions.json").write_text(json.dumps(asked))
    with pytest.raises(InputError, match="'t7'.*is unknown. Use one of t1, t1ce"):
        to_nifti.main([*command, "--answers", str(scans / "questions.json")])


def edit(files, change):
    """Change the tags of each file, given with its number."""
    for number, file in enumerate(files):
        image = pydicom.dcmread(file)
        change(number, image)
        image.save_as(file)


def test_echo_times_and_axes_that_differ_by_their_rounding_are_one_series(tmp_path):
    write_series(tmp_path, 1, **T1)

    def jitter(number, image):
        image.EchoTime = ("12", "12.004", "12.008")[number % 3]
        image.ImageOrientationPatient = [x + 1e-5 * (number % 2) for x in image.ImageOrientationPatient]

    edit(sorted(tmp_path.iterdir()), jitter)
    (stack,) = find_stacks(tmp_path)
    assert len(stack.files) == SHAPE[2] and stack.fault == ""


def test_a_series_that_cannot_become_a_volume_is_asked_where_it_alone_shows_its_contrast(tmp_path, capsys):
    dicom, scans = tmp_path / "in", tmp_path / "scans"
    cut = write_series(dicom, 5, leave_out=(4,), **T1)
    write_series(dicom, 6, **FLAIR)
    command = [str(dicom), "--output_dir", str(scans)]
    with pytest.raises(SystemExit) as caught:
        to_nifti.main(command)
    out = capsys.readouterr().out
    assert caught.value.code == 1 and "P-01_20240305: not converted" in out
    question = "t1, but it lacks slices: the gaps between them are 4.80 to 9.60 mm; left out, t1 would be synthesised"
    assert question in out and [path.name for path in scans.iterdir()] == ["questions.json"]
    asked = json.loads((scans / "questions.json").read_text())
    assert {key: asked[key]["question"] for key in asked} == {cut: question}

    asked[cut]["answer"] = "t1"  # it stays what it is
    (scans / "questions.json").write_text(json.dumps(asked))
    with pytest.raises(InputError, match="series 5 cannot be t1: it lacks slices.* Set it to unused"):
        to_nifti.main([*command, "--answers", str(scans / "questions.json")])
    asked[cut]["answer"] = "unused"
    (scans / "questions.json").write_text(json.dumps(asked))
    to_nifti.main([*command, "--answers", str(scans / "questions.json")])
    assert sorted(path.name for path in (scans / "P-01_20240305").iterdir()) == [
        "P-01_20240305_dicom.json", "P-01_20240305_flair.nii.gz"
    ]  # fmt: skip

    write_series(dicom, 7, **{**T1, "SeriesDescription": "AX T1 again"})  # shows what series 5 would have shown
    study = to_nifti.convert(dicom, scans, {})[0]
    assert {stack.number: study.findings[stack.key].contrast for stack in study.stacks} == {
        5: "unused", 6: "flair", 7: "t1"
    }  # fmt: skip
    assert study.open == [] and "lacks slices" in study.findings[cut].why


def test_reformats_can_be_taken_for_the_scan_that_is_not_there(tmp_path):
    reformat = write_series(tmp_path / "in", 5, **{**T1, "ImageType": ["DERIVED", "SECONDARY", "MPR"]})
    write_series(tmp_path / "in", 6, **FLAIR)
    study = to_nifti.convert(tmp_path / "in", tmp_path / "scans", {})[0]
    assert study.findings[reformat].why == "t1, but it is a derived image; left out, t1 would be synthesised"
    assert [stack.number for stack in study.open] == [5] and list((tmp_path / "scans").iterdir()) == []
    study = to_nifti.convert(tmp_path / "in", tmp_path / "scans", {reformat: "t1"})[0]
    assert (tmp_path / "scans" / study.name / f"{study.name}_t1.nii.gz").is_file()


def test_an_answer_says_whether_contrast_agent_was_given(tmp_path):
    post = write_series(tmp_path / "in", 5, AcquisitionTime="1001", **{**T1, "SeriesDescription": "AX T1 POST"})
    later = write_series(tmp_path / "in", 6, AcquisitionTime="1002", **{**T1, "SeriesDescription": "SAG T1"})
    for answers in ({}, {post: "t1ce"}, {post: "unused"}):
        study = to_nifti.convert(tmp_path / "in", tmp_path / "scans", answers)[0]
        assert "an earlier series" in study.findings[later].why and study.findings[later].contrast == ""
    study = to_nifti.convert(tmp_path / "in", tmp_path / "scans", {post: "t1"})[0]
    assert study.findings[later].why == "t1, but another was chosen"  # no agent before it: both are t1


def test_what_cannot_become_a_volume(tmp_path):
    write_series(tmp_path, 1, leave_out=(4,), **T2)
    write_series(tmp_path, 2, Modality="CT", **T2)
    twice = write_series(tmp_path, 3, **T2)
    for file in list(tmp_path.glob("3_*")):
        image = pydicom.dcmread(file)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.save_as(tmp_path / f"again{file.name}")
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += OBLIQUE[:3, 0] / 2
    write_series(tmp_path, 4, sheared, **T2)
    echoes = write_series(tmp_path, 5, **T2)
    for file in list(tmp_path.glob("5_*")):  # a second echo in the same series is a stack of its own
        image = pydicom.dcmread(file)
        image.SOPInstanceUID, image.EchoTime = generate_uid(), 20
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(tmp_path / f"second{file.name}")
    stacks = {stack.key: stack for stack in find_stacks(tmp_path)}
    by_number = {stack.number: stack.fault for stack in stacks.values()}
    assert by_number[1] == "lacks slices: the gaps between them are 4.80 to 9.60 mm"
    assert by_number[2] == "is of modality CT, not MR" and "several time points" in stacks[twice].fault
    assert "shifted against each other" in by_number[4]
    assert [len(stacks[key].files) for key in (echoes, f"{echoes}#2")] == [SHAPE[2]] * 2
    assert stacks[echoes].fault == stacks[f"{echoes}#2"].fault == ""


def test_faults_of_the_folder(tmp_path, exam):
    folder, _ = exam
    with pytest.raises(InputError, match="holds no DICOM image"):
        to_nifti.convert(tmp_path, tmp_path / "out", {})
    with pytest.raises(InputError, match="lies inside the input folder"):
        to_nifti.convert(folder / "in", folder / "in" / "out", {})
    with pytest.raises(InputError, match="is no file of answers"):
        to_nifti.read_answers(tmp_path / "none.json")
    with pytest.raises(InputError, match="holds no result"):
        to_dicom.main([str(tmp_path), "--output_dir", str(tmp_path / "back")])


def test_results_that_do_not_fit(exam, tmp_path, capsys):
    folder, _ = exam
    name = "P-01_20240305"
    result_of(tmp_path / "out", folder / "scans")
    path = tmp_path / "out" / name / f"{name}_t2_synth.nii.gz"
    image = nib.load(path)
    moved = image.affine.copy()
    moved[1, 3] += 0.2
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), moved), path)
    with pytest.raises(SystemExit):
        to_dicom.main([str(tmp_path / "out"), "--output_dir", str(tmp_path / "back")])
    assert f"{name}_t2_synth.nii.gz: is not on the grid of series 3" in capsys.readouterr().out
    with pytest.raises(InputError, match="--dicom_dir DIR"):
        to_dicom.write_subject(tmp_path / "out" / name, tmp_path / "back", Path("/nowhere"))
    with pytest.raises(InputError, match="has no \\*_dicom.json beside it"):
        to_dicom.read_origin(path)
