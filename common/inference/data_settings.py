"""How a trained model's own slices were made, for a data set that is to be prepared in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.data.structures import LabelMap
from common.inference.labels import geometry_of, intensity_of, label_set_of


def data_settings(info: Mapping[str, Any], label_map: LabelMap | None = None) -> dict[str, Any]:
    """Arguments of `common.data.structure_data.StructureData`, the same as in the model's training.

    Args:
        info: what stands beside the model (`common.inference.models.model_info`); empty for the defaults.
        label_map: what the files' values mean, where they differ from the training set's; ``default`` for
            the map that is used where none is given.
    """
    geometry, intensity = geometry_of(info), intensity_of(info)
    limits = [intensity.lower, intensity.upper]
    labels = label_set_of(info, label_map)
    return {
        "image_size": geometry.size,
        "axis": geometry.axis,
        "spacing": geometry.spacing,
        "interpolation": geometry.interpolation,
        "fit": geometry.fit,
        "window": limits if intensity.kind == "window" else "angiography",
        "percentiles": limits if intensity.kind == "percentile" else None,
        "condition": "image" if labels is None else "label",
        "condition_dir": info.get("condition_dir"),
        "image_dir": info.get("image_dir", "images"),
        "labels": "all" if labels is None else list(labels.classes),
        "label_map": None if labels is None else labels.label_map,
    }
