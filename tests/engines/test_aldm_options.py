import pytest

from bundle.engines.aldm_options import TranslationOptions
from bundle.errors import InputError

CONTRASTS = ("t1", "t1ce", "t2", "flair")


def test_all_but_the_targets_are_sources():
    assert TranslationOptions(CONTRASTS).inputs == list(CONTRASTS)
    assert TranslationOptions(CONTRASTS, targets=["t2"]).inputs == ["t1", "t1ce", "flair"]


@pytest.mark.parametrize("sources", ["t2", ["t2"], ("flair", "t2")])
def test_the_others_are_hidden(sources):
    options = TranslationOptions(CONTRASTS, sources=sources)
    chosen = [name for name in CONTRASTS if name in sources]
    assert options.inputs == chosen and options.hidden == [name for name in CONTRASTS if name not in chosen]
    given, made = options.plan(dict.fromkeys(("t1", "t2", "flair"), "path"))
    assert given == chosen and made == ["t1ce"]


def test_a_subject_without_a_source():
    with pytest.raises(InputError, match="no scan is left to make t1ce, flair from. Give at least one of flair"):
        TranslationOptions(CONTRASTS, sources="flair").plan({"t1": "path", "t2": "path"})


@pytest.mark.parametrize("sources", ["pd", [], ["t1", "pd"], 3, ["t2"]])
def test_what_is_no_source_is_refused(sources):
    with pytest.raises(InputError, match="Use --sources with some of t1, t1ce, flair"):
        TranslationOptions(CONTRASTS, targets=["t2"], sources=sources)


@pytest.mark.parametrize("grid", [{"spacing": 0}, {"spacing": "1"}, {"spacing": True}, {"slice_size": 0}])
def test_the_grid_is_checked_and_told(grid):
    with pytest.raises(InputError, match=f"Use --{next(iter(grid))} with a"):
        TranslationOptions(CONTRASTS, **grid)
    claim = TranslationOptions(CONTRASTS, spacing=2, slice_size=96).claim()
    assert (claim["spacing"], claim["slice_size"]) == (2, 96) and claim["mode"] == "mean"
