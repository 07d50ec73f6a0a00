"""Which keys of a parsed config are read: a walk along its references.

Ids are MONAI's: ``a::b::0`` is item 0 of ``b`` in ``a``. When a run starts, macros (``%``) are already
replaced by copies and relative references by absolute ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from monai.bundle import ConfigExpression, ReferenceResolver
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.utils import ID_SEP_KEY
from monai.utils import BundleProperty, BundlePropertyConfig

Values = dict[str, Any]  # id -> raw value
_MISSING = object()
_LISTS_BY_NAME = ("imports", "initialize", "run", "finalize", "training", "evaluating", "inference")


def roots(config: dict[str, Any]) -> list[str]:
    """The ids read from outside: lists of expressions (the run lists) and the properties MONAI requires."""
    lists = [key for key, value in config.items() if isinstance(value, list) and _has_expression(value)]
    properties = (*TrainProperties.values(), *InferProperties.values())
    required = [str(p[BundlePropertyConfig.ID]) for p in properties if p.get(BundleProperty.REQUIRED)]
    return [*lists, *_LISTS_BY_NAME, *required]


def values_read(config: dict[str, Any], ids: Iterable[str]) -> Values:
    """Everything reachable from ``ids`` by reference: a referenced dict or list is read with all it holds.

    Ids that are not in the config are passed over (MONAI reports a missing reference itself).
    """
    found: Values = {}
    waiting = [(id_, value) for id_ in ids if (value := lookup(config, id_)) is not _MISSING]
    while waiting:
        id_, value = waiting.pop()
        if id_ in found:
            continue
        found[id_] = value
        if isinstance(value, (dict, list)):
            waiting += [(sub_id, item) for _, sub_id, item in ReferenceResolver.iter_subconfigs(id_, value)]
        elif isinstance(value, str):
            named = ReferenceResolver.match_refs_pattern(value)
            waiting += [(ref, item) for ref in named if (item := lookup(config, ref)) is not _MISSING]
    return found


def unread(config: Any, read: Values, id_: str = "") -> Iterator[str]:
    """The topmost ids nothing reads. Names like ``_meta_`` or ``_desc_`` are notes and pass."""
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
    """The raw value at ``id_``, or a private marker that equals nothing else."""
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
