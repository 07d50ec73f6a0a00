"""What ``scripts/latent_explorer.py`` does once its arguments are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai.bundle
import yaml

from common.errors import UserError

CONFIG = Path("configs") / "explore.yaml"
RUN_ID = "explorer"


def explore(bundle: str | os.PathLike[str], settings: Mapping[str, str]) -> None:
    """Runs ``explorer`` of the bundle's ``configs/explore.yaml``.

    Args:
        bundle: the bundle's folder.
        settings: of the config, as typed: numbers, true, false and null have their meaning.
    Raises:
        UserError: no bundle with such a config there.
    """
    file = Path(bundle) / CONFIG
    if not file.is_file():
        raise UserError(
            f"{file}: no such config; --bundle takes the folder of a bundle with a latent explorer"
        )
    overrides: dict[str, Any] = {name: yaml.safe_load(text) for name, text in settings.items()}
    monai.bundle.run(run_id=RUN_ID, config_file=str(file.resolve()), **overrides)
