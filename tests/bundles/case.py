"""What the tests that all bundles share have to know of one bundle."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from tests.bundles.runs import ROOT

PATIENTS = 8


def write_patients(
    folder: Path,
    parts: Sequence[str],
    make: Callable[[int], Sequence[np.ndarray]],
    affine: np.ndarray,
) -> None:
    """For each patient the volumes that ``make`` gives, one into each of the folders ``parts``."""
    for part in parts:
        (folder / part).mkdir()
    for number in range(PATIENTS):
        for part, voxels in zip(parts, make(number), strict=True):
            nib.save(nib.Nifti1Image(voxels, affine), folder / part / f"patient_{number:03d}.nii.gz")


_STOCK = (
    "[{'_target_':'RandAffined','keys':KEYS,'prob':0.8,'rotate_range':0.3,'scale_range':[0.1,0.1],'mode':MODE},"
    "{'_target_':'RandGaussianNoised','keys':'image','prob':0.7,'std':0.05}]"
)
"""Random transforms as MONAI has them."""
PAIR_AUGMENTATION = _STOCK.replace("KEYS", "['image','label']").replace("MODE", "['bilinear','nearest']")
IMAGE_AUGMENTATION = _STOCK.replace("KEYS", "'image'").replace("MODE", "'bilinear'")
ACCURACIES = frozenset(f"D_accuracy_{kind}{suffix}" for kind in ("real", "fake") for suffix in ("", "_ema"))
"""What is logged of a discriminator; a critic has none."""


def nothing(_data: Path) -> dict[str, Any]:
    """No settings."""
    return {}


def no_names(_data: Path) -> dict[str, str]:
    """No placeholders."""
    return {}


def two_masks() -> torch.Tensor:
    """Masks (2, 1, 32, 32) in {0, 1}."""
    return (torch.rand(2, 1, 32, 32) > 0.5).float()


@dataclass(frozen=True)
class BundleCase:
    """A bundle, the settings of its smallest run and a made data set.

    Attributes:
        name: folder under ``bundles/``.
        tiny: overrides that make a training take half a second.
        short: overrides that make a training learn something in a minute, on phantoms.
        make_data: fills a folder with a data set of 8 patients whose training split has 20 slices.
        inference: settings that name what inference works on.
        train: the config that trains ``network_def``.
        evaluate: the config that evaluates it.
        networks: the module that has its class, in ``common`` or below the bundle's.
        built_with: settings without which the training's components cannot be built.
        beside: further settings for the data set in that folder.
        files: what a training writes beside what all bundles do.
        augment: settings that make training draw random numbers for each visit.
        no_augment: one with the wrong word ``rotate`` in it.
        evaluating: settings of an evaluation, where the made set's test split is too small for one.
        with_shipped: settings with which the shipped weights take the made data's label values.
        placeholders: what names of made-up files in the README's quick start stand for.
        undrawn: settings without random numbers in the networks and losses.
        network_input: makes what the tiny network takes, for two samples.
        metrics: of a validation.
        logged: what every iteration logs beside what all bundles do.
        rows: of a grid of samples.
    """

    name: str
    tiny: Mapping[str, Any]
    short: Mapping[str, Any]
    make_data: Callable[[Path], None]
    inference: Callable[[Path], dict[str, Any]]
    train: str = "train"
    evaluate: str = "evaluate"
    networks: str = "networks"
    built_with: Callable[[Path], dict[str, Any]] = nothing
    beside: Callable[[Path], dict[str, Any]] = nothing
    files: frozenset[str] = frozenset()
    augment: Mapping[str, Any] = field(default_factory=dict)
    no_augment: Mapping[str, str] = field(default_factory=lambda: {"augment": "{'flip':0.5,'rotate':3}"})
    evaluating: Callable[[Path], dict[str, Any]] = nothing
    with_shipped: Mapping[str, Any] = field(default_factory=dict)
    placeholders: Callable[[Path], dict[str, str]] = no_names
    undrawn: Mapping[str, Any] = field(default_factory=dict)
    network_input: Callable[[], torch.Tensor] = two_masks
    metrics: frozenset[str] = frozenset({"fid_gridvgg"})
    logged: frozenset[str] = frozenset()
    rows: int = 3

    @property
    def root(self) -> Path:
        """The bundle's folder."""
        return ROOT / "bundles" / self.name

    @property
    def configs(self) -> Path:
        """The bundle's configs."""
        return self.root / "configs"

    def arguments(self, run_id: str, config: str | Sequence[str], **overrides: Any) -> list[str]:
        """What follows ``python -m monai.bundle run``; ``config`` names files of the bundle's ``configs``."""
        files = [config] if isinstance(config, str) else list(config)
        paths = [str(self.configs / f"{name}.yaml") for name in files]
        config_file = paths[0] if len(paths) == 1 else str(paths)
        return ["run", run_id, "--config_file", config_file, *override_words(overrides)]

    def settings(self, data: Path, folder: Path | str, **more: Any) -> dict[str, Any]:
        """Overrides of a tiny training on ``data`` into ``folder``."""
        return {**self.tiny, **self.beside(data), "dataset_dir": data, "output_dir": folder, **more}

    def training(self, data: Path, folder: Path | str, **more: Any) -> list[str]:
        """The command line of a tiny training."""
        return self.arguments("training", self.train, **self.settings(data, folder, **more))

    @property
    def network_module(self) -> str:
        """Where the class of ``network_def`` comes from."""
        return (
            self.networks if self.networks.startswith("common.") else f"bundles.{self.name}.{self.networks}"
        )


def override_words(overrides: Mapping[str, Any]) -> list[str]:
    """``--key value`` as on the command line."""
    return [part for key, value in overrides.items() for part in (f"--{key}", _text(value))]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def quick_start(readme: Path) -> list[list[str]]:
    """The words after ``python`` of each command in the first block of a README."""
    block = re.search(r"^```\w*\n(.*?)^```", readme.read_text(), re.M | re.S)
    assert block, f"{readme}: no commands"
    lines = block[1].replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in commands if words[:1] == ["python"]]
