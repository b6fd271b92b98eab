"""A datalist says exactly what is read, and what it says comes back as it was written."""

import csv
import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from bundle.data.datalist import list_subjects, read_datalist, subjects, write_datalist
from bundle.data.discovery import find_subjects, scan_keys
from bundle.data.parts import reference_subjects
from bundle.engines.options import SynthesisOptions
from bundle.errors import InputError
from tests.data.test_discovery import CONTRASTS, make
from tests.phantom import affine_of, write_subject

SHAPE = (16, 20, 12)
AFFINE = affine_of(SHAPE, (5, 5, 5))
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def data(tmp_path):
    """Subjects: one with everything, one with two T1, one with a file that is not read, one of two readings."""
    folder = tmp_path / "in put"
    make(folder, *(f"whole/whole_{end}.nii.gz" for end in ("t1", "t1ce", "t2", "flair", "seg", "brain_mask")))
    make(folder, "two/T1.nii.gz", "two/T1 (1).nii.gz", "two/T2.nii.gz")
    make(folder, "unread/T1.nii.gz", "unread/T2.mha")
    make(folder, "imagesTr/BRATS_1_0000.nii.gz", "labelsTr/BRATS_1.nii.gz")
    return folder


def test_what_is_written_comes_back(tmp_path, data):
    found = find_subjects(data, CONTRASTS)
    write_datalist(found, CONTRASTS, tmp_path / "datalist.csv")
    read = read_datalist(tmp_path / "datalist.csv", CONTRASTS)
    assert [item["subject"] for item in read] == [item["subject"] for item in found]
    for one, other in zip(found, read, strict=True):
        assert ("fault" in one) == ("fault" in other)
        assert one.get("label_convention") == other.get("label_convention")
        for key in scan_keys(one):
            if "fault" not in one:
                assert Path(one[key]).resolve() == Path(other[key]).resolve()
        held = [(Path(entry["file"]).name, entry["may_hold"]) for entry in one["unused"] if entry["may_hold"]]
        assert [(Path(entry["file"]).name, entry["may_hold"]) for entry in other["unused"]] == held
    assert next(item for item in read if item["subject"] == "BRATS_1")["label_convention"] == "decathlon"


def test_list_prints_and_writes(tmp_path, data, capsys):
    list_subjects(data, tmp_path / "out", CONTRASTS)
    said = capsys.readouterr().out
    assert "  t1ce    whole/whole_t1ce.nii.gz\n" in said
    assert "  unused  unread/T2.mha: .mha files are not read; convert it to NIfTI" in said
    assert "  refused " in said and "2 files for one contrast, t1: two/T1 (1).nii.gz and two/T1.nii.gz" in said
    assert "4 subjects, 1 of them refused" in said
    rows = {row["subject"]: row for row in csv.DictReader((tmp_path / "out" / "datalist.csv").open(encoding="utf-8"))}
    assert rows["two"]["t1"] == "../in put/two/T1 (1).nii.gz | ../in put/two/T1.nii.gz"
    assert rows["two"]["t2"] == "../in put/two/T2.nii.gz" and "2 files" in rows["two"]["refused"]
    assert rows["unread"]["unread"] == "../in put/unread/T2.mha"
    with pytest.raises(InputError, match=r"datalist.csv: is there already"):
        list_subjects(data, tmp_path / "out", CONTRASTS)


def test_an_edited_table_says_which_file_is_meant(tmp_path, data):
    table = tmp_path / "datalist.csv"
    write_datalist(find_subjects(data, CONTRASTS), CONTRASTS, table)
    with table.open(encoding="utf-8", newline="") as file:
        rows = {row["subject"]: row for row in csv.DictReader(file)}

    def two():
        with table.open("w", encoding="utf-8-sig", newline="") as file:  # as a spreadsheet saves it
            writer = csv.DictWriter(file, list(rows["two"]), delimiter=";")
            writer.writeheader()
            writer.writerows(rows.values())
        return next(item for item in subjects("nowhere", CONTRASTS, datalist=table) if item["subject"] == "two")

    assert "two: is marked as refused: " in two()["fault"]
    rows["two"]["refused"] = ""
    assert "two: several files for t1" in two()["fault"]
    rows["two"]["t1"] = rows["two"]["t1"].split(" | ")[1]
    assert "fault" not in two() and Path(two()["t1"]).resolve() == (data / "two" / "T1.nii.gz").resolve()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no line of column names with 'subject'"),
        ("t1,t2\na,b\n", "has no line of column names with 'subject'"),
        ("subject,t1\n", "names no subject"),
        ("subject,t9\np,a\n", "has t9, which is no contrast"),
        ("subject,t1\np,a\nP,b\n", "names subject p twice"),
        ("subject,t1\n../p,a\n", "has a subject named '../p'"),
        ("subject,t1\n,a\n", "has a subject named ''"),
        ("subject,t1\np,a,b\n", "has more cells than columns in row 2"),
        ("subject,t1,label,label_convention\np,a,b,odd\n", "label_convention 'odd' is unknown"),
        ("subject,mask,pd\np,a,b\n", None),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, said):
    (tmp_path / "list.csv").write_text(text)
    if said is None:
        (item,) = read_datalist(tmp_path / "list.csv", CONTRASTS)
        assert "p: names no scan of t1, t1ce, t2, flair" in item["fault"]
        return
    with pytest.raises(InputError, match="list.csv: ") as error:
        read_datalist(tmp_path / "list.csv", CONTRASTS)
    assert said in str(error.value)


