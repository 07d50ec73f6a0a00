"""Which conditions a bundle is asked for, and in which values they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.inference.labels import LabelSlices
from common.inference.sources import Source
from common.paths import repository_root
from common.trust.generating import (
    chosen_conditions,
    config_of,
    draws_from_noise,
    generate,
    trained_model,
    write_conditions,
)
from common.trust.settings import STRUCTURES, ReadingSettings
from tests.common.trust.made_sets import made

BUNDLES = repository_root() / "bundles"


def test_half_of_the_conditions_are_of_training_patients() -> None:
    real, heldout = made("real", 20, 1), made("heldout", 6, 2)
    names = chosen_conditions(real, heldout, 8, 0).names
    assert [name[:4] for name in names] == ["real"] * 4 + ["held"] * 4
    assert names == chosen_conditions(real, heldout, 8, 0).names
    assert names != chosen_conditions(real, heldout, 8, 1).names
    many = chosen_conditions(real, heldout, 22, 0)
    assert sum(name.startswith("held") for name in many.names) == 6 and len(many) == 22
    assert len(chosen_conditions(real, heldout, 100, 0)) == 26
    assert chosen_conditions(replace(real, labels=None), heldout, 4, 0) is None


def test_masks_are_written_white(tmp_path: Path) -> None:
    conditions = made("real", 3, 1)
    files = sorted(write_conditions(conditions, tmp_path, ReadingSettings()).iterdir())
    assert [file.name for file in files] == [f"condition00000{k}.png" for k in range(3)]
    for file, label in zip(files, conditions.labels, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), label[0].numpy() * 255)


@pytest.mark.parametrize(
    ("label_map", "values"), [(None, [0, 1, 5]), ({"205": "Myo", "500": "LV"}, [0, 500, 205])]
)
def test_structures_are_written_as_the_model_reads_them(
    tmp_path: Path, label_map: dict[str, str] | None, values: list[int]
) -> None:
    info = {"label_set": {"classes": ["LV", "Myo"], "label_map": label_map}}
    labels = torch.zeros(1, 1, 8, 8)
    labels[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 2.0])
    conditions = replace(made("real", 1, 1), labels=labels, structures=("LV", "Myo"))
    folder = write_conditions(conditions, tmp_path, ReadingSettings(kind=STRUCTURES, info=info))
    assert np.asarray(Image.open(folder / "condition000000.png"))[0, :3].tolist() == values


def test_structures_of_a_certain_scale_are_written_with_it(tmp_path: Path) -> None:
    info = {"label_set": {"classes": ["LV", "Myo"], "label_map": None}, "spacing": 2.5, "image_size": 8}
    labels = torch.zeros(1, 1, 8, 8)
    labels[0, 0, 1, 5], labels[0, 0, 6, :3] = 1, 2
    conditions = replace(made("real", 1, 1), labels=labels, structures=("LV", "Myo"))
    reading = ReadingSettings(8, kind=STRUCTURES, info=info)
    (file,) = write_conditions(conditions, tmp_path, reading).iterdir()
    image = nib.load(file)
    assert image.header.get_zooms() == (2.5, 2.5, 1.0)
    slices = LabelSlices([Source(file)], info)  # as the bundle's inference reads it
    assert torch.equal(slices[0]["label"], labels[0])
    with pytest.raises(UserError, match="coronal slices of 2"):
        write_conditions(conditions, tmp_path, replace(reading, info={**info, "axis": "coronal"}))


def test_bundles_are_known_by_their_configs() -> None:
    assert draws_from_noise(BUNDLES / "dcgan_covid") and not draws_from_noise(BUNDLES / "pix2pix_covid")
    assert trained_model(BUNDLES / "dcgan_covid") == BUNDLES / "dcgan_covid" / "models" / "model.pt"


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--bundle takes a bundle's folder"):
        config_of(tmp_path)
    with pytest.raises(UserError, match="give some with --condition"):
        generate(BUNDLES / "pix2pix_covid", 4, tmp_path)
