"""Values of settings: their types and ranges, and which of them a resumed run may change.

A setting is a top-level key of a config. Its types are those of its defaults in the bundle's configs, and of
`EXAMPLES` where a default does not say enough (``null``, or ``true`` where ``bf16`` is possible too).
"""

from __future__ import annotations

import ast
import logging
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigExpression, ConfigParser
from monai.bundle.utils import ID_REF_KEY, ID_SEP_KEY, MACRO_KEY

from common.config import values_read
from common.errors import UserError

logger = logging.getLogger(__name__)

EXAMPLES: dict[str, tuple[Any, ...]] = {
    "amp": ("bf16",),
    "augment": (None, {}, []),
    "categories_file": (None,),
    "composites": (None,),
    "count": (1,),
    "cpu_minutes": (30.0,),
    "discriminator_augment": (None, "translation"),
    "healthy_slice_candidates": (1,),
    "image_size": (128,),
    "healthy_share_for_enhancer": (0.3,),
    "hu_offset": (-1024.0,),
    "iterations": (1,),
    "learning_rate_d": (1.0e-4,),
    "mask_threshold": (0.5,),
    "most": (1,),
    "nodule_candidates": (1,),
    "num_samples": (1,),
    "num_workers": (0,),
    "part_mm": (32.0,),
    "perturb": (None, {}),
    "presence_file": (None,),
    "pretrained": ("weights.pt",),
    "run_name": (None,),  # of MONAI's --tracking
    "seed": (None,),
    "slice_mm": (1.0,),
    "spacing": (1.0,),
    "weight_clip": (0.01,),
}
"""Values of further types that a setting takes."""

TEXTS = re.compile(r".*_(dir|path|file|uri|name|bank|model|pattern|weights)|output|autoencoder|title")
"""Settings that are texts (folders, files, names) even if the command line reads a number or a list."""
COUNTS = frozenset(
    {"batch_size", "count", "every", "generator_updates", "image_size", "iterations", "latent", "max_epochs"}
    | {"n_critic", "num_samples", "resamples", "seeds", "val_smoothing"}
)
"""Whole numbers that begin at 1; other numbers begin at 0 unless a default is negative."""
RATES = frozenset({"learning_rate", "learning_rate_d", "cpu_minutes", "spacing", "weight_clip"})
"""Numbers above 0."""
SHARES = re.compile(r"beta[12]|decay_from|ema_ramp|held_out|coarse_labels|foreground|(.*_)?share(_.*)?")
"""Numbers from 0 to 1."""


