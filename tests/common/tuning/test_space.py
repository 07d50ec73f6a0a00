"""The search space's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.paths import repository_root
from common.tuning.space import Choices, Range, SearchSpace, read_space, rounded

SHIPPED = sorted(repository_root().glob("bundles/*/search.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "search.yaml"
    path.write_text(text)
    return path


def test_ranges_choices_and_shared_settings_are_read(tmp_path: Path) -> None:
    text = "parameters:\n  rate: {low: 1.0e-4, high: 1.0e-2, log: true}\n  size: {choices: [1, 4]}\n"
    space = read_space(written(tmp_path, text + "  depth: {low: 2, high: 5}\ntrial: {max_epochs: 3}\n"))
    rate, depth = Range(1e-4, 1e-2, log=True), Range(2, 5)
    assert space == SearchSpace({"rate": rate, "size": Choices((1, 4)), "depth": depth}, {"max_epochs": 3})
    assert depth.whole and not rate.whole


def test_first_trial_takes_the_configs_values_inside_the_space() -> None:
    one = Range(0.1, 1.0)
    space = SearchSpace({"a": one, "b": one, "c": Choices((1, 2)), "d": Range(0, 9)}, {})
    assert space.start({"a": 0.2, "b": 3.0, "c": 2, "d": True, "e": 5}) == {"a": 0.2, "c": 2}


def test_keys_set_by_the_user_are_not_searched() -> None:
    space = SearchSpace({"a": Range(0, 1), "b": Range(0, 1)}, {"max_epochs": 3})
    assert list(space.fixed({"a": "0.5"}).parameters) == ["b"]
    with pytest.raises(UserError, match="a, b are all set on the command line"):
        space.fixed({"a": "0.5", "b": "0.1"})


def test_numbers_are_rounded_to_three_digits() -> None:
    assert [rounded(value) for value in (0.00012345, 98.7654, 7, "word")] == [0.000123, 98.8, 7, "word"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {a: {low: 1, high: 2}}\nextra: 1", "unknown key 'extra'"),
        ("trial: {a: 1}", "needs parameters"),
        ("- a", "needs a mapping"),
        ("parameters: [", "not valid YAML"),
        ("parameters: {a: {low: 1e-4, high: 1.0}}", "1e-4 is text"),
        ("parameters: {a: {low: 2, high: 1}}", "low <= high"),
        ("parameters: {a: {low: 0.0, high: 1.0, log: true}}", "above 0"),
        ("parameters: {a: {low: 1, hihg: 2}}", "give low and high"),
        ("parameters: {a: {choices: []}}", "choices must be a list"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read_space(written(tmp_path, text))
    assert str(raised.value).startswith(str(tmp_path / "search.yaml")) and "\n" not in str(raised.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"search\.yaml: cannot be read"):
        read_space(tmp_path / "search.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_spaces_hold_their_configs_values(path: Path) -> None:
    from monai.bundle import ConfigParser

    space = read_space(path)
    config = ConfigParser.load_config_file(path.parent / "configs" / "train.yaml")
    assert list(space.start(config)) == list(space.parameters)
    assert set(space.trial) <= set(config)
