"""The options of `monai.bundle run`: MONAI takes one that no config knows, and then does without it."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any, cast

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, run
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from bundle.errors import InputError

PROGRAM = "monai.bundle.__main__"
OF_RUN = set(inspect.signature(run).parameters) - {"override"}
OF_TRACKING = set(cast(dict[str, Any], DEFAULT_MLFLOW_SETTINGS["configs"]))


def check_options() -> None:
    """Refuse what was mistyped on the command line of `python -m monai.bundle run`.

    Another program that reads the config, such as MONAI Label, is left alone.

    Raises:
        InputError: an option that is neither one of `run` nor a top-level id of the configs.
    """
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if specification is not None and specification.name == PROGRAM and sys.argv[1:2] == ["run"]:
        refuse_unknown(sys.argv[2:])


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


def named(words: Sequence[str]) -> dict[str, str]:
    """The options among the words of a command line, each with the text that is its value."""
    found = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if option := re.fullmatch(r"--?\+?([A-Za-z_][^=]*)(?:=(.*))?", word, re.DOTALL):
            name, value = option.groups()
            found[name.replace("-", "_")] = following if value is None else value
    return found


def top_level(name: str) -> str:
    """The part of an id that stands at the top of a config: "train" of "train::trainer::max_epochs"."""
    return name.replace("#", "::").partition("::")[0]
