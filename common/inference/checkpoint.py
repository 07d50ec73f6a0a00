"""Trained models: their weights, the facts in the JSON beside them, and the network they belong to."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from common.data.datasets import ImageDataset
from common.data.intensity import Window, window_by_name
from common.data.samples import Sample, is_volume, stem, with_values
from common.data.transforms import preprocessing_of_model
from common.data.volume_io import volume_depth
from common.errors import UserError, check_int
from common.files import read_json
from common.networks.state import describe_mismatch

logger = logging.getLogger(__name__)
TRUSTED = ("bundles.", "common.", "monai.networks.")
MOVED = {
    "common.networks.spade": "common.networks.generators",
    "common.networks.resnet_generator": "common.networks.generators",
    "bundles.patchgan_cardiac.contrast": "bundles.patchgan_cardiac.networks",
    "bundles.lung_two_stage.generation.biggan": "bundles.lung_two_stage.generation.networks",
    "bundles.lung_two_stage.generation.dense": "bundles.lung_two_stage.generation.networks",
    "bundles.lung_two_stage.generation.capsule_network": "bundles.lung_two_stage.generation.networks",
    "bundles.lung_two_stage.generation.classifier": "bundles.lung_two_stage.generation.evaluate",
    "bundles.lung_two_stage.diagnosis.network": "bundles.lung_two_stage.downstream.utility",
    "bundles.lung_two_stage.downstream.network": "bundles.lung_two_stage.downstream.utility",
    "bundles.lung_two_stage.rivals.vgg": "bundles.lung_two_stage.baselines.candidate_classifier",
    "bundles.lung_two_stage.rivals.classifying": "bundles.lung_two_stage.baselines.candidate_classifier",
    "bundles.lung_two_stage.rivals.detector_network": "bundles.lung_two_stage.baselines.detector",
    "bundles.lung_two_stage.rivals.detector": "bundles.lung_two_stage.baselines.detector",
}
"""Old module -> present module: the names that models trained earlier have in their JSON."""
PLAIN_UNITS = Window(0, 4095)
"""Twelve bits, as scanners write them: what 0 and 1 become if a model knows no HU."""
IMAGE = "image"


class Scale(NamedTuple):
    """The values that a model's 0 and 1 become in the files it writes, their unit, and a remark."""

    window: Window
    unit: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.window.lower:g}..{self.window.upper:g} {self.unit}{self.note}"


