"""Checks of a config before a run: unknown keys, unknown arguments, numbers and references that are text."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Iterable, Iterator
from pydoc import locate
from typing import Any

from monai.bundle import ComponentLocator, ConfigComponent, ConfigExpression, ConfigParser, ReferenceResolver
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.utils import ID_SEP_KEY
from monai.utils import BundleProperty, BundlePropertyConfig

from common.errors import UserError

Values = dict[str, Any]  # id -> raw value
_MISSING = object()
_LISTS_BY_NAME = ("imports", "initialize", "run", "finalize", "training", "evaluating", "inference")


def roots(config: dict[str, Any]) -> list[str]:
    """Returns the ids that are read from outside: run lists and the properties that MONAI requires."""
    lists = [key for key, value in config.items() if isinstance(value, list) and _has_expression(value)]
    properties = (*TrainProperties.values(), *InferProperties.values())
    required = [str(p[BundlePropertyConfig.ID]) for p in properties if p.get(BundleProperty.REQUIRED)]
    return [*lists, *_LISTS_BY_NAME, *required]


def values_read(config: dict[str, Any], ids: Iterable[str]) -> Values:
    """Returns everything that ``ids`` reach by reference; a referenced dict or list is read as a whole.

    Missing ids are skipped (MONAI reports a missing reference itself).
    """
    values: Values = {}
    waiting = [(id_, value) for id_ in ids if (value := lookup(config, id_)) is not _MISSING]
    while waiting:
        id_, value = waiting.pop()
        if id_ in values:
            continue
        values[id_] = value
        if isinstance(value, (dict, list)):
            waiting += [(sub_id, item) for _, sub_id, item in ReferenceResolver.iter_subconfigs(id_, value)]
        elif isinstance(value, str):
            named = ReferenceResolver.match_refs_pattern(value)
            waiting += [(ref, item) for ref in named if (item := lookup(config, ref)) is not _MISSING]
    return values


def unread(config: Any, read: Values, id_: str = "") -> Iterator[str]:
    """Yields the topmost ids that are not read, but for notes such as ``_meta_`` or ``_desc_``."""
    for key, sub_id, value in ReferenceResolver.iter_subconfigs(id_, config):
        if sub_id in read or _is_note(key):
            continue
        if not isinstance(value, (dict, list)):
            yield sub_id
        elif not any(other.startswith(sub_id + ID_SEP_KEY) for other in read):
            if value not in read.values():  # else a macro has copied it
                yield sub_id
        else:
            yield from unread(value, read, sub_id)


def lookup(config: Any, id_: str) -> Any:
    """Returns the raw value at ``id_``, or the marker `_MISSING`."""
    for part in ReferenceResolver.split_id(id_):
        if isinstance(config, dict) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return _MISSING
    return config


def _has_expression(items: list[Any]) -> bool:
    return any(ConfigExpression.is_expression(item) for item in items)


def _is_note(key: Any) -> bool:
    return isinstance(key, str) and len(key) > 2 and key.startswith("_") and key.endswith("_")


_EXPONENT = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)[eE]([+-]?)(\d+)")
_ATTRIBUTE = re.compile(r"@[\w#:]+[.(\[].*")
_SHOWN_AT_MOST = 12
RENAMED = {
    "ema_decay": "; it is 'ema_half_life' now, in images: 0.69 * batch_size / (1 - ema_decay) is the same",
    **{
        old: f"; it is '{new}' now"
        for old, new in {
            "normals_dir": "healthy_slices_dir",
            "normals_share_for_enhancer": "healthy_share_for_enhancer",
            "normals_model": "healthy_slices_model",
            "normals_bank": "healthy_slices_bank",
            "real_normals": "real_healthy_slices",
            "generated_normals": "generated_healthy_slices",
            "normal_candidates": "healthy_slice_candidates",
            "rivals": "baselines",
            "rival_stages": "baseline_stages",
            "purposes": "downstream_tasks",
            "turned": "augment",
        }.items()
    },
}
"""Renamed keys of earlier versions whose nearest name would be another setting's."""


def check_config(parser: ConfigParser, run_ids: Iterable[str]) -> None:
    """Checks the config of a run before its first component is made.

    Args:
        parser: the parsed config, overrides included.
        run_ids: what this run evaluates; the arguments of the components it needs are checked too.
    Raises:
        UserError: the first thing wrong, with the nearest name.
    """
    config = parser.get()
    read = values_read(config, [*roots(config), *run_ids])
    check_keys(config, read)
    check_numbers(read)
    check_references(read)
    check_arguments(values_read(config, run_ids), parser.locator)


