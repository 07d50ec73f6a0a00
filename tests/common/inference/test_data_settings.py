from __future__ import annotations

import inspect

from common.data.structure_data import StructureData
from common.data.structures import STRUCTURES
from common.inference.data_settings import data_settings

MR = {
    "condition": "label",
    "label_set": {"classes": ["LV", "RV", "Myo"], "label_map": {"1": "RV", "2": "Myo", "3": "LV"}},
    "intensity": {"kind": "percentile", "lower": 1.0, "upper": 99.0},
    "image_size": 96,
    "axis": "coronal",
    "spacing": 2.5,
    "interpolation": "linear",
}


def test_the_models_own_settings_come_back() -> None:
    given = data_settings(MR)
    assert (given["image_size"], given["axis"], given["spacing"]) == (96, "coronal", 2.5)
    assert given["fit"] == "stretch"  # of models that say nothing
    assert data_settings({**MR, "fit": "pad"})["fit"] == "pad"
    assert given["interpolation"] == "linear" and given["percentiles"] == [1, 99]
    assert given["labels"] == ["LV", "RV", "Myo"] and given["label_map"] == {1: "RV", 2: "Myo", 3: "LV"}


def test_a_window_is_given_as_its_ends() -> None:
    given = data_settings({**MR, "intensity": {"kind": "window", "lower": -100.0, "upper": 500.0}})
    assert given["window"] == [-100, 500] and given["percentiles"] is None


def test_files_of_another_convention() -> None:
    assert data_settings(MR, "{7: LV}")["label_map"] == {7: "LV"}
    assert data_settings(MR, "default")["label_map"] is None


def test_a_condition_image_has_no_classes() -> None:
    given = data_settings({**MR, "condition": "image", "label_set": None})
    assert given["condition"] == "image" and given["label_map"] is None


def test_without_a_model_the_defaults_stand() -> None:
    given = data_settings({})
    assert given["image_size"] == 128 and given["window"] == [-200, 600]
    assert given["labels"] == list(STRUCTURES)


def test_all_are_arguments_of_the_data_set() -> None:
    assert set(data_settings(MR)) <= set(inspect.signature(StructureData).parameters)
