"""The registry: what names match, and what overrides may say."""

from __future__ import annotations

import pytest

from bundle.data.contrasts import Percentiles, Window, load_registry, select
from bundle.data.naming import contrast_of
from bundle.errors import InputError


def test_default_rows():
    registry = load_registry()
    assert list(registry)[:4] == ["t1", "t1ce", "t2", "flair"]
    assert {"pd", "swi", "adc", "ct"} < set(registry)
    assert [name for name, row in registry.items() if row.gadolinium] == ["t1ce"]
    assert registry["t1"].intensity == Percentiles(0.5, 99.5)
    assert (registry["ct"].intensity, registry["ct"].role) == (Window(0, 80), "input")
    assert registry["flair"].role == "both"


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("BraTS20_Training_001_t1", "t1"),
        ("BraTS20_Training_001_t1ce", "t1ce"),
        ("BraTS20_Training_001_t2", "t2"),
        ("BraTS20_Training_001_flair", "flair"),
        ("BraTS-GLI-00001-000-t1n", "t1"),
        ("BraTS-GLI-00001-000-t1c", "t1ce"),
        ("BraTS-GLI-00001-000-t2w", "t2"),
        ("BraTS-GLI-00001-000-t2f", "flair"),
        ("BRATS_001_0000", "flair"),
        ("BRATS_001_0001", "t1"),
        ("BRATS_001_0002", "t1ce"),
        ("BRATS_001_0003", "t2"),
        ("sub-01_ses-2_T1w", "t1"),
        ("sub-01_acq-mprage_run-1_T1w", "t1"),
        ("sub-01_ce-gadolinium_T1w", "t1ce"),
        ("sub-01_acq-3d_ce-gd_dir-AP_run-1_T1w", "t1ce"),
        ("sub-01_T2w", "t2"),
        ("sub-01_FLAIR", "flair"),
        ("sub-01_PDw", "pd"),
        ("FLAIR", "flair"),
        ("T1", "t1"),
        ("IXI002-Guys-0828-T1", "t1"),
        ("IXI002-Guys-0828-T2", "t2"),
        ("IXI002-Guys-0828-PD", "pd"),
        ("T1POST", "t1ce"),
        ("patient01_T1WKS", "t1ce"),
        ("study1_T1W", "t1"),
        ("study1_T2W", "t2"),
        ("UPENN-GBM-00001_11_T1GD", "t1ce"),
        ("p1_T1_post", "t1ce"),
        ("p1_CT1", "t1ce"),
        ("p1_CT", "ct"),
        ("p1_T2_FLAIR", "flair"),
        ("p1_T1_FLAIR", "t1"),
        ("Müller Jörg t1", "t1"),
        ("IXI002-Guys-0828-MRA", "unknown"),
        ("sub-01_T2star", "unknown"),
        ("patientT1", "unknown"),
        ("p1_T1_bias", "unknown"),
        ("3DT1", "t1"),
        ("lesion_mask", "unknown"),
        ("", "unknown"),
    ],
)
def test_names(name, contrast):
    registry = load_registry()
    assert contrast_of(name, registry) == contrast
    assert contrast_of(name.upper(), registry) == contrast


def test_overrides_change_one_field_and_add_rows():
    registry = load_registry({"t1": {"role": "target"}, "pet": {"patterns": ["pet"], "intensity": {"window": [0, 5]}}})
    assert registry["t1"].role == "target"
    assert "t1w" in registry["t1"].patterns
    assert registry["pet"].intensity == Window(0, 5)
    assert contrast_of("sub-01_pet", registry) == "pet"
    assert load_registry()["t1"].role == "both"


def test_a_rule_says_what_the_scale_means():
    rows = load_registry({"flair": {"intensity": {"percentiles": [0.5, 50], "level": 0.4}}})
    assert str(rows["flair"].intensity) == "0 and 0.4 stand for the 0.5 and 50 percentile inside the brain"
    assert str(rows["ct"].intensity) == "0 and 1 stand for 0 and 80 of the scan"


def test_select_keeps_the_order_given():
    assert [row.name for row in select(["flair", "t1"])] == ["flair", "t1"]


@pytest.mark.parametrize("names", [["t1", "t9"], [], ["t1", "t1"]])
def test_select_refuses(names):
    with pytest.raises(InputError):
        select(names)


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"'t9'.*'t1', 't1ce', 't2', 'flair'"):
        select(["t9"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"T1": {"patterns": ["x"]}}, "cannot be used"),
        ({"label": {"patterns": ["x"]}}, "cannot be used"),
        ({"pet": {}}, "no list of file-name patterns"),
        ({"pet": {"patterns": "pet"}}, "no list of file-name patterns"),
        ({"pet": {"patterns": ["(pet"]}}, "no regular expression"),
        ({"pet": {"patterns": [1]}}, "no regular expression"),
        ({"t1": {"rolle": "both"}}, "unknown field 'rolle'"),
        ({"t1": {"role": "output"}}, "role 'output'"),
        ({"t1": {"gadolinium": "no"}}, "gadolinium"),
        ({"t1": {"intensity": {"percentiles": [99, 1]}}}, "intensity rule"),
        ({"t1": {"intensity": {"percentiles": [0, 101]}}}, "intensity rule"),
        ({"t1": {"intensity": {"percentiles": [0, 50], "level": 0}}}, "intensity rule"),
        ({"t1": {"intensity": {"percentiles": [0, 50], "level": "0.4"}}}, "intensity rule"),
        ({"t1": {"intensity": {"percentiles": [0, 50], "to": 0.4}}}, "intensity rule"),
        ({"t1": {"intensity": {"window": [80, 0]}}}, "intensity rule"),
        ({"t1": {"intensity": "zscore"}}, "intensity rule"),
        ({"t1": ["t1"]}, "not a set of fields"),
    ],
)
def test_rows_that_make_no_sense(overrides, told):
    with pytest.raises(InputError, match=told):
        load_registry(overrides)