def check_keys(config: dict[str, Any], read: Values) -> None:
    """Raises on an unknown key, such as a mistyped override.

    Raises:
        UserError: names the key and the nearest one.
    """
    for id_ in unread(config, read):
        parent, _, key = id_.rpartition(ID_SEP_KEY)
        near = RENAMED.get(key) or suggestion(key, _names_in(read, parent), parent, read)
        raise UserError(f"unknown config key '{_shown(id_)}'{near}")


def check_numbers(read: Values) -> None:
    """Raises on ``1e-4``, which YAML reads as text (a number needs a point and a signed exponent).

    Raises:
        UserError: names the key and how to write the number.
    """
    for id_, value in read.items():
        match = _EXPONENT.fullmatch(value.strip()) if isinstance(value, str) else None
        if match:
            sign, digits, exponent_sign, exponent = match.groups()
            whole, _, part = digits.partition(".")
            number = f"{sign}{whole or 0}.{part or 0}e{exponent_sign or '+'}{exponent}"
            raise UserError(f"config key '{_shown(id_)}': '{value}' is text in YAML; write {number}")


def check_references(read: Values) -> None:
    """Raises on ``@a.b``: only an expression reads attributes or items, so MONAI takes it for plain text.

    Raises:
        UserError: names the key and how to write the expression.
    """
    for id_, value in read.items():
        if isinstance(value, str) and _ATTRIBUTE.fullmatch(value.strip()):
            written = value.strip().replace(ID_SEP_KEY, "#")
            raise UserError(f"config key '{_shown(id_)}': '{written}' is text; write ${written}")


def check_arguments(read: Values, locator: ComponentLocator) -> None:
    """Raises on an argument that a component's target does not take, or whose value is of another type.

    The types of arguments are checked in this project's own classes, where they are whole numbers, numbers,
    or true and false.

    Raises:
        UserError: names the argument and the nearest one, or the value and what it takes.
    """
    for id_, value in read.items():
        if not ConfigComponent.is_instantiable(value):
            continue
        component = ConfigComponent(config=value, id=id_, locator=locator)
        accepted = accepted_arguments(component)
        if accepted is None:
            continue
        for name, given in component.resolve_args().items():
            key = _shown(f"{id_}{ID_SEP_KEY}{name}")
            if name not in accepted:
                near = suggestion(name, accepted, id_)
                raise UserError(f"config key '{key}': {value['_target_']} takes no '{name}'{near}")
            if str(value["_target_"]).startswith(("common.", "bundles.")):
                _check_type(key, given, str(accepted[name]))


PLAIN_TYPES = {"int": (int,), "float": (int, float), "bool": (bool,)}


def _check_type(key: str, value: Any, annotation: str) -> None:
    """Raises on a value that is no number or truth value where ``annotation`` says that it is one."""
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return
    kinds = annotation.replace(" ", "").split("|")
    if not set(kinds) <= {*PLAIN_TYPES, "None"} or (value is None and "None" in kinds):
        return
    types = {kind for name in kinds for kind in PLAIN_TYPES.get(name, ())}
    if type(value) not in types or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"config key '{key}': {value!r} is not {' or '.join(TYPE_NAMES[k] for k in kinds)}")


TYPE_NAMES = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "None": "null"}


def accepted_arguments(component: ConfigComponent) -> dict[str, Any] | None:
    """Returns the keywords that a component's target takes, with the types that it gives them.

    Returns:
        None if they are unknown (``**kwargs``, builtins).
    """
    target = component.get_config()["_target_"]
    if not isinstance(target, str) or target[:1] in ("$", "@") or component.is_disabled():
        return None
    function = locate(component.resolve_module_name())
    if not callable(function):
        return None  # MONAI names what it cannot find
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have no signature
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name: p.annotation for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def suggestion(name: str, names: Iterable[str], parent: str = "", elsewhere: Iterable[str] = ()) -> str:
    """Returns ``; did you mean 'x'?``: the nearest name under ``parent``, else anywhere, else a list."""
    prefix = parent + ID_SEP_KEY if parent else ""
    siblings = {other: prefix + other for other in sorted(set(names))}
    others = {id_.rpartition(ID_SEP_KEY)[2]: id_ for id_ in sorted(elsewhere, key=len, reverse=True)}
    for known in (siblings, others):
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            return f"; did you mean '{_shown(known[near[0]])}'?"
    shown = [*list(siblings)[:_SHOWN_AT_MOST], *(["…"] if len(siblings) > _SHOWN_AT_MOST else [])]
    return f"; known here: {', '.join(shown)}" if shown else ""


def _names_in(read: Values, parent: str) -> set[str]:
    prefix = parent + ID_SEP_KEY if parent else ""
    return {id_.removeprefix(prefix).split(ID_SEP_KEY)[0] for id_ in read if id_.startswith(prefix)}


def _shown(id_: str) -> str:
    return id_.replace(ID_SEP_KEY, "#")  # as people type it: --train#trainer#max_epochs
