"""The comparison of two evaluations as the user sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from bundle.errors import InputError
from bundle.metrics.conventions import CONVENTIONS
from scripts import compare

ROOT = Path(__file__).resolve().parents[2]


def results(shift, subjects=7, **others):
    """An evaluation of two targets, each from one and from two contrasts; `shift` is added to each subject's PSNR."""
    rows = [
        {
            "subject": f"s{number}",
            "given": given,
            "available": len(given),
            "target": target,
            "method": method,
            "source": "",
            "psnr": 20 + number + len(given) + (shift * (1 + number / 10) if method == "network" else 5),
            "ssim": 0.7 + number / 100,
        }
        for number in range(subjects)
        for target, givens in {"t2": [["t1"], ["t1", "flair"]], "flair": [["t1"], ["t1", "t2"]]}.items()
        for given in givens
        for method in ("network", "copy")
    ]
    inputs = {f"s{number}": {"t1": "abc", "t2": "def", "flair": "fed"} for number in range(subjects)}
    return {"network": "MSGLDM", "convention": "truth", "inputs_sha256": inputs, "results": rows, **others}


@pytest.fixture
def written(tmp_path):
    """Write two evaluations; their paths."""

    def write(a, b):
        paths = tmp_path / "a.json", tmp_path / "b.json"
        for path, content in zip(paths, (a, b), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return paths

    return write


def lines_of(text, measure):
    """Target -> the cells of its line in the table of a measure."""
    lines = text[text.index(f"## {measure}:") :].split("\n\n")[2].splitlines()
    return {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines[2:]}


def test_table(written):
    text = compare.report(*written(results(0), results(0.5)), ["psnr", "ssim"])
    assert text.startswith("# B against A: 7 subjects\n")
    assert CONVENTIONS["truth"] in text and "Warning" not in text and "Left out" not in text
    table = lines_of(text, "psnr")
    differences = [0.5 * (1 + number / 10) for number in range(7)]
    limits = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert list(table) == ["t2", "flair", "all"]
    for line in table.values():
        assert line[1:5] == ["7", "24.50", "25.15", "+0.65"]
        assert line[5] == f"{limits.low:+.2f} to {limits.high:+.2f}"
        assert line[7] == "0.016"  # 2 / 2^7
    assert table["t2"][8] == "7 of 7 subjects, 14 of 14 pairs" and table["all"][8].endswith("28 of 28 pairs")
    same = lines_of(text, "ssim")["all"]
    assert same[4:] == [
        "+0.000",
        "+0.000 to +0.000",
        "-",
        "- (no subject differs)",
        "0 of 7 subjects, 0 of 28 pairs",
    ]


def test_few_subjects_say_why_there_is_no_p(written):
    text = compare.report(*written(results(0, 2), results(1, 2)), ["psnr"])
    assert lines_of(text, "psnr")["all"][6:8] == ["-", "- (n = 2: p is at least 0.5)"]
    one = compare.report(*written(results(0, 1), results(1, 1)), ["psnr"])
    assert one.startswith("# B against A: 1 subject\n") and lines_of(one, "psnr")["all"][5] == "-"


def test_rows_without_a_partner_are_counted(written):
    text = compare.report(*written(results(0, 3), results(1, 2)), ["psnr"])
    assert "# B against A: 2 subjects" in text
    assert "Left out: 4 rows of one file without a partner in the other." in text


def test_other_scans_are_warned_of(written):
    other = results(1, 3)
    other["inputs_sha256"]["s1"]["t2"] = "changed"
    warning = "**Warning**: A and B may have read different scans (their checksums differ or are not recorded): "
    assert f"{warning}s1.\n" in compare.report(*written(results(0, 3), other), ["psnr"])
    del other["inputs_sha256"]
    assert f"{warning}s0, s1, s2.\n" in compare.report(*written(results(0, 3), other), ["psnr"])


@pytest.mark.parametrize(
    ("a", "b", "measures", "line"),
    [
        (results(0), results(0), ["psnr"], "b.json: is the same as {a}. Give the results of two evaluations"),
        (results(0), results(1, convention="own"), ["psnr"], "b.json: its convention is 'own', but that of {a} is 'tr"),
        (results(0), results(1, results=[]), ["psnr"], "b.json: has no row of method 'network' with psnr in common w"),
        (results(0), results(1), ["nmi"], "b.json: has no row of method 'network' with nmi in common with {a}. Eval"),
        (results(0), results(1), ["psnr", "best"], "measures: there is no 'best'. Choose from psnr, ssim"),
        (results(0), "nothing", ["psnr"], "b.json: is not JSON. Give a results.json that `evaluation` wrote"),
        ([], results(0), ["psnr"], "a.json: names none of the conventions truth, own"),
        ({"convention": "truth"}, results(0), ["psnr"], "a.json: holds no rows of results. Give a results.json"),
        (results(0, results=[{"subject": "x"}]), results(0), ["psnr"], "a.json: holds no rows of results. Give"),
    ],
)
def test_faults(written, a, b, measures, line):
    paths = written(a, b)
    with pytest.raises(InputError) as fault:
        compare.report(*paths, measures)
    assert line.format(a=paths[0]) in str(fault.value) and "\n" not in str(fault.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.json: cannot be read \(No such file or directory\)\. Give a results"):
        compare.report(tmp_path / "a.json", tmp_path / "b.json", ["psnr"])


def test_output(written, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which the command replaces
    paths = [str(path) for path in written(results(0), results(0.5))]
    compare.main([*paths, "--measures", "ssim", "--output", str(tmp_path / "table.md")])
    text = capsys.readouterr().out
    assert text == (tmp_path / "table.md").read_text(encoding="utf-8") and "## ssim" in text and "## psnr" not in text
    with pytest.raises(InputError, match=r"table\.md: cannot be written \(No such file or directory\)"):
        compare.main([*paths, "--output", str(tmp_path / "nowhere" / "table.md")])


def test_command_ends_with_one_line(written):
    paths = written(results(0), results(0, convention="own"))
    process = subprocess.run(
        [sys.executable, "-m", "scripts.compare", *map(str, paths)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, encoding="utf-8", capture_output=True,
    )  # fmt: skip
    assert process.returncode == 1 and process.stdout == ""
    assert process.stderr.startswith(f"error: {paths[1]}: its convention is 'own'") and process.stderr.count("\n") == 1