def command_line() -> list[str] | None:
    """Returns the words behind ``python -m monai.bundle``; None in any other program, such as a notebook."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return sys.argv[1:] if spec is not None and spec.name == "monai.bundle.__main__" else None


def typed_values(words: Sequence[str]) -> dict[str, str]:
    """Returns the overrides of a command line as they were typed, by their ids in MONAI's writing.

    Example:
        >>> typed_values(["run", "--output_dir", "/a#b", "--net#width=08"])
        {'output_dir': '/a#b', 'net::width': '08'}
    """
    values = {}
    for word, following in zip(words, [*words[1:], ""], strict=False):
        match = re.fullmatch(r"--?([A-Za-z_][\w#:-]*)(?:=(.*))?", word, re.DOTALL)
        if match:
            values[match[1].replace("#", ID_SEP_KEY).replace("-", "_")] = (
                following if match[2] is None else match[2]
            )
    return values


def defaults_in(folder: Path) -> dict[str, list[Any]]:
    """Returns what the configs of a folder give each top-level key, expressions and references left out."""
    files = sorted(folder.glob("*.yaml")) or [
        f for f in sorted(folder.glob("*.json")) if f.stem != "metadata"
    ]
    defaults: dict[str, list[Any]] = {}
    for file in files:
        try:  # libyaml's loader is ten times as fast as the one of `ConfigParser.load_config_file`
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            config = yaml.load(file.read_text(encoding="utf-8"), loader)
        except (OSError, ValueError, yaml.YAMLError):
            continue  # a file that this run does not use
        for key, value in config.items() if isinstance(config, dict) else ():
            if not _is_evaluated(value):
                defaults.setdefault(str(key), []).append(value)
    return defaults


def settle_values(parser: ConfigParser, folder: Path) -> None:
    """Gives the settings of a parsed config their types, and refuses values that they cannot have.

    MONAI's command line turns ``2024`` into a number and ``run,1`` into a tuple, and its parser writes ``::``
    for ``#`` in every text; texts (folders, files, names) get back what was typed. In a text that comes from
    a config file or from Python each ``::`` becomes ``#``.

    Args:
        parser: the config, `true`, `false` and `null` already in their meaning.
        folder: of the bundle's configs, see `defaults_in`.
    Raises:
        UserError: names the setting, its value and what it takes.
    """
    typed, defaults = typed_values(command_line() or ()), defaults_in(folder)
    for key, value in typed.items():
        if "#" in value and ID_SEP_KEY in key and not _is_evaluated(value):
            raise UserError(
                f"config key '{key.replace(ID_SEP_KEY, '#')}': MONAI reads '#' in {value!r} as a step into "
                "the config; take a path without it"
            )
    for name, value in dict(parser.get()).items():
        if _is_evaluated(value) or not isinstance(name, str) or name.startswith("_"):
            continue
        settled = settled_value(name, value, defaults.get(name, ()), typed.get(name))
        if settled is not value:
            _put(parser, name, settled)


def settled_value(name: str, value: Any, defaults: Iterable[Any], typed: str | None = None) -> Any:
    """Returns a setting's value in the type that its defaults have.

    Args:
        typed: the text of the command line that became ``value``.
    Raises:
        UserError: it has no such type, or is out of range.

    Example:
        >>> settled_value("max_epochs", 3.0, [12]), settled_value("output_dir", 2024, [])
        (3, '2024')
    """
    examples = [*defaults, *EXAMPLES.get(name, ())]
    kinds = {_kind(example) for example in examples}
    if TEXTS.fullmatch(name) and not kinds & {"list", "number", "whole number", "true or false"}:
        kinds.add("text")
        value = _as_text(value, typed)
    if value == "" and isinstance(value, str):
        raise UserError(f"config key '{name}': is empty; give a value, or leave it out for the default")
    if name == "device":
        return _checked_device(value)
    if not kinds - {"null"}:
        return value  # nothing is known of it
    kind, numbers = _kind(value), [example for example in examples if _kind(example) in NUMBERS]
    if kind in NUMBERS and numbers:
        if float(value).is_integer() and "number" not in kinds:
            value = int(value)
        if isinstance(value, int) or "number" in kinds:
            return _in_range(name, value, numbers)
    elif value in (0, 1) and kind in NUMBERS and "true or false" in kinds:
        return bool(value)
    elif kind in (*NUMBERS, "true or false") and kind not in kinds and "text" in kinds:
        return _as_text(value, typed)
    elif kind in kinds or (kind in STRUCTURES and kinds & {"text", *STRUCTURES}):
        return value
    elif kind == "text" and kinds & STRUCTURES:
        return value  # a name of one, which its user checks
    raise _wrong(name, value, kinds - {"null"}, typed)


NUMBERS, STRUCTURES = frozenset({"number", "whole number"}), frozenset({"list", "mapping"})


def _in_range(name: str, value: float, numbers: Sequence[float]) -> float:
    if not math.isfinite(value):
        raise UserError(f"config key '{name}': {value} is not a finite number")
    if name in COUNTS and value < 1:
        raise UserError(f"config key '{name}': {value} is not a whole number from 1 up")
    if name in RATES and value <= 0:
        raise UserError(f"config key '{name}': {value} is not a number above 0")
    if SHARES.fullmatch(name) and not 0 <= value <= 1:
        raise UserError(f"config key '{name}': {value} is not a number from 0 to 1")
    if value < 0 <= min(numbers):
        kind = "whole number" if all(isinstance(number, int) for number in numbers) else "number"
        raise UserError(f"config key '{name}': {value} is not a {kind} from 0 up")
    return value


def _checked_device(value: Any) -> Any:
    if value is None:
        return None
    try:
        device = torch.device(value)
        if device.type == "meta":
            raise ValueError("it holds no numbers")
        torch.zeros(1, device=device)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"config key 'device': {value!r} is not here ({reason}); take cpu, or leave it out"
        ) from error
    return value


def _wrong(name: str, value: Any, kinds: Iterable[str], typed: str | None) -> UserError:
    shown = "null" if value is None else typed if typed is not None else repr(value)
    return UserError(f"config key '{name}': {shown} is not a {' or '.join(sorted(kinds))}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "whole number"
    if isinstance(value, float):
        return "number"
    if isinstance(value, Mapping):
        return "mapping"
    return "list" if isinstance(value, (list, tuple)) else "text"


def _as_text(value: Any, typed: str | None) -> Any:
    """Returns what was typed for a text, null as it is."""
    if value is None:
        return None
    if typed is not None:
        try:
            inner = ast.literal_eval(typed)
        except (ValueError, SyntaxError):
            return typed
        return inner if isinstance(inner, str) else typed
    if isinstance(value, str):
        return value.replace(ID_SEP_KEY, "#")
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _is_evaluated(value: Any) -> bool:
    """Tells whether MONAI evaluates a value: an expression, a reference, a macro, a component or run list."""
    if isinstance(value, dict):
        return any(isinstance(key, str) and key.startswith("_") for key in value)
    if isinstance(value, list):
        return any(ConfigExpression.is_expression(item) for item in value)
    return isinstance(value, str) and value.startswith((ConfigExpression.prefix, ID_REF_KEY, MACRO_KEY))


def _put(parser: ConfigParser, name: str, value: Any) -> None:
    """Sets a top-level value of a parsed config. Resolving would write ``::`` for ``#`` again."""
    parser.get()[name] = value
    parser.ref_resolver.items[name].update_config(value)
    parser.ref_resolver.resolved_content[name] = value