def model_info(ckpt_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the JSON beside a model (``model.json`` for ``model.pt``); empty if there is none.

    Raises:
        UserError: the file is not valid JSON.
    """
    path = Path(ckpt_path).with_suffix(".json")
    return dict(read_json(path)) if path.is_file() else {}


def locate_by_name(target: str) -> object:
    """Finds the class or function that a model's JSON names, also under its name before it moved.

    Args:
        target: dotted name of a class or function of this project or of MONAI's networks; see `MOVED`.
    Returns:
        The object, or None for a name of any other package.

    Example:
        >>> locate_by_name("common.networks.spade.SpadeGenerator").__module__
        'common.networks.generators'
        >>> locate_by_name("os.system") is None
        True
    """
    for old, new in MOVED.items():
        if target.startswith(f"{old}."):
            target = new + target.removeprefix(old)
    return locate(target) if target.startswith(TRUSTED) else None


def network_for(ckpt_path: str | os.PathLike[str], otherwise: nn.Module) -> nn.Module:
    """Builds the network that a model belongs to, with random weights.

    A model trained with an overlay can so be used without naming the overlay again.

    Args:
        ckpt_path: weights file; the JSON beside it names the network.
        otherwise: the network to return if there is no such JSON.

    Raises:
        UserError: the JSON names no network of this project or MONAI, or arguments that it does not take.
    """
    network = model_info(ckpt_path).get("network")
    if not network:
        return otherwise
    target = str(network["target"])
    kind = locate_by_name(target)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UserError(
            f"{Path(ckpt_path).with_suffix('.json')}: '{target}' is no network of this project; "
            "delete the entry"
        )
    try:
        return kind(**network["arguments"])
    except TypeError as error:
        raise UserError(
            f"{Path(ckpt_path).with_suffix('.json')}: '{target}' does not take its arguments ({error}); "
            "use the version that trained the model"
        ) from error


def model_window(info: Mapping[str, Any], fallback: str = "lung") -> Window:
    """Returns the HU window of a model's [-1, 1]; warns if its HU are nominal only.

    Example:
        >>> model_window({"window_hu": [-160.0, 240.0]})
        Window(lower=-160.0, upper=240.0)
    """
    if info.get("nominal_hu", False):
        logger.warning("this model learned from 8-bit slices: HU in its output are nominal, not measured")
    return window_by_name(info.get("window_hu", fallback))


def model_scale(info: Mapping[str, Any], fallback: str = "angiography") -> Scale:
    """Returns HU in the model's window, or `PLAIN_UNITS` if it learned from percentiles, as of MR."""
    if info.get("is_hu", True):
        return Scale(model_window(info, fallback), "HU")
    ends = f"{info['intensity']['lower']:g} and {info['intensity']['upper']:g}"
    return Scale(PLAIN_UNITS, "units", f", the percentiles {ends} of what the model learned from: no HU")


def find_model(trained: str | os.PathLike[str], shipped: str | os.PathLike[str]) -> str:
    """Returns the path of the model to use: the trained one, or else the one that the bundle ships.

    Args:
        trained: where a training saves its model. A training that has begun and has saved none yet is not
            passed over.
        shipped: the file in the bundle's ``models`` folder. Trainings of earlier versions saved there too.
    Returns:
        The path of an existing file, or ``trained`` if there is neither.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shipped = Path(folder, "model.pt")
        ...     shipped.touch()
        ...     find_model(f"{folder}/run/models/model.pt", shipped) == str(shipped)
        True
    """
    own = Path(trained)
    resume = (own.parent if own.stem == "model" else own.with_suffix("")) / "resume.pt"
    return str(shipped if Path(shipped).is_file() and not (own.is_file() or resume.is_file()) else own)


def bundle_model(bundle: Path) -> Path:
    """Returns the path of the model that a bundle's inference uses, existing or not; see `find_model`.

    Example:
        >>> from common.paths import bundle_root
        >>> bundle_model(Path(bundle_root("pix2pix_covid"))).name
        'model.pt'
    """
    parser = ConfigParser()
    parser.read_config(str(inference_config(bundle).resolve()))
    return Path(parser.get_parsed_content("ckpt_path"))


def inference_config(bundle: Path) -> Path:
    """Returns the bundle's inference config: its YAML, or the JSON in a download without it."""
    yaml = bundle / "configs" / "inference.yaml"
    return yaml if yaml.is_file() else yaml.with_suffix(".json")


def load_weights(network: nn.Module, path: str | os.PathLike[str], how_to_train: str) -> nn.Module:
    """Loads the state_dict at ``path`` into ``network``; returns it in evaluation mode, on its own device.

    One line in the log says which model it is: a trained one, or weights that a bundle ships (float16).

    Args:
        how_to_train: the command that makes the file, for the message if it is missing.
    Raises:
        UserError: the file is missing, unreadable, or belongs to another network.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file}: no trained model yet; train first: {how_to_train}")
    state = read_weights(file)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        why = describe_mismatch(network, state)
        raise UserError(
            f"{file}: does not fit the network{f' ({why})' if why else ''}; "
            "restore the .json beside it or the configs"
        ) from error
    half = any(value.dtype is torch.float16 for value in state.values())
    logger.info("%s: %s", file, "shipped weights" if half else "trained model")
    return network.eval()


def read_weights(path: str | os.PathLike[str]) -> Any:
    """Returns the content of a file that ``torch.save`` wrote, on the CPU.

    Raises:
        UserError: the file is missing or unreadable, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file of weights; check the path, or train first") from error
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a readable model; train again or restore the file") from error


def image_as_in_training(
    path: str | os.PathLike[str],
    info: Mapping[str, Any],
    image_size: int,
    slice_index: int | None = None,
    hu_offset: float | None = None,
    source_range: Sequence[float] | None = None,
) -> Tensor:
    """Reads a picture, or one slice of a volume, as the model's training did: (1, 1, S, S) in [-1, 1].

    Args:
        path: the file, or the folder of a DICOM series.
        info: the facts beside the model (`model_info`): window, fit and standardiser.
        image_size: S.
        slice_index: axial slice, counted from the feet; None for the middle one.
        hu_offset, source_range: what the values mean, see `common.data.samples.with_values`.
    Raises:
        UserError: the file is missing or not an image, or has no such slice.
    """
    file = Path(path)
    if not file.exists():
        raise UserError(f"{file}: no such file; check the path")
    sample = Sample(file, None, stem(file), _slice(file, slice_index), category=IMAGE)
    dataset = ImageDataset(
        with_values([sample], hu_offset, source_range),
        [IMAGE],
        preprocessing_of_model(info, IMAGE, image_size, info.get("window_hu", "lung")),
    )
    return torch.from_numpy(dataset.images)  # (1, 1, S, S)


def _slice(file: Path, index: int | None) -> int | None:
    if not is_volume(file):
        if index is not None:
            raise UserError(f"{file}: a picture has no slices; leave out the slice's number")
        return None
    depth = volume_depth(file)
    chosen = depth // 2 if index is None else check_int("slice", index)
    if chosen >= depth:
        raise UserError(f"{file}: has no slice {chosen}; its {depth} slices are numbered from 0")
    return chosen
