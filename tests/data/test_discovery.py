"""Subjects are found in every naming convention, and what cannot be used is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from bundle.data.discovery import find_subjects, scan_keys
from bundle.errors import InputError

CONTRASTS = ["t1", "t1ce", "t2", "flair"]


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")
    return root


def found(root: Path, contrasts=CONTRASTS, **options) -> dict[str, dict[str, str]]:
    """Subject -> key -> path under the root; with a fault or a warning as they are."""
    items = find_subjects(root, contrasts, **options)
    assert [item["subject"] for item in items] == sorted({item["subject"] for item in items})
    return {
        item["subject"]: {
            **{key: Path(item[key]).relative_to(root).as_posix() for key in scan_keys(item)},
            **{key: item[key] for key in ("fault", "label_convention") if key in item},
            **({"warnings": item["warnings"]} if item["warnings"] else {}),
        }
        for item in items
    }


def test_brats_2020(tmp_path):
    one = "BraTS20_Training_001"
    make(tmp_path, *(f"{one}/{one}_{end}.nii.gz" for end in ("t1", "t1ce", "t2", "flair", "seg")))
    assert found(tmp_path) == {
        one: {
            "t1": f"{one}/{one}_t1.nii.gz",
            "t1ce": f"{one}/{one}_t1ce.nii.gz",
            "t2": f"{one}/{one}_t2.nii.gz",
            "flair": f"{one}/{one}_flair.nii.gz",
            "label": f"{one}/{one}_seg.nii.gz",
            "label_convention": "brats",
        }
    }


def test_brats_2023_and_a_subject_without_t1ce(tmp_path):
    for subject, ends in {"BraTS-GLI-00001-000": ("t1n", "t1c", "seg"), "BraTS-GLI-00002-001": ("t2w", "t2f")}.items():
        make(tmp_path, *(f"{subject}/{subject}-{end}.nii.gz" for end in ends))
    subjects = found(tmp_path)
    assert set(subjects["BraTS-GLI-00001-000"]) == {"t1", "t1ce", "label", "label_convention"}
    assert subjects["BraTS-GLI-00001-000"]["label_convention"] == "brats"
    assert set(subjects["BraTS-GLI-00002-001"]) == {"t2", "flair"}


def test_decathlon_converted(tmp_path):
    make(tmp_path, *(f"imagesTr/BRATS_00{i}_000{c}.nii.gz" for i in (1, 2) for c in range(4)))
    make(tmp_path, "labelsTr/BRATS_001.nii.gz", "labelsTr/BRATS_002.nii.gz", "imagesTs/BRATS_485_0001.nii.gz")
    subjects = found(tmp_path)
    assert list(subjects) == ["BRATS_001", "BRATS_002", "BRATS_485"]
    assert subjects["BRATS_001"] == {
        "flair": "imagesTr/BRATS_001_0000.nii.gz",
        "t1": "imagesTr/BRATS_001_0001.nii.gz",
        "t1ce": "imagesTr/BRATS_001_0002.nii.gz",
        "t2": "imagesTr/BRATS_001_0003.nii.gz",
        "label": "labelsTr/BRATS_001.nii.gz",
        "label_convention": "decathlon",
    }
    assert subjects["BRATS_485"] == {"t1": "imagesTs/BRATS_485_0001.nii.gz"}


def test_channel_numbers_of_another_order(tmp_path):
    make(tmp_path, *(f"imagesTr/BraTS2021_00000_000{c}.nii.gz" for c in range(4)))
    warned = found(tmp_path)["BraTS2021_00000"]
    assert warned["t1"].endswith("_0001.nii.gz")
    assert "Decathlon's order" in warned["warnings"][0]
    names = {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": names}))
    told = found(tmp_path)["BraTS2021_00000"]
    assert [told[name][-8:-7] for name in CONTRASTS] == ["0", "1", "2", "3"]
    assert "warnings" not in told
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset.json: is not readable as JSON"):
        found(tmp_path)


def test_decathlon_4d(tmp_path):
    make(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    with pytest.raises(InputError, match=r"4-D file.*split.*BRATS_001_0000"):
        find_subjects(tmp_path, CONTRASTS)
    make(tmp_path, "imagesTr/BRATS_002_0001.nii.gz")
    subjects = found(tmp_path)
    assert "4-D file" in subjects["BRATS_001"]["fault"]
    assert subjects["BRATS_002"] == {"t1": "imagesTr/BRATS_002_0001.nii.gz"}


def test_numbers_of_a_scanner_are_no_channels(tmp_path):
    make(tmp_path, "p1/series/IM_0001.nii.gz", "p2/T1.nii.gz")
    subjects = found(tmp_path)
    assert "none of the contrasts" in subjects["series"]["fault"]
    assert subjects["p2"] == {"t1": "p2/T1.nii.gz"}


def test_bids(tmp_path):
    make(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_ce-gd_T1w.nii.gz")
    make(tmp_path, "sub-01/func/sub-01_task-rest_bold.nii.gz", "sub-01/dwi/sub-01_dwi.nii.gz")
    make(tmp_path, *(f"sub-02/ses-{s}/anat/sub-02_ses-{s}_acq-3d_FLAIR.nii.gz" for s in ("a", "b")))
    make(tmp_path, "sub-03/func/sub-03_task-rest_bold.nii.gz", "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz")
    make(tmp_path, "dataset_description.json")
    subjects = found(tmp_path)
    assert subjects["sub-01"] == {
        "t1": "sub-01/anat/sub-01_T1w.nii.gz",
        "t1ce": "sub-01/anat/sub-01_ce-gd_T1w.nii.gz",
    }
    assert subjects["sub-02_ses-a"] == {"flair": "sub-02/ses-a/anat/sub-02_ses-a_acq-3d_FLAIR.nii.gz"}
    assert list(subjects) == ["sub-01", "sub-02_ses-a", "sub-02_ses-b", "sub-03"]
    assert "none of the contrasts" in subjects["sub-03"]["fault"]


def test_bids_runs_are_two_files_for_one_contrast(tmp_path):
    make(tmp_path, "sub-01/anat/sub-01_run-1_T1w.nii.gz", "sub-01/anat/sub-01_run-2_T1w.nii.gz")
    make(tmp_path, "sub-02/anat/sub-02_T1w.nii.gz")
    fault = found(tmp_path)["sub-01"]["fault"]
    assert "2 files for one contrast, t1" in fault
    assert "sub-01_run-1_T1w.nii.gz" in fault and "sub-01_run-2_T1w.nii.gz" in fault


def test_wmh_prefers_the_preprocessed(tmp_path):
    for place in ("Utrecht/0", "Amsterdam/GE3T/100", "Amsterdam/Philips/100"):
        make(
            tmp_path, *(f"{place}/{part}/{name}.nii.gz" for part in ("orig", "pre") for name in ("FLAIR", "T1", "3DT1"))
        )
        make(tmp_path, f"{place}/orig/3DT1_mask.nii.gz", f"{place}/wmh.nii.gz")
    subjects = found(tmp_path, ["t1", "flair"])
    assert list(subjects) == ["0", "GE3T_100", "Philips_100"]
    assert subjects["0"] == {
        "t1": "Utrecht/0/pre/T1.nii.gz",
        "flair": "Utrecht/0/pre/FLAIR.nii.gz",
        "label": "Utrecht/0/wmh.nii.gz",
        "label_convention": "wmh",
    }


def test_ixi_flat_files(tmp_path):
    make(tmp_path, *(f"IXI0{i}-Guys-0828-{c}.nii.gz" for i in (12, 13) for c in ("T1", "T2", "PD", "MRA")))
    subjects = found(tmp_path, ["t1", "t2", "pd"])
    assert list(subjects) == ["IXI012-Guys-0828", "IXI013-Guys-0828"]
    assert subjects["IXI012-Guys-0828"]["pd"] == "IXI012-Guys-0828-PD.nii.gz"


def test_ixi_folder_per_contrast(tmp_path):
    make(tmp_path, *(f"IXI-{c}/IXI0{i}-Guys-0828-{c}.nii.gz" for i in (12, 13) for c in ("T1", "T2")))
    assert found(tmp_path)["IXI013-Guys-0828"] == {
        "t1": "IXI-T1/IXI013-Guys-0828-T1.nii.gz",
        "t2": "IXI-T2/IXI013-Guys-0828-T2.nii.gz",
    }


def test_flat_folder_of_a_site(tmp_path):
    make(tmp_path, *(f"site {s}/p{i}_{c}.nii" for s in "AB" for i in (1, 2) for c in ("T1", "T2")))
    subjects = found(tmp_path)
    assert list(subjects) == ["site A_p1", "site A_p2", "site B_p1", "site B_p2"]
    assert subjects["site B_p1"] == {"t1": "site B/p1_T1.nii", "t2": "site B/p1_T2.nii"}


def test_sessions(tmp_path):
    make(tmp_path, "p1/raw/study1_T1W.nii.gz", "p1/raw/study2_T1W.nii.gz", "p1/raw/study2_FLAIR.nii.gz")
    make(tmp_path, "p1/raw/gt.nii.gz", "p1/coregistered/gt.nii.gz", "p1/coregistered/brainmask.nii.gz")
    make(tmp_path, "p2/visit 1/T2.nii.gz", "p2/visit 2/T2.nii.gz", "p3/p3_baseline_T2.nii.gz")
    subjects = found(tmp_path)
    assert list(subjects) == ["p1_study1", "p1_study2", "p2_visit 1", "p2_visit 2", "p3_baseline"]
    assert subjects["p1_study2"] == {"t1": "p1/raw/study2_T1W.nii.gz", "flair": "p1/raw/study2_FLAIR.nii.gz"}
    assert list(found(tmp_path / "p1")) == ["p1_study1", "p1_study2"]


def test_prefixes_that_tell_nothing(tmp_path):
    make(tmp_path, "p1/ax_FLAIR.nii.gz", "p1/sag_T1.nii.gz", "p1/p1_cor_T2.nii.gz", "p1/scout.nii.gz")
    assert found(tmp_path) == {
        "p1": {"flair": "p1/ax_FLAIR.nii.gz", "t1": "p1/sag_T1.nii.gz", "t2": "p1/p1_cor_T2.nii.gz"}
    }


def test_one_subject_given_as_the_data_set(tmp_path, monkeypatch):
    root = make(tmp_path / "Jörg K", "T1.nii.gz", "FLAIR.nii.gz", "lesion_mask.nii.gz", "gt.nii.gz")
    assert found(root) == {
        "Jörg K": {
            "t1": "T1.nii.gz",
            "flair": "FLAIR.nii.gz",
            "label": "lesion_mask.nii.gz",
            "label_convention": "binary",
        }
    }
    monkeypatch.chdir(root)
    assert [item["subject"] for item in find_subjects(".", CONTRASTS)] == ["Jörg K"]


def test_names_that_occur_twice(tmp_path):
    make(tmp_path, "a/patient01/T1.nii.gz", "b/patient01/T1.nii.gz", "b/Patient02/T1.nii.gz", "patient02/T1.nii.gz")
    make(tmp_path, "imagesTr/patient03_t2.nii.gz", "imagesTr/PATIENT03_t2.nii.gz")
    assert list(found(tmp_path)) == [
        "PATIENT03_1",
        "a_patient01",
        "b_Patient02",
        "b_patient01",
        "patient02",
        "patient03_2",
    ]


def test_labels_and_masks(tmp_path):
    make(tmp_path, "p1/T1.nii.gz", "p1/T1_brain_mask.nii.gz", "p1/tumor_mask.nii.gz", "p1/seg.nii.gz")
    make(tmp_path, "p2/p2_T1.nii.gz", "p2/p2_brainmask.nii.gz", "p2/p2_consensus_gt.nii.gz")
    make(tmp_path, "p3/T1.nii.gz", "p3/mask.nii.gz", "p3/brainmask.nii.gz")
    subjects = found(tmp_path)
    assert subjects["p1"] == {
        "t1": "p1/T1.nii.gz",
        "mask": "p1/T1_brain_mask.nii.gz",
        "label": "p1/seg.nii.gz",
        "label_convention": "auto",
    }
    assert (subjects["p2"]["mask"], subjects["p2"]["label_convention"]) == ("p2/p2_brainmask.nii.gz", "binary")
    make(tmp_path, "BraTS20_355/BraTS20_355_t1ce.nii", "BraTS20_355/W39_1998.09.19_Segm.nii")  # named so in BraTS 2020
    assert found(tmp_path)["BraTS20_355"]["label"] == "BraTS20_355/W39_1998.09.19_Segm.nii"
    assert "mask" not in subjects["p3"]
    assert "several mask files" in subjects["p3"]["warnings"][0]


def test_not_taken(tmp_path):
    make(tmp_path, "p1/T1.nii.gz", "p1/._T2.nii.gz", "p1/.hidden/FLAIR.nii.gz", "p1/p1_t1ce_synth.nii.gz")
    make(tmp_path, "out/p1/p1_t2_synth.nii.gz", "out/p1/p1_t2_uncertainty.nii.gz", "p1/T2.nii.gz.part", "p1/FLAIR.mgz")
    reason = ".mgz files are not read; convert it to NIfTI with FreeSurfer's mri_convert"
    assert found(tmp_path) == {"p1": {"t1": "p1/T1.nii.gz", "warnings": [f"p1/FLAIR.mgz is not used: {reason}"]}}


def test_folder_named_like_a_file(tmp_path):
    make(tmp_path, "p1/T1.nii/T1.nii")
    assert found(tmp_path) == {"p1": {"t1": "p1/T1.nii/T1.nii"}}  # as in any folder that says its scan's contrast


def test_spaces_and_other_letters(tmp_path):
    make(tmp_path, "Änne Ørsted 患者/T1 post.nii.gz", "Änne Ørsted 患者/Änne Ørsted 患者_t2.NII.GZ")
    assert found(tmp_path) == {
        "Änne Ørsted 患者": {
            "t1ce": "Änne Ørsted 患者/T1 post.nii.gz",
            "t2": "Änne Ørsted 患者/Änne Ørsted 患者_t2.NII.GZ",
        }
    }


# Names in public data sets and bug reports that were once read wrongly: files of a subject p (.nii.gz unless they say
# otherwise) -> what is used; "unused": the other files; None: the subject is refused.
P, SUB = "p/", "sub-x/anat/sub-x_"
READ_AS = [
    # BIDS entities never divide a subject
    (SUB, "T1w T2w acq-3D_FLAIR", {"t1": "T1w", "t2": "T2w", "flair": "acq-3D_FLAIR"}),
    (SUB, "run-1_T1w T2w", {"t1": "run-1_T1w", "t2": "T2w"}),
    (SUB, "desc-brain_mask acq-y_T1w", {"mask": "desc-brain_mask", "t1": "acq-y_T1w"}),
    (SUB, "rec-norm_echo-1_T1w hemi-L_T2w res-2_FLAIR", {"t1": "rec-norm_echo-1_T1w", "flair": "res-2_FLAIR"}),
    ("d/sub-x_", "T1w T2w acq-3D_FLAIR", {"t1": "T1w", "t2": "T2w", "flair": "acq-3D_FLAIR"}),
    # registered files: in X_to_Y the scan is X
    (P, "T1 FLAIR_to_T1 T2_to_T1", {"t1": "T1", "flair": "FLAIR_to_T1", "t2": "T2_to_T1"}),
    ("p_", "T1 FLAIR_to_T1 T2_to_T1", {"t1": "T1", "flair": "FLAIR_to_T1", "t2": "T2_to_T1"}),
    ("", "T1 FLAIR_to_T1 T2_to_T1", {"t1": "T1", "flair": "FLAIR_to_T1", "t2": "T2_to_T1"}),
    (P, "T1 FLAIR_reg_T1 T2_in_T1", {"t1": "T1", "flair": "FLAIR_reg_T1", "t2": "T2_in_T1"}),
    (P, "T1 FLAIR FLAIR2T1 T2_registered_to_T1", {"t1": "T1", "flair": "FLAIR2T1", "t2": "T2_registered_to_T1"}),
    (P, "T1_to_FLAIR FLAIR", {"t1": "T1_to_FLAIR", "flair": "FLAIR"}),
    (SUB, "T1w space-T1w_FLAIR", {"t1": "T1w", "flair": "space-T1w_FLAIR"}),
    (P, "T1 FLAIR_coreg rT2", {"t1": "T1", "flair": "FLAIR_coreg", "t2": "rT2"}),
    (P, "wT1 wFLAIR wmT2", {"t1": "wT1", "flair": "wFLAIR", "t2": "wmT2"}),
    (P, "T1 T2_to_MNI FLAIR", None),
    # what an entity or a word says against the suffix
    (SUB, "T1w acq-FLAIRax_T2w", {"t1": "T1w", "flair": "acq-FLAIRax_T2w"}),
    (SUB, "T1w acq-postcontrast_T1w", {"t1": "T1w", "t1ce": "acq-postcontrast_T1w"}),
    (P, "T1 Gd_T1", {"t1": "T1", "t1ce": "Gd_T1"}),
    (P, "T2 POST_T1", {"t2": "T2", "t1ce": "POST_T1"}),
    (SUB, "T1w part-phase_T2w", {"t1": "T1w"}),
    (SUB, "part-mag_T1w part-phase_T1w", {"t1": "part-mag_T1w"}),
    (SUB, "T2w acq-MTon_T1w", {"t2": "T2w"}),
    (SUB, "T2w mt-on_T1w mt-off_T1w", {"t2": "T2w", "t1": "mt-off_T1w"}),
    # neighbours that no row knew
    (P, "T1_pre T1_gad T2_reg FLAIR_N4", {"t1": "T1_pre", "t1ce": "T1_gad", "t2": "T2_reg", "flair": "FLAIR_N4"}),
    (P, "T1_contrast T2", {"t1ce": "T1_contrast", "t2": "T2"}),
    (P, "T1+C T1", {"t1ce": "T1+C", "t1": "T1"}),
    (P, "T1_brain T2_bet", {"t1": "T1_brain", "t2": "T2_bet"}),
    (P, "MPRAGE GADO", {"t1": "MPRAGE", "t1ce": "GADO"}),
    (P, "3DT1 rT2", {"t1": "3DT1", "t2": "rT2"}),
    (P, "T1_(1) FLAIR", {"t1": "T1_(1)", "flair": "FLAIR"}),
    (P, "T1_without_contrast T1_with_contrast", {"t1": "T1_without_contrast", "t1ce": "T1_with_contrast"}),
    (P, "FLAIR_post T1", {"t1": "T1"}),
    # other formats
    (P, "T1 T2.mha T1C.nrrd", {"t1": "T1"}),
    (P, "x_t1 x_t2.hdr", {"t1": "x_t1"}),
    (P, "T1 T2.mgz FLAIR.mnc", {"t1": "T1"}),
    (P, "T1.nii.gz.nii.gz", {"t1": "T1.nii.gz.nii.gz"}),
    (P, "T1.mgz", None),
    # two files of the only contrast
    (SUB, "run-1_T1w run-2_T1w", None),
    (P, "T1.nii T1.nii.gz", None),
    (SUB, "desc-preproc_T1w space-MNI152NLin2009cAsym_desc-preproc_T1w", None),
    (P, "T1_(1) T1", None),
    # skull-stripping results beside the scans
    (P, "T1 T1_bet T1_bet_mask FLAIR", {"t1": "T1_bet", "flair": "FLAIR", "mask": "T1_bet_mask"}),
    (P, "T1 T1_bet FLAIR_bet FLAIR", {"t1": "T1_bet", "flair": "FLAIR_bet"}),
    # labels of lesions are never a brain
    (P, "x_T1 x_tumor_mask", {"t1": "x_T1", "label": "x_tumor_mask"}),
    (P, "x_T1 x_tumor_mask x_edema_mask x_brain_mask", {"t1": "x_T1", "mask": "x_brain_mask"}),
    (SUB, "T1w desc-T1lesion_mask", {"t1": "T1w", "label": "desc-T1lesion_mask"}),
    (P, "T1 ventricles_mask strange_mask", {"t1": "T1"}),
    # time points named like contrasts
    ("P14/T2/P14_T2_", "T1 T2 MASK", {"t1": "T1", "t2": "T2", "label": "MASK"}),
    ("P14_T3_", "T2 T1 MASK", {"t2": "T2", "t1": "T1", "label": "MASK"}),
    # nothing says which is meant
    (P, "T1_T2 FLAIR", {"flair": "FLAIR"}),
    (P, "T1_odd FLAIR", {"flair": "FLAIR"}),
    # inversion recovery is a FLAIR or a STIR, unless the name says which
    (P, "T2_tirm T1", {"t1": "T1"}),
    (P, "T2_tirm T1_tirm", None),
    (P, "T2_tirm FLAIR_tirm", {"flair": "FLAIR_tirm"}),
    # names of Siemens
    (
        P,
        "t2_tirm_tra_dark-fluid t1_vibe t2_tse_tra",
        {"flair": "t2_tirm_tra_dark-fluid", "t1": "t1_vibe", "t2": "t2_tse_tra"},
    ),
    (P, "t2_spc_da-fl t1_mpr_ns_sag t2_blade", {"flair": "t2_spc_da-fl", "t1": "t1_mpr_ns_sag", "t2": "t2_blade"}),
    (P, "darkfluid t1_fl2d_tra t2_space", {"flair": "darkfluid", "t1": "t1_fl2d_tra", "t2": "t2_space"}),
    (P, "dark-fluid t1_spc t1_tse_km", {"flair": "dark-fluid", "t1": "t1_spc", "t1ce": "t1_tse_km"}),
    # with and without contrast agent, in several languages
    (P, "T1_ohne_KM T1_mit_KM", {"t1": "T1_ohne_KM", "t1ce": "T1_mit_KM"}),
    (P, "T1_sans_gado T1_avec_gado", {"t1": "T1_sans_gado", "t1ce": "T1_avec_gado"}),
    (P, "T1_without_Gd T1_with_Gd", {"t1": "T1_without_Gd", "t1ce": "T1_with_Gd"}),
    (P, "T1_wo_gd T1_gd", {"t1": "T1_wo_gd", "t1ce": "T1_gd"}),
    (P, "T1_native T1_nach_KM", {"t1": "T1_native", "t1ce": "T1_nach_KM"}),
    (P, "T1_ohne_etwas T2", {"t2": "T2"}),
    ("p_", "T1 odd_FLAIR", None),
    (P, "anna_T1 bert_FLAIR", None),
    (P, "T1 more/FLAIR", None),
]


@pytest.mark.parametrize(("start", "names", "used"), READ_AS)
def test_what_public_names_say(tmp_path, start, names, used):
    def path(name):
        return f"{start}{name}" if "." in name else f"{start}{name}.nii.gz"

    make(tmp_path, *map(path, names.split()))
    items = find_subjects(tmp_path, CONTRASTS)
    if used is None:
        assert all("fault" in item for item in items)
        assert all("datalist" in item["fault"] or "convert" in item["fault"] for item in items)
        return
    (item,) = items
    assert "fault" not in item
    files = {key: Path(item[key]).relative_to(tmp_path).as_posix() for key in scan_keys(item)}
    assert files == {key: path(name) for key, name in used.items()}
    unused = {Path(entry["file"]).relative_to(tmp_path).as_posix() for entry in item["unused"]}
    assert unused == {path(name) for name in names.split()} - set(files.values())
    assert all(entry["reason"] for entry in item["unused"])


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("T1-weighted", "t1"),
        ("T2-FLAIR", "flair"),
        ("T1-weighted post-contrast", "t1ce"),
        ("T2-weighted", "t2"),
        ("T1Gd", "t1ce"),
        ("FLAIR", "flair"),
    ],
)
def test_words_of_a_dataset_json(tmp_path, name, contrast):
    make(tmp_path, "imagesTr/p_0000.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": name}}))
    assert found(tmp_path) == {"p": {contrast: "imagesTr/p_0000.nii.gz"}}


@pytest.mark.parametrize(
    ("names", "held"),
    [
        ("T1 T2.mha", {"T2.mha": ["t2", "flair"]}),
        ("T1 scan4", {"scan4": CONTRASTS}),
        ("T1 FLAIR_post", {"FLAIR_post": ["flair"]}),
        ("FLAIR T1_odd", {"T1_odd": ["t1", "t1ce"]}),
        ("T1 phase_T2", {"phase_T2": []}),
        ("T1 T1_bet", {"T1": []}),
    ],
)
def test_which_contrasts_an_unused_file_may_hold(tmp_path, names, held):
    make(tmp_path, *(f"p/{name}" if "." in name else f"p/{name}.nii.gz" for name in names.split()))
    (item,) = find_subjects(tmp_path, CONTRASTS)
    assert {Path(e["file"]).name.removesuffix(".nii.gz"): e["may_hold"] for e in item["unused"]} == held
    assert len(item["warnings"]) == sum(map(bool, held.values()))


@pytest.mark.parametrize(
    "names", [("T1.nii.gz", "T1.nii"), ("T1.nii.gz", "T1W.nii.gz"), ("a_T1.nii", "b_T1.nii", "T2.nii")]
)
def test_two_files_for_one_contrast(tmp_path, names):
    make(tmp_path, *(f"p1/{name}" for name in names), "p2/T1.nii.gz")
    subjects = found(tmp_path)
    fault = subjects["p1"]["fault"]
    assert all(name in fault for name in names[:2])
    assert "\n" not in fault and str(tmp_path / "p1") in fault
    assert subjects["p2"] == {"t1": "p2/T1.nii.gz"}


def test_subject_without_a_wanted_contrast(tmp_path):
    make(tmp_path, "p1/T1.nii.gz", "p2/PD.nii.gz", "p3/unheard.nii.gz", "p1/dti/b0.nii.gz")
    subjects = found(tmp_path)
    assert list(subjects) == ["p1", "p2", "p3"]
    assert "has pd, but none of t1, t1ce, t2, flair" in subjects["p2"]["fault"]
    assert "unheard.nii.gz" in subjects["p3"]["fault"]


def test_stray_file_beside_the_subjects_is_logged(tmp_path, caplog):
    make(tmp_path, "p1/T1.nii.gz", "atlas.nii.gz")
    with caplog.at_level(logging.WARNING):
        assert list(found(tmp_path)) == ["p1"]
    assert "atlas.nii.gz" in caplog.text


def test_own_names_by_an_override(tmp_path):
    make(tmp_path, "p1/QUICKBRAIN.nii.gz")
    with pytest.raises(InputError, match="no file is named as one of the contrasts"):
        find_subjects(tmp_path, CONTRASTS)
    for pattern in ("quickbrain", "quick.*"):
        assert found(tmp_path, overrides={"t1": {"patterns": [pattern]}}) == {"p1": {"t1": "p1/QUICKBRAIN.nii.gz"}}
    make(tmp_path, "p1/seq_7_gd.nii.gz")
    rows = {"t1": {"patterns": ["quickbrain"]}, "t2": {"patterns": ["seq_[67]_gd"]}}  # before what 'gd' says
    assert found(tmp_path, overrides=rows) == {"p1": {"t1": "p1/QUICKBRAIN.nii.gz", "t2": "p1/seq_7_gd.nii.gz"}}


def test_links(tmp_path):
    make(tmp_path, "data/p1/T1.nii.gz", "elsewhere/T1.nii.gz")
    data = tmp_path / "data"
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "loop").symlink_to(data / "loop")
    (data / "up").symlink_to(data)
    (data / "gone").symlink_to(tmp_path / "nowhere")
    (data / "p1" / "again").symlink_to(data / "p1")
    subjects = found(data)
    assert list(subjects) == ["gone", "linked", "loop", "p1", "up"]
    assert subjects["linked"] == {"t1": "linked/T1.nii.gz"}
    for name in ("gone", "loop", "up"):
        assert subjects[name]["fault"].startswith(f"{data / name}: is a link that leads nowhere or back to itself. ")
    assert "again" in subjects["p1"]["warnings"][0]
    assert subjects["p1"]["t1"] == "p1/T1.nii.gz"


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(InputError, match="none: does not exist"):
        find_subjects(tmp_path / "none", CONTRASTS)
    with pytest.raises(InputError, match="holds no NIfTI file"):
        find_subjects(tmp_path, CONTRASTS)
    make(tmp_path, "p1/other.nii.gz", "p1/seg.nii.gz")
    with pytest.raises(InputError, match="no file is named as one of the contrasts t1, t1ce, t2, flair"):
        find_subjects(tmp_path, CONTRASTS)
    with pytest.raises(InputError, match="is not a folder"):
        find_subjects(tmp_path / "p1" / "other.nii.gz", CONTRASTS)


REAL = {
    "open_ms": {"patient07": "t1 t1ce t2 flair label", "patient26": "t1 t1ce t2 flair label"},
    "brats_2021": {f"BraTS2021_014{n}": "t1 t1ce t2 flair label" for n in (76, 77, 78, 79, 80, 82, 83, 85)},
    "brats_gli": {
        "BraTS-GLI-00001-000": "t1 t1ce t2 flair label",
        "BraTS-GLI-00027-000": "t1 t1ce t2 flair",
        "BraTS-GLI-00028-000": "t1 t1ce t2 flair",
    },
    "mslesseg": {
        "P14_T2": "t1 t2 flair label",
        "P14_T3": "t1 t2 flair label",
        "P18_T1": "t1 flair label",
    },
    "msd_brain_tumour": {"BRATS_001": "t1 t1ce t2 flair label"},
    "open_ms_longitudinal": {
        "patient01_study1": "t1 t2 flair",
        "patient01_study2": "t1 t2 flair",
        "patient03_study1": "t2 flair",
        "patient03_study2": "t1 t2 flair",
        "patient04_study1": "t1 t2 flair",
    },
}
CONVENTIONS = {
    "open_ms": "binary",
    "brats_2021": "brats",
    "brats_gli": "brats",
    "msd_brain_tumour": "decathlon",
    "mslesseg": "binary",
}


@pytest.mark.parametrize("source", REAL)
def test_real_sources(shared_data, source):
    items = find_subjects(shared_data / source, CONTRASTS)
    assert {item["subject"]: " ".join(scan_keys(item)) for item in items} == REAL[source]
    assert {item["label_convention"] for item in items if "label" in item} == {CONVENTIONS.get(source)} - {None}
    assert not any(item["warnings"] or "fault" in item for item in items)


def test_time_points_that_look_like_contrasts(shared_data):
    items = find_subjects(shared_data / "mslesseg", CONTRASTS)
    for item in items:
        for key, end in {"t1": "T1", "t2": "T2", "flair": "FLAIR", "label": "MASK"}.items():
            assert key not in item or Path(item[key]).name == f"{item['subject']}_{end}.nii.gz"


def test_all_real_sources_at_once(shared_data):
    items = find_subjects(shared_data, CONTRASTS)
    assert {item["subject"]: " ".join(scan_keys(item)) for item in items} == {
        k: v for s in REAL.values() for k, v in s.items()
    }


@pytest.mark.parametrize(
    "files",
    [
        ["T1/p1/T1", "FLAIR/p1/FLAIR"],
        ["data/T1/p1/x_T1", "data/FLAIR/p1/x_FLAIR"],
        ["p1/T1/001/T1", "p1/FLAIR/002/FLAIR"],
        ["p1/scans/2/NIFTI/T1", "p1/scans/3/NIFTI/FLAIR"],  # XNAT
        ["p1/scan1/T1", "p1/scan2/T2"],
        [
            f"OAS_d0129/anat{n}/NIFTI/sub-OAS_ses-d0129_{end}"
            for n, end in enumerate(("run-01_T1w", "run-02_T1w", "T2w"))
        ],
        [
            "A/002/MPRAGE/2006-04-18_08_20_30.0/I1/A_002_MR_MPRAGE",  # ADNI
            "A/002/MPRAGE/2007-04-18_08_20_30.0/I2/A_002_MR_MPRAGE",
            "A/002/Axial_FLAIR/2007-04-18_08_20_30.0/I3/A_002_MR_Axial_FLAIR",
        ],
        ["a/sub-1/anat/sub-1_T1w", "b/sub-1/anat/sub-1_FLAIR"],
        ["patient 1/T1", "Patient 1/FLAIR"],
        ["sub-01_T1w", "sub-1_FLAIR"],
        ["sub-01/anat/sub-01_T1w", "sub-1/anat/sub-1_T1w"],
        ["p1/ses-01/T1", "p1/ses-1/FLAIR"],
    ],
)
def test_a_study_with_a_folder_for_each_series_is_refused(tmp_path, files):
    make(tmp_path, *(f"{file}.nii.gz" for file in files))
    faults = [subject.get("fault", "") for subject in found(tmp_path).values()]
    assert len(faults) == len(files)
    assert all("may be of one study or of two" in fault for fault in faults)


@pytest.mark.parametrize(
    "files",
    [
        ["p1/T1", "p2/FLAIR"],
        ["p1_T1", "p2_FLAIR"],
        ["p1/pre-op/T1", "p1/post-op/FLAIR"],
        ["ses-1/sub-1/T1", "ses-2/sub-1/FLAIR"],
        ["sub-1/ses-1/sub-1_ses-1_T1w", "sub-1/ses-2/sub-1_ses-2_FLAIR"],
        ["site/p1/T1", "site/p2/T1", "site/p3/FLAIR"],
        ["p1/T1/p1_T1_T2", "p1/T2/p1_T2_T1"],  # time points
    ],
)
def test_subjects_and_sessions_of_other_contrasts_are_no_series_of_one(tmp_path, files):
    make(tmp_path, *(f"{file}.nii.gz" for file in files))
    subjects = found(tmp_path)
    assert len(subjects) == len(files)
    assert not [subject for subject in subjects.values() if "fault" in subject]


def test_a_lone_scan_with_an_unknown_word(tmp_path):
    make(tmp_path, "p1/T2_tirm.nii.gz", "p2/T1_S13408.nii.gz", "p3/T1.nii.gz")
    subjects = found(tmp_path)
    assert "T2_tirm.nii.gz: it is not known what 'tirm' in its name means" in subjects["p1"]["fault"]
    assert subjects["p2"] == {"t1": "p2/T1_S13408.nii.gz"}


def test_a_fault_ends_with_one_full_stop(tmp_path):
    make(tmp_path, "p/anna_T1.nii.gz", "p/bert_FLAIR.nii.gz")
    (item,) = found(tmp_path).values()
    assert "different words (anna, bert), of one subject or of several. Give each subject a folder" in item["fault"]


def test_an_unclear_sequence_may_be_any_contrast(tmp_path):
    make(tmp_path, "p1/sT1W_3D_TFE.nii.gz", "p1/T2W_TSE.nii.gz")
    (item,) = find_subjects(tmp_path, CONTRASTS)
    assert [entry["may_hold"] for entry in item["unused"]] == [CONTRASTS]


def test_minus_and_plus_say_whether_there_is_agent(tmp_path):
    make(tmp_path, "p1/T1 C-.nii.gz", "p1/T1 C+.nii.gz", "p2/T1_-C.nii.gz", "p2/SAG T1 SE+C.nii.gz", "p3/T1-C.nii.gz")
    make(tmp_path, "p4/T1_KM-.nii.gz", "p4/T1_KM+.nii.gz", "p5/Gd-/T1.nii.gz", "p5/Gd+/T1.nii.gz")
    make(tmp_path, "p6/T1C-.nii.gz", "p6/T1C+.nii.gz")
    assert found(tmp_path) == {
        "p1": {"t1": "p1/T1 C-.nii.gz", "t1ce": "p1/T1 C+.nii.gz"},
        "p2": {"t1": "p2/T1_-C.nii.gz", "t1ce": "p2/SAG T1 SE+C.nii.gz"},
        "p3": {"t1ce": "p3/T1-C.nii.gz"},
        "p4": {"t1": "p4/T1_KM-.nii.gz", "t1ce": "p4/T1_KM+.nii.gz"},
        "p6": {"t1": "p6/T1C-.nii.gz", "t1ce": "p6/T1C+.nii.gz"},
        "p5": {"t1": "p5/Gd-/T1.nii.gz", "t1ce": "p5/Gd+/T1.nii.gz"},
    }


@pytest.mark.parametrize(
    ("files", "subjects"),
    [
        ("KM/T1 KM/T2 LS/T1 LS/T2", "KM LS"),
        ("KM/KM_T1 KM/KM_T2 LS/LS_T1", "KM LS"),
        ("Km/anat/T1 Km/anat/T2 001/anat/T1", "001 Km"),
        ("KM/T1 LS/FLAIR", "KM LS"),
        ("GD/T1 CE/T1 CM/T1 KS/T1 KS/T2", "CE CM GD KS"),
        ("site/KM/T1 site/KM/T2 site/LS/T1 site/LS/T2", "KM LS"),
        ("KM_T1 KM_T2 LS_T1 LS_T2", "KM LS"),
        ("GD_T1 GD_T2 KM_T1 KM_T2", "GD KM"),
        ("site/KM_T1 site/KM_T2 site/LS_T1 site/LS_T2", "KM LS"),
    ],
)
def test_initials_are_no_contrast_agent(tmp_path, files, subjects):
    make(tmp_path, *(f"{file}.nii.gz" for file in files.split()))
    read = found(tmp_path)
    assert " ".join(read) == subjects
    used = {file: (name, key) for name, item in read.items() for key, file in item.items()}
    for file in files.split():
        ((subject, key),) = [used[f"{file}.nii.gz"]]
        assert subject in file and file.upper().endswith(key.upper())


def test_initials_behind_the_contrast_are_a_doubt(tmp_path):
    make(tmp_path, *(f"{name}.nii.gz" for name in ("KM/T2", "KM/T1_KM", "KM/KM_FLAIR", "LS/T1", "LS/T1_KM")))
    km, ls = find_subjects(tmp_path, CONTRASTS)
    assert (set(scan_keys(km)), set(scan_keys(ls))) == ({"t2", "flair"}, {"t1", "t1ce"})
    assert [entry["may_hold"] for entry in km["unused"]] == [["t1", "t1ce"]]


@pytest.mark.parametrize("files", ["KM_T1 LS_T1", "Gd_T1 p1_T1 p1_T2", "Gd_T1 Gd_FLAIR p1_T1 p1_T2"])
def test_initials_or_contrast_agent_beside_other_contrasts(tmp_path, files):
    make(tmp_path, *(f"{file}.nii.gz" for file in files.split()))
    assert all("may be of one study or of two" in item["fault"] for item in found(tmp_path).values())


@pytest.mark.parametrize("files", ["KM/T1 KM/T2", "KM/KM_T1 KM/KM_FLAIR", "KM_T1 KM_T2"])
def test_initials_of_the_only_subject_may_be_contrast_agent(tmp_path, files):
    make(tmp_path, *(f"{file}.nii.gz" for file in files.split()))
    (item,) = found(tmp_path).values()
    assert "'KM' in its name may mean contrast agent" in item["fault"]


@pytest.mark.parametrize(
    ("files", "t1ce"),
    [
        ("Gd/T1 T1 T2", "Gd/T1"),
        ("Gd/T1 Gd/FLAIR nativ/T1", "Gd/T1"),
        ("p1/KM/T1 p1/T1", "p1/KM/T1"),
        ("p1/KM_T1 p1/T1 p1/T2", "p1/KM_T1"),
        ("p1/Gd_T1 p1/x_T1 p1/x_T2", "p1/Gd_T1"),
        ("KM_T1 T1 T2", "KM_T1"),
    ],
)
def test_short_words_for_contrast_agent_within_a_study(tmp_path, files, t1ce):
    make(tmp_path, *(f"{file}.nii.gz" for file in files.split()))
    (item,) = found(tmp_path).values()
    assert item["t1ce"] == f"{t1ce}.nii.gz" and "fault" not in item


def test_msseg_2016(tmp_path):
    make(tmp_path, *(f"01/Preprocessed_Data/{name}_preprocessed.nii.gz" for name in ("FLAIR", "T1", "GADO")))
    make(tmp_path, "01/Raw_Data/FLAIR.nii.gz", "01/Masks/Brain_Mask.nii.gz")
    assert found(tmp_path) == {
        "01": {
            "t1": "01/Preprocessed_Data/T1_preprocessed.nii.gz",
            "t1ce": "01/Preprocessed_Data/GADO_preprocessed.nii.gz",
            "flair": "01/Preprocessed_Data/FLAIR_preprocessed.nii.gz",
            "mask": "01/Masks/Brain_Mask.nii.gz",
        }
    }


@pytest.mark.parametrize(
    ("files", "refused"),
    [
        ("p1_pre_T1 p1_pre_T2 p1_pre_FLAIR p1_post_T1 p1_post_T2 p1_post_FLAIR", "p1"),
        ("p1/p1_pre_T1 p1/p1_pre_FLAIR p1/p1_post_T1 p1/p1_post_FLAIR", "p1"),
        ("p1/T1 p1/T2 p1/T1_post p1/T2_post p2/T1", "p1"),
        ("pre/p1/T1 post/p1/T1", "pre_p1 post_p1"),
        ("pre/p1/T1 pre/p1/T2 post/p1/T1 post/p1/T2 p2/T1", "pre_p1 post_p1"),
        ("post/p1/T1 p2/T1", "p1"),
        ("Gd/p1/T1 nativ/p1/T1", "Gd_p1 nativ_p1"),
        ("nativ/p1/T1 Gd/p1/T1ce p2/T1", "Gd_p1 nativ_p1"),
        ("pre/p1/T1 pre/p1/T1ce post/p1/T1 post/p1/T1ce", ""),
        ("p1_pre/T1 p1_post/T1 p2/T1", "p1_pre p1_post"),
        ("p1/pre_T1 p1/post_T1 p1/FLAIR", ""),
        ("p1/T1 p1/T1_gd p1/FLAIR p1/FLAIR_post", ""),
        ("post/p1/T1 post/p1/T1ce post/p2/T1ce", ""),
    ],
)
def test_post_may_mean_contrast_agent_or_an_operation(tmp_path, files, refused):
    make(tmp_path, *(f"{file}.nii.gz" for file in files.split()))
    faults = {name: subject["fault"] for name, subject in found(tmp_path).items() if "fault" in subject}
    assert set(faults) == set(refused.split())
    assert all("contrast agent" in fault and "--datalist" in fault for fault in faults.values())


def test_folders_named_after_a_step_are_no_versions_of_each_other_unasked(tmp_path):
    """native and stripped, each with a T1: two subjects, or two versions of one."""
    make(tmp_path, *(f"{name}.nii.gz" for name in ("native/T1W", "native/FLAIR", "stripped/T1", "stripped/T2")))
    (item,) = find_subjects(tmp_path, CONTRASTS)
    assert not {"t1", "t2", "flair"} & item.keys() and "--datalist" in item["fault"]
    assert all("may be a subject, or hold a version" in file["reason"] for file in item["unused"])


def test_a_folder_named_after_a_step_beside_subjects_is_a_subject(tmp_path):
    make(tmp_path, "native/T1.nii.gz", "native/T2.nii.gz", "p1/T1.nii.gz")
    assert [item["subject"] for item in find_subjects(tmp_path, CONTRASTS)] == ["native", "p1"]
