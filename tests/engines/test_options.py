"""What the user may choose, and what is said where it cannot be."""

import pytest

from bundle.engines.options import SynthesisOptions, check_switches, flag
from bundle.errors import InputError

CONTRASTS = ("t1", "t1ce", "t2", "flair")


def options(**chosen):
    return SynthesisOptions(CONTRASTS, **chosen)


def test_missing_contrasts_are_made():
    given, made = options().plan({"subject": "a", "flair": "f", "t2": "t"})
    assert (given, made) == (["t2", "flair"], ["t1", "t1ce"])
    assert options().plan(dict.fromkeys(CONTRASTS, "x"))[1] == []


@pytest.mark.parametrize("targets", [["t1ce"], ("t1ce",), "t1ce"])
def test_named_targets_are_made_and_not_seen(targets):
    chosen = options(targets=targets)
    assert chosen.inputs == ["t1", "t2", "flair"] and chosen.hidden == ["t1ce"]
    assert chosen.plan(dict.fromkeys(CONTRASTS, "x")) == (["t1", "t2", "flair"], ["t1ce"])
    assert chosen.plan({"t1": "x"}) == (["t1"], ["t1ce"])


def test_nothing_left_to_make_it_from():
    with pytest.raises(InputError, match="no scan is left to make t1ce from"):
        options(targets=["t1ce"]).plan({"t1ce": "x"})


def test_roles():
    registry = {"t2": {"role": "input"}, "t1ce": {"role": "target"}}
    chosen = options(registry=registry)
    assert chosen.plan({"t1": "x", "t1ce": "x"}) == (["t1"], ["flair"])
    with pytest.raises(InputError, match="target 't2' can only be given, not made"):
        options(registry=registry, targets=["t2"])


@pytest.mark.parametrize(
    ("mode", "count", "samples"), [("mean", 1, 0), ("mean", 5, 5), ("sample", 1, 1), ("sample", 4, 4)]
)
def test_number_of_samples(mode, count, samples):
    assert options(mode=mode, num_samples=count).samples == samples


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ({"targets": ["t3"]}, "target 't3' is unknown"),
        ({"targets": ["pd"]}, "target 'pd' is unknown"),
        ({"targets": 5}, "targets are 5"),
        ({"mode": "median"}, "mode 'median' is unknown. Use --mode mean or sample"),
        ({"num_samples": 0}, "num_samples is 0. Use --num_samples with a whole number of at least 1"),
        ({"num_steps": 0}, "num_steps is 0. Use --num_steps with a whole number from 1 to 1000"),
        ({"num_steps": 1001}, "num_steps is 1001"),
        ({"num_steps": 60, "num_train_timesteps": 50}, "from 1 to 50"),
        ({"num_steps": 2.5}, "num_steps is 2.5"),
        ({"num_steps": True}, "num_steps is True"),
        ({"num_steps": "many"}, "num_steps is 'many'"),
        ({"seed": -1}, "seed is -1"),
        ({"start_level": 0}, "start_level 0 is not"),
        ({"smallest_slice": 0}, "smallest_slice is 0. Use --smallest_slice with a whole number of at least 1"),
        ({"noise_depth": -1}, "noise_depth is -1. Use --noise_depth with a whole number of at least 0"),
        ({"mirrored": "maybe"}, "mirrored is 'maybe'. Use --mirrored true or --mirrored false"),
        ({"three_planes": 3}, "three_planes is 3. Use --three_planes true or --three_planes false"),
        ({"start_level": 1.5}, "start_level 1.5 is not"),
    ],
)
def test_bad_choice(chosen, line):
    with pytest.raises(InputError, match=line) as error:
        options(**chosen)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("value", "meaning"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_flag(value, meaning):
    assert flag("overwrite", value) is meaning


@pytest.mark.parametrize("value", ["maybe", 1, None])
def test_no_flag(value):
    with pytest.raises(InputError, match="Use --overwrite true or --overwrite false"):
        flag("overwrite", value)


def test_a_switch_that_is_text_is_refused():
    check_switches(hfib=True, msse=False)
    with pytest.raises(InputError, match="msse is 'false'. Use --msse True or --msse False"):
        check_switches(hfib=True, msse="false")
