"""The exponent is that of the costs, each value is measured as it was named, and the tables hold what was found."""

from __future__ import annotations

import json

import pytest

from bundle.errors import InputError
from scripts import benchmark, benchmark_growth

TINY = ["configs/tiny.json", "device=cpu", "amp=False", "batch_size=2", "shared_encoder=True"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Two and four contrasts at the tiny size, measured in this process; what was printed is not kept."""
    folder = tmp_path_factory.mktemp("growth")

    def here(command):
        benchmark.main([*command, "--output", str(folder / "one.json")])
        return json.loads((folder / "one.json").read_text())["results"][0]

    values = ["['t1','flair']", "['t1','t1ce','t2','flair']"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_growth, "measured", here)
        words = ["contrasts", *values, "--settings", *TINY, "--shape", "64", "64", "4"]
        benchmark_growth.main([*words, "--output", str(folder / "found.json")])
    return json.loads((folder / "found.json").read_text())


def test_rows_are_of_the_named_values(grown):
    assert [(row["size"], row["all"]["settings"][-1]) for row in grown["rows"]] == [
        (2, "contrasts=['t1','flair']"),
        (4, "contrasts=['t1','t1ce','t2','flair']"),
    ]
    for row in grown["rows"]:
        assert row["network CPU"] == row["all"]["parts"]["network"]["cpu_seconds"] > 0
        assert row["parameters"] == row["parameters_of"]["all"]


def test_a_shared_encoder_grows_by_a_scale_and_a_shift_per_channel(grown):
    two, four = (row["parameters_of"] for row in grown["rows"])
    name = "disentanglement.encoders"
    assert four[name] - two[name] == 2 * (2 * sum((4, 8, 16, 16)))
    assert four["disentanglement.decoders"] == 2 * two["disentanglement.decoders"]
    assert four["autoencoder.decoder"] == two["autoencoder.decoder"]
    assert two["all"] == sum(count for part, count in two.items() if part != "all")


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0, 2.0])
def test_exponent_of_a_known_power(power):
    sizes = [1, 2, 5, 40]
    assert benchmark_growth.exponent(sizes, [3 * n**power for n in sizes]) == pytest.approx(power, abs=1e-12)


def test_exponent_is_below_one_where_a_part_is_constant():
    assert 0.5 < benchmark_growth.exponent([1, 2, 4], [1 + n for n in (1, 2, 4)]) < 1


def test_size_of_a_value():
    assert benchmark_growth.size("num_steps", 8) == 8
    assert benchmark_growth.size("contrasts", ["t1", "t2", "flair"]) == 3
    assert benchmark_growth.size("shape", (10, 20, 30)) == 6000


@pytest.mark.parametrize("value", ["mean", True, 0, -2])
def test_values_without_a_size(value):
    with pytest.raises(InputError, match="has no size"):
        benchmark_growth.size("mode", value)


def test_words_of_a_value():
    words = benchmark_growth.words
    assert words("slices", "7", ["amp=False"], (5, 6, 9)) == ["--shape", "5", "6", "7", "--settings", "amp=False"]
    assert words("shape", "1,2,3", [], (5, 6, 9)) == ["--shape", "1", "2", "3", "--settings"]
    assert words("num_steps", "4", ["mode=sample"], (5, 6, 9))[4:] == ["--settings", "mode=sample", "num_steps=4"]


def row(value, size, seconds, parts):
    costs = dict.fromkeys(benchmark_growth.COLUMNS, seconds)
    return {"value": value, "size": size, **costs, "parameters_of": parts}


def test_table_tells_the_cost_per_unit():
    rows = [row("2", 2, 3.0, {}), row("4", 4, 9.0, {})]
    lines = benchmark_growth.table("slices", rows, dict.fromkeys(benchmark_growth.COLUMNS, 1.5)).splitlines()
    assert [line.split(" | ")[6] for line in lines[2:4]] == ["1.00", "1.50"]
    assert lines[4] == "| exponent | 1.50 | 1.50 | 1.50 | 1.50 | 1.50 |  | 1.50 | 1.50 |"
    assert len({line.count("|") for line in lines}) == 1


def test_parameters_are_told_where_they_change():
    rows = [
        row("2", 2, 1.0, {"all": 30, "a.b": 10, "a.c": 20}),
        row("4", 4, 1.0, {"all": 1040, "a.b": 1020, "a.c": 20}),
    ]
    told = benchmark_growth.parameter_table(rows)
    assert "| a.b | 10 | 1,020 |" in told and "| all | 30 | 1,040 |" in told and "a.c" not in told
    assert benchmark_growth.parameter_table(rows[:1] * 2) == ""


def test_a_value_that_fails_says_why(capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark_growth.measured(["--repeats", "0"])
    assert ended.value.code == 1 and "repeats is 0" in capsys.readouterr().err


def test_one_size_has_no_exponent():
    with pytest.raises(InputError, match="num_steps has 1 size"):
        benchmark_growth.main(["num_steps", "4", "4"])