TRAINER = f"train{ID_SEP_KEY}trainer"
HANDLERS = "train_handlers"
MAY_CHANGE = re.compile(
    r"max_epochs|iterations|cpu_minutes|num_workers|device|amp|channels_last|compile|extractor|.*_stops"
    r"|(val|image|monitor|mlflow)_(interval|smoothing|grace)|resume_interval|bundle_root|pretrained"
)
"""Settings that a resumed run may change; the arithmetic's type, which ``amp`` chooses, is compared apart."""
ON_DEMAND = re.compile(r"learning_rate(_d)?|weight_decay|beta[12]|decay_from")
"""Settings that a resumed run changes where its command line names them."""


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what decides a training, by id: numbers, texts, true, false and null that its trainer reads.

    Top-level settings count wherever they are read, other entries where they do not belong to a handler.
    Folders, files and names are left out, they may move; so are expressions, except top-level ones.

    Args:
        config: a parsed config, as of `monai.bundle.ConfigParser.get`.
    """
    train = config.get("train")
    trainer = train.get("trainer", {}) if isinstance(train, Mapping) else {}
    parts = [f"{TRAINER}{ID_SEP_KEY}{name}" for name in trainer if name != HANDLERS]
    inner = values_read(dict(config), parts)
    values = {**values_read(dict(config), [TRAINER]), **inner}
    for id_, value in list(values.items()):
        if isinstance(value, tuple):  # what the command line makes of LV,Myo
            items = {f"{id_}{ID_SEP_KEY}{number}": item for number, item in enumerate(value)}
            values, inner = values | items, inner | items
    settings = {}
    for id_, value in values.items():
        name, top = id_.rpartition(ID_SEP_KEY)[2], ID_SEP_KEY not in id_
        plain = value is None or isinstance(value, (bool, int, float, str))
        if name == "_target_":
            value = str(value).rpartition(".")[2]  # classes may move
        elif not plain or id_.startswith("_") or name.startswith("_") or TEXTS.fullmatch(name):
            continue
        if name != "resume" and (top or (id_ in inner and not _is_evaluated(value))):
            settings[id_] = value.replace(f"@_modules_{ID_SEP_KEY}", "") if isinstance(value, str) else value
    return settings


def check_resumed(saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Compares a run's settings with those it is resumed with; logs the changes that it may make.

    Raises:
        UserError: names the others, with both values.

    Example:
        >>> check_resumed({"seed": 0, "max_epochs": 3}, {"seed": 0, "max_epochs": 5})
    """
    names = [
        id_ for id_ in sorted({**saved, **present}) if ID_SEP_KEY in id_ or (id_ in saved and id_ in present)
    ]
    changed = [id_ for id_ in names if saved.get(id_) != present.get(id_)]
    lines = {
        id_: f"{id_.replace(ID_SEP_KEY, '#')} was {_shown(saved, id_)}, is {_shown(present, id_)}"
        for id_ in changed
    }
    typed, words = command_line(), typed_values(command_line() or ())
    asked = {id_ for id_ in changed if ON_DEMAND.fullmatch(id_) and (typed is None or id_ in words)}
    refused = [id_ for id_ in changed if id_ not in asked and not MAY_CHANGE.fullmatch(id_)]
    if refused:
        more = f" (and {len(refused) - 3} more)" if len(refused) > 3 else ""
        hints = "".join(f", --{id_} to change that" for id_ in refused[:3] if ON_DEMAND.fullmatch(id_))
        raise UserError(
            f"cannot resume: {'; '.join(lines[id_] for id_ in refused[:3])}{more}; "
            f"use the run's settings{hints}, or another --output_dir"
        )
    if changed:
        logger.info("resumed with other settings: %s", "; ".join(lines.values()))


def _shown(settings: Mapping[str, Any], id_: str) -> str:
    value = settings.get(id_, "missing")
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
