"""What every run does first: one-line errors, a check of all config keys, seeds. See `start`."""

from __future__ import annotations

from common.config.beginning import start
from common.config.description import component_description

__all__ = ["component_description", "start"]
