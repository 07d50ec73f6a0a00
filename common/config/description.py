"""A config's component as plain data, to travel with what it made."""

from __future__ import annotations

from typing import Any

from monai.bundle.utils import ID_SEP_KEY

from common.config.beginning import calling_workflow


def component_description(key: str) -> dict[str, Any]:
    """Target and resolved arguments of the component at ``key`` of the config being run.

    Returns:
        ``{"target": "package.Class", "arguments": {...}}``, JSON-able where the arguments are.
    Raises:
        UserError: no bundle run is going on.
    """
    parser = calling_workflow().parser
    raw = parser.get(key)
    names = [name for name in raw if not (name.startswith("_") and name.endswith("_"))]
    arguments = {name: parser.get_parsed_content(f"{key}{ID_SEP_KEY}{name}") for name in names}
    return {"target": raw["_target_"], "arguments": arguments}