def test_rows_that_cannot_be_used(tmp_path):
    (tmp_path / "list.csv").write_text("subject,t1,t2\na,x.nii,x.nii\nb,x.nii | y.nii,\nc,z.nii,\n")
    a, b, c = read_datalist(tmp_path / "list.csv", CONTRASTS)
    assert "a: has one file in two columns" in a["fault"]
    assert "b: several files for t1" in b["fault"]
    assert c == {"subject": "c", "warnings": [], "unused": [], "t1": str(tmp_path / "z.nii")}


@pytest.mark.parametrize(
    ("row", "warned"),
    [
        ({"t1": "x_T2", "t2": "x_T1"}, {"t1": "t2", "t2": "t1"}),
        ({"t1": "p/T1ce", "t1ce": "p/T1", "flair": "p/FLAIR"}, {"t1": "t1ce", "t1ce": "t1"}),
        ({"t1": "x_T1", "flair": "x_T2"}, {"flair": "t2"}),
        ({"t2": "p/T2_FLAIR"}, {"t2": "flair"}),
        ({"t1": "x_T1", "t1ce": "late/x_T1", "t2": "x_T2"}, {}),
        ({"t1ce": "x_T1", "flair": "x_T2_FLAIR"}, {}),
        ({"t1": "a", "t2": "T1_T2", "flair": "T2_odd"}, {}),
        ({"t1": "P14_T2_T1", "t2": "P14_T2_T2", "flair": "P14_T2_FLAIR"}, {}),
        ({"t1": "P14/T1/P14_T1_T1", "flair": "P14/T1/P14_T1_FLAIR"}, {}),
        ({"t1": "p_0000", "t2": "p_0001"}, {}),
    ],
)
def test_a_scan_whose_name_says_another_contrast_is_a_warning(tmp_path, row, warned):
    files = {key: f"{name}.nii.gz" for key, name in row.items()}
    (tmp_path / "list.csv").write_text(f"subject,{','.join(files)}\np,{','.join(files.values())}\n")
    (item,) = read_datalist(tmp_path / "list.csv", CONTRASTS)
    assert "fault" not in item and {key: item[key] for key in files} == {k: str(tmp_path / f) for k, f in files.items()}
    assert sorted(item["warnings"]) == sorted(
        f"{Path(files[key]).name} is used as {key}, as the datalist says, but its name says {said}"
        for key, said in warned.items()
    )


@pytest.mark.parametrize("empty", ["NA", "n/a", "-", "none", "None", ""])
def test_cells_that_mean_nothing(tmp_path, empty):
    cells = f"NA;x.nii;{empty};{empty};{empty};{empty}"
    (tmp_path / "list.csv").write_text(f"sep=;\r\nsubject;t1;t2;mask;unread;refused\r\n{cells}\r\n")
    (item,) = read_datalist(tmp_path / "list.csv", CONTRASTS)
    assert item == {"subject": "NA", "warnings": [], "unused": [], "t1": str(tmp_path / "x.nii")}


def test_one_scan_in_two_rows_or_as_its_own_mask(tmp_path):
    (tmp_path / "list.csv").write_text("subject,t1,t2,mask\na,x.nii,y.nii,\nb,./x.nii,z.nii,\nc,v.nii,,v.nii\n")
    a, b, c = read_datalist(tmp_path / "list.csv", CONTRASTS)
    assert "a: x.nii is in the rows of a and b" in a["fault"]
    assert "b: x.nii is in the rows of a and b" in b["fault"]
    assert "c: has one file in two columns" in c["fault"]


def test_columns_that_a_spreadsheet_leaves_empty(tmp_path):
    (tmp_path / "list.csv").write_text("subject;t1;;;\r\na;x.nii;;;\r\n")
    (item,) = read_datalist(tmp_path / "list.csv", CONTRASTS)
    assert item["t1"] == str(tmp_path / "x.nii") and "fault" not in item
    (tmp_path / "list.csv").write_text("subject,,t1\na,x.nii,y.nii\n")
    with pytest.raises(InputError, match="has a cell in row 2 whose column has no name"):
        read_datalist(tmp_path / "list.csv", CONTRASTS)
    (tmp_path / "list.csv").write_text("subject,t1,T1\na,x.nii,y.nii\n")
    with pytest.raises(InputError, match="has two columns named t1"):
        read_datalist(tmp_path / "list.csv", CONTRASTS)


