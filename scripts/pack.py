"""Prepare subjects once, as training does, and write each into a small file: 8 bits per voxel, cropped to the brain.

    python -m scripts.pack --dataset_dir SUBJECTS --output_dir PACKED [--split_file SPLIT]

`scripts.gpu` trains from these files. A subject of 1.4 litres takes about 5 MB. Subjects that are packed already are
left as they are; one with a fault is reported, and the remaining ones are still packed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms import Compose

from bundle.data.checks import check_subjects
from bundle.data.datalist import subjects
from bundle.data.packed import save_packed
from bundle.data.splits import PARTS, apply_split, load_split
from bundle.errors import InputError, input_error_in, report_plainly

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train.json"


def pack_folder(
    dataset_dir: str,
    output_dir: str,
    config: Sequence[str] = (),
    split_file: str | None = None,
    datalist: str | None = None,
) -> int:
    """Pack every subject of a folder; the number of those that could not be packed.

    Args:
        dataset_dir: folder of the subjects, as for training.
        output_dir: gets a file per subject, SUBJECT.npz.
        config: further config files behind train.json.
        split_file: pack the subjects of its parts only.
        datalist: see `bundle.data.datalist`.

    Raises:
        InputError: no subject is found, or the split names one that is not there.
    """
    parser = ConfigParser()
    parser.read_config([str(CONFIG), *config])
    items: Sequence[Mapping[str, Any]] = subjects(dataset_dir, parser["contrasts"], parser["registry"], datalist)
    if split_file:
        split = load_split(split_file)
        items = [item for part in PARTS for item in apply_split(items, split, part)]
    prepare = Compose(parser.get_parsed_content("prepare_volume"))
    folder, failed = Path(output_dir), 0
    folder.mkdir(parents=True, exist_ok=True)
    for item in check_subjects(items):
        path = folder / f"{item['subject']}.npz"
        if path.is_file():
            continue
        try:
            if "fault" in item:
                raise InputError(item["fault"], "")
            aside = path.with_name(f".{path.name}.part.npz")
            save_packed(prepare(dict(item)), aside)
            os.replace(aside, path)
        except Exception as error:
            fault = input_error_in(error)
            if fault is None:
                raise
            failed += 1
            print(f"{item['subject']}: left out: {fault}", file=sys.stderr)
        else:
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status is 1 where a subject was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--split_file")
    parser.add_argument("--datalist")
    parser.add_argument("--config", nargs="*", default=(), help="config files behind train.json")
    options = parser.parse_args(arguments)
    return int(
        pack_folder(options.dataset_dir, options.output_dir, options.config, options.split_file, options.datalist) > 0
    )


if __name__ == "__main__":
    report_plainly()
    sys.exit(main())
