"""What a search varies: config keys with their ranges, read from a bundle's ``search.yaml``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError

Value = float | int | str | bool
DIGITS = 3  # significant ones of a drawn number: enough for a setting, and people can read it


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, drawn evenly or evenly in their logarithm; whole where both are."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether ``value`` could be drawn."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Value, ...]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` could be drawn."""
        return any(value == choice and type(value) is type(choice) for choice in self.values)


Parameter = Range | Choices


@dataclass(frozen=True)
class SearchSpace:
    """The searched config keys, and the settings that all trials share."""

    parameters: Mapping[str, Parameter]
    trial: Mapping[str, Value]

    def fixed(self, overrides: Mapping[str, Any]) -> SearchSpace:
        """The space without the keys that the user has set.

        Raises:
            UserError: nothing is left to search.
        """
        left = {key: value for key, value in self.parameters.items() if key not in overrides}
        if not left:
            raise UserError(
                f"nothing to search: {', '.join(self.parameters)} are all set on the command line"
            )
        return SearchSpace(left, self.trial)

    def start(self, config: Mapping[str, Any]) -> dict[str, Value]:
        """The config's own values of the searched keys, as far as they lie in the space: the first trial."""
        return {key: config[key] for key, found in self.parameters.items() if found.holds(config.get(key))}


def read_space(path: Path) -> SearchSpace:
    """Reads ``search.yaml``: ``parameters`` (``{low, high, log}`` or ``{choices}`` by config key), ``trial``.

    Raises:
        UserError: no such file, or something in it is not as it has to be.
    """
    content = _load(path)
    unknown = sorted(set(content) - {"parameters", "trial"})
    if unknown:
        raise UserError(f"{path}: unknown key '{unknown[0]}'; there are parameters and trial")
    found, trial = content.get("parameters"), content.get("trial") or {}
    if not isinstance(found, dict) or not found or not isinstance(trial, dict):
        raise UserError(
            f"{path}: needs parameters, a mapping of config keys to ranges (and trial, a mapping)"
        )
    return SearchSpace({str(key): _parameter(path, key, item) for key, item in found.items()}, trial)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); the bundle has no search space"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: needs a mapping with parameters")
    return content


def _parameter(path: Path, key: str, item: Any) -> Parameter:
    where = f"{path}: parameter '{key}'"
    keys = set(item) if isinstance(item, dict) else set()
    if keys == {"choices"}:
        values = item["choices"]
        if not isinstance(values, list) or not values or not all(isinstance(v, Value) for v in values):
            raise UserError(f"{where}: choices must be a list of numbers or words")
        return Choices(tuple(values))
    if not {"low", "high"} <= keys <= {"low", "high", "log"}:
        raise UserError(f"{where}: give low and high (and log), or choices")
    low, high, log = item["low"], item["high"], item.get("log", False)
    if not all(_is_number(end) for end in (low, high)):
        raise UserError(f"{where}: low and high must be numbers (1.0e-4 in YAML; 1e-4 is text)")
    if low > high or (log is True and low <= 0) or not isinstance(log, bool):
        raise UserError(f"{where}: needs low <= high, and low above 0 where log is true")
    return Range(low, high, log)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def rounded(value: Value) -> Value:
    """A drawn float at three significant digits; other values as they are."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