@pytest.mark.parametrize(
    ("key", "value"),
    [("t2", ["y.nii"]), ("unread", ["y.mha"]), ("subject", 1), ("mask", {"file": "m.nii"}), ("image", {"t1": "x.nii"})],
)
def test_json_with_other_than_text(tmp_path, key, value):
    (tmp_path / "list.json").write_text(json.dumps([{"subject": "a", "t1": "x.nii", key: value}]))
    with pytest.raises(InputError, match=rf"list.json: has .* under '{key}'"):
        read_datalist(tmp_path / "list.json", CONTRASTS)


def test_no_table(tmp_path):
    with pytest.raises(InputError, match="list.csv: does not exist"):
        read_datalist(tmp_path / "list.csv", CONTRASTS)
    (tmp_path / "list.csv").write_bytes(b"subject,t1\n\xff,\xff\n")
    with pytest.raises(InputError, match="is not text in UTF-8"):
        read_datalist(tmp_path / "list.csv", CONTRASTS)


def test_json(tmp_path):
    items = [{"subject": "p", "t1": "p/a.nii", "label": "p/seg.nii"}]
    (tmp_path / "list.json").write_text(json.dumps(items))
    (item,) = read_datalist(tmp_path / "list.json", CONTRASTS)
    assert (item["t1"], item["label"]) == (str(tmp_path / "p/a.nii"), str(tmp_path / "p/seg.nii"))
    images = [f"data/BraTS2021_00006/BraTS2021_00006_{end}.nii.gz" for end in ("flair", "t1ce", "t1", "t2")]
    content = {"name": "BraTS", "training": [{"fold": 0, "image": images, "label": images[0].replace("flair", "seg")}]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    (item,) = read_datalist(tmp_path / "list.json", CONTRASTS)
    assert item["subject"] == "BraTS2021_00006" and item["label_convention"] == "brats"
    assert {name: Path(item[name]).name.rsplit("_")[-1] for name in CONTRASTS} == {
        name: f"{name}.nii.gz" for name in CONTRASTS
    }
    (tmp_path / "list.json").write_text(json.dumps([{"image": "p/odd.nii"}]))
    with pytest.raises(InputError, match="does not say of which contrast p/odd.nii is"):
        read_datalist(tmp_path / "list.json", CONTRASTS)
    for text in ("{", "{}", "[]", "3"):
        (tmp_path / "list.json").write_text(text)
        with pytest.raises(InputError, match=r"list.json: (is not readable as JSON|has no list of items)"):
            read_datalist(tmp_path / "list.json", CONTRASTS)


def test_a_missing_contrast_is_not_made_up_while_an_unread_file_may_hold_it(data):
    item = next(item for item in find_subjects(data, CONTRASTS) if item["subject"] == "unread")
    for targets in (None, ["t2"], ["flair"]):
        with pytest.raises(InputError, match=r"unread: T2.mha may be the missing .*--ignore_unread True"):
            SynthesisOptions(CONTRASTS, targets=targets).plan(item)
    assert SynthesisOptions(CONTRASTS, targets=["t1ce"]).plan(item) == (["t1"], ["t1ce"])
    assert SynthesisOptions(CONTRASTS, ignore_unread="True").plan(item) == (["t1"], ["t1ce", "t2", "flair"])


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (f"{folder}{name}.json", key)
        for folder in ("", "aldm/")
        for name, key in (("inference", "dataset::data"), ("evaluate", "dataset::data"), ("train", "subjects"))
    ],
)
def test_every_command_takes_a_datalist(tmp_path, capsys, config, key):
    files = {name: write_subject(tmp_path / "scans" / name, ["t1", "t2"], SHAPE, AFFINE) for name in ("s1", "s2")}
    swapped = ["subject,t1,t2", *(f"{name},{each['t2']},{each['t1']}" for name, each in files.items())]
    (tmp_path / "mine.csv").write_text("\n".join(swapped))
    parser = ConfigParser()
    parser.read_config(CONFIGS / config)
    parser.update({"dataset_dir": str(tmp_path / "none"), "output_dir": str(tmp_path / "out")})
    parser.update({"datalist": str(tmp_path / "mine.csv")})
    found = parser.get_parsed_content(key)
    items = found[0] if key == "subjects" else found
    assert {item["subject"]: (item["t1"], item["t2"]) for item in items} == {
        name: (each["t2"], each["t1"]) for name, each in files.items()
    }
    parser.get_parsed_content("list")
    assert "s1\n  t1      scans/s1/s1_t2.nii.gz\n" in capsys.readouterr().out
    assert (tmp_path / "out" / "datalist.csv").is_file()


def test_reference_subjects_of_the_evaluation(tmp_path):
    for name in ("s1", "s2"):
        write_subject(tmp_path / name, ["t1", "t2"], SHAPE, AFFINE)
    (tmp_path / "list.csv").write_text("subject,t1,t2\nother,s2/s2_t1.nii.gz,s2/s2_t2.nii.gz\n")
    (evaluated,) = [item for item in find_subjects(tmp_path, CONTRASTS) if item["subject"] == "s1"]
    asked = (CONTRASTS, None, None, None, [evaluated])
    (item,) = reference_subjects(None, *asked, datalist=str(tmp_path / "list.csv"))
    assert item["subject"] == "other"
    assert reference_subjects(None, *asked) == []
