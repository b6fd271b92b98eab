"""The options of `monai.bundle run`: unknown ones are refused, and paths are taken as they were typed."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, cast

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, run
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from bundle.errors import InputError

PROGRAM = "monai.bundle.__main__"
OF_RUN = set(inspect.signature(run).parameters) - {"override"}
OF_TRACKING = set(cast(dict[str, Any], DEFAULT_MLFLOW_SETTINGS["configs"]))
PATHS = (
    "bundle_root", "dataset_dir", "output_dir", "datalist", "split_file", "reference_dir", "reference_datalist",
    "weights", "initial_weights", "lpips_weights", "fid_weights", "perceptual_weights", "segmenter",
)  # fmt: skip
FLAG = re.compile(r"--?\+?([A-Za-z_][^=]*)(?:=(.*))?", re.DOTALL)


def check_options() -> None:
    """Refuse what was mistyped on the command line of `python -m monai.bundle run`.

    Another program that reads the config, such as MONAI Label, is left alone.

    Raises:
        InputError: an option that is neither one of `run` nor a top-level id of the configs.
    """
    refuse_unknown(words_of_run())


def typed_paths() -> dict[str, str]:
    """The path options of `python -m monai.bundle run`, name -> text, as they were typed; none in another program.

    Python Fire turns ``2024``, ``[1]`` and ``Smith, J`` into a number, a list and a tuple, and MONAI's configs give a
    meaning to ``#``, ``@`` and ``$``. So each config replaces the value of these ids by this text before another id
    refers to it: ``"$__local_refs.update(@typed_paths)"``, where ``__local_refs`` is what MONAI's expressions call the
    ids that are resolved. A ``%`` at the start of a path cannot be saved in this way: MONAI replaces macros before it
    runs any code of a config. Nor can the ``@`` or ``$`` of ``bundle_root``, by which this code is found.

    ``None``, which stands for an option that is not given, and empty text are left to MONAI.
    """
    options = named(words_of_run())
    return {name: text for name in PATHS if (text := options.get(name)) and text != "None"}


def plain_paths(**values: Any) -> dict[str, str | None]:
    """The path options of a config as plain text, name -> path, with the home folder for a ``~`` at the start.

    Args:
        values: what MONAI resolved for each option: text, ``os.PathLike`` or None.

    Raises:
        InputError: no path at all, an unknown home folder, or text with ``::``, which MONAI writes for ``#``.
    """
    typed = typed_paths()
    return {name: _plain(name, value, name in typed) for name, value in values.items()}


def _plain(name: str, value: Any, typed: bool) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise InputError(f"{name} is {value!r}, which is not a path", f"Give --{name} the path of a file or folder")
    if isinstance(value, str) and "::" in value and not typed:
        fault = f"{name} is {value!r}: MONAI reads # and :: in a config as separators"
        raise InputError(fault, f"Give it as the option --{name}, or in Python as pathlib.Path(...)")
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise InputError(f"{name} is {path!r}, and no user has this name", f"Use --{name} './{path}' for that name")
    return str(path)


def words_of_run() -> Sequence[str]:
    """The words behind `python -m monai.bundle run`; none where another program runs."""
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    ours = specification is not None and specification.name == PROGRAM and sys.argv[1:2] == ["run"]
    return sys.argv[2:] if ours else ()


def refuse_unknown(words: Sequence[str]) -> None:
    """See `check_options`; `words` are those behind `run`, as Fire reads them."""
    options = named(words)
    files = options.get("config_file")
    if "args_file" in options or files is None:
        return  # the configs are named elsewhere
    ids = set(ConfigParser.load_config_files(DefaultParseValue(files)))
    known = ids | OF_RUN | (OF_TRACKING if "tracking" in options else set())
    for name in options:
        if not {top_level(name), top_level(name).removeprefix("no")} & known:  # Fire's --noNAME is --NAME False
            near = difflib.get_close_matches(top_level(name), known, n=1)
            remedy = f"Did you mean --{near[0]}?" if near else "Use the ids at the top of the config"
            raise InputError(f"option --{name} is unknown to {files}", remedy)


def named(words: Sequence[str]) -> dict[str, str | None]:
    """The options among the words of a command line, each with the text that is its value; None where it has none."""
    found: dict[str, str | None] = {}
    for word, following in zip_longest(words, words[1:]):
        if option := FLAG.fullmatch(word):
            name, value = option.groups()
            if value is None and following is not None and not FLAG.match(following):
                value = following
            found[name.replace("-", "_")] = value
    return found


def top_level(name: str) -> str:
    """The part of an id that stands at the top of a config: "train" of "train::trainer::max_epochs"."""
    return name.replace("#", "::").partition("::")[0]
