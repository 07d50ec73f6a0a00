"""The first item of every run list."""

from __future__ import annotations

import inspect

from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism

from common.config.checks import check_config
from common.config.words import read_words
from common.errors import UserError, install_hook


def start(run_id: str | None = None) -> None:
    """Begins a run; the first item of each run list: ``- "$config.start()"``.

    From here on uncaught errors are one line each. ``true``, ``false`` and ``null`` of the command line get
    their meaning (`read_words`), all config keys are checked (`check_config`), then the generators of torch,
    numpy and python are seeded from the key ``seed``, where there is one.

    Args:
        run_id: the list being run; by default the one the calling workflow runs.
    Raises:
        UserError: a config key is wrong, or no bundle run is going on.
    """
    install_hook()
    workflow = calling_workflow()
    ids = [workflow.init_id, run_id or workflow.run_id, workflow.final_id, "seed"]
    read_words(workflow.parser)
    check_config(workflow.parser, [id_ for id_ in ids if id_])
    seed = workflow.parser.get_parsed_content("seed") if "seed" in workflow.parser else None
    if seed is None:
        return
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"config key 'seed': {seed!r} is not a whole number from 0 up")
    set_determinism(seed)


def calling_workflow() -> ConfigWorkflow:
    """The bundle workflow this call was evaluated by, found on the stack.

    Raises:
        UserError: there is none.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ConfigWorkflow):
            return frame.f_locals["self"]
        frame = frame.f_back
    raise UserError("no bundle run is going on; use python -m monai.bundle run ID --config_file FILE")
