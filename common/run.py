"""The start of a bundle run: values of the command line, checks of the config, the seed."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import ID_SEP_KEY
from monai.utils import set_determinism

from common.config import check_config
from common.errors import UserError, install_hook
from common.settings import command_line, settle_values, training_settings

WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def coerce_cli_literals(parser: ConfigParser) -> None:
    """Replaces the texts ``true``, ``false`` and ``null`` in the config, before anything is resolved.

    MONAI's command line knows Python's spelling only: ``--amp false`` arrives as a text, which is true.
    """
    for item in parser.ref_resolver.items.values():
        config = item.get_config()
        if isinstance(config, dict):
            config.update({key: WORDS[value] for key, value in config.items() if _is_literal(value)})
        elif isinstance(config, list):
            config[:] = [WORDS[value] if _is_literal(value) else value for value in config]
        elif _is_literal(config):
            item.update_config(WORDS[config])


def _is_literal(value: Any) -> bool:
    return isinstance(value, str) and value in WORDS


def initialize_run(run_id: str | None = None) -> None:
    """Starts a run: checks the config and seeds torch, numpy and Python with the key ``seed``.

    It is the item of each config's ``initialize``, which MONAI runs before anything of the config is built,
    by ``run`` as by `monai.bundle.load` or a `ConfigWorkflow` in a notebook; and the first item of each run
    list, where it does nothing unless ``initialize`` was left out. ``true``, ``false`` and ``null`` of the
    command line get their meaning (`coerce_cli_literals`), the keys are checked
    (`common.config.check_config`), and the settings get their types (`common.settings.settle_values`). In the
    command ``python -m monai.bundle`` uncaught errors become one line each.

    Args:
        run_id: the list being run; by default the one the calling workflow runs.
    Raises:
        UserError: a key or a value is wrong, or no bundle run is going on.

    Example:
        An overlay with its own list of what to run begins with it::

            training:
            - "$run.initialize_run()"
            - "$@train#trainer.run()"
    """
    if command_line() is not None:
        install_hook()
    workflow = calling_workflow()
    items = workflow.parser.ref_resolver.items  # MONAI makes others when it parses a config again
    if workflow.__dict__.get(STARTED) is items:
        return
    ids = [workflow.init_id, run_id or workflow.run_id, workflow.final_id, "seed"]
    coerce_cli_literals(workflow.parser)
    check_config(workflow.parser, [id_ for id_ in ids if id_])
    settle_values(workflow.parser, workflow.config_root_path)
    adapt_tracking(workflow.parser)
    workflow.__dict__[STARTED] = items
    seed = workflow.parser.get_parsed_content("seed") if "seed" in workflow.parser else None
    if seed is None:
        return
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"config key 'seed': {seed!r} is not a whole number from 0 up")
    set_determinism(seed)


STARTED = "_started_items"


def adapt_tracking(parser: ConfigParser) -> None:
    """Lets the handlers of MONAI's ``--tracking mlflow`` log what this project's trainer puts out.

    MONAI adds a `MLFlowHandler` that takes the loss from a list of samples; a `MultiStepTrainer` puts out one
    dictionary, and all its losses are logged. The name of the file with the config as it is run, which MLflow
    keeps, is an expression without its sign in MONAI 1.6 where ``output_dir`` is a plain folder.
    """
    handlers = parser.get(f"train{ID_SEP_KEY}handlers")
    for number, handler in enumerate(handlers if isinstance(handlers, list) else []):
        if isinstance(handler, dict) and handler.get("_target_") == "MLFlowHandler":
            id_ = f"train{ID_SEP_KEY}handlers{ID_SEP_KEY}{number}{ID_SEP_KEY}output_transform"
            parser.ref_resolver.resolved_content[id_] = losses_of
    name = parser.get("save_execute_config")
    if isinstance(name, str) and (match := re.fullmatch(r"([^$].*) \+ '(/config_\w+\.json)'", name)):
        parser.ref_resolver.resolved_content["save_execute_config"] = match[1] + match[2]


def losses_of(output: Any) -> dict[str, float]:
    """Returns the single numbers in a trainer's output, that of one sample where it was decollated.

    Example:
        >>> import torch
        >>> losses_of({"loss": torch.tensor(0.5), "pred": torch.zeros(2, 1, 8, 8)})
        {'loss': 0.5}
    """
    entries = (output[0] if isinstance(output, list) else output).items()
    return {str(name): float(value) for name, value in entries if getattr(value, "ndim", None) == 0}


def calling_workflow() -> ConfigWorkflow:
    """Returns the bundle workflow that evaluates the calling expression, found on the stack.

    Raises:
        UserError: there is none.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ConfigWorkflow):
            return frame.f_locals["self"]
        frame = frame.f_back
    raise UserError("no bundle run is going on; use python -m monai.bundle run ID --config_file FILE")


def settings_of_training() -> dict[str, Any]:
    """Returns `common.settings.training_settings` of the running config; nothing outside of a bundle run."""
    try:
        return training_settings(calling_workflow().parser.get())
    except UserError:
        return {}


def component_description(key: str) -> dict[str, Any]:
    """Describes the component at ``key`` of the running config by its target and resolved arguments.

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


def transform_descriptions(key: str, first: int = 0) -> list[dict[str, Any]]:
    """`component_description` of each transform in the `Compose` at ``key``, from number ``first`` on.

    Evaluation and inference build the transforms of a trained model from these.

    Raises:
        UserError: no bundle run is going on, or arguments cannot be written as JSON.
    """
    transforms = f"{key}{ID_SEP_KEY}transforms"
    count = len(calling_workflow().parser.get(transforms))
    described = [component_description(f"{transforms}{ID_SEP_KEY}{number}") for number in range(first, count)]
    for number, entry in enumerate(described, first):
        try:
            json.dumps(entry)
        except TypeError as error:
            raise UserError(
                f"config key '{transforms}{ID_SEP_KEY}{number}': {error}; give texts, numbers and lists, "
                "so that they can be written beside the model"
            ) from error
    return described
