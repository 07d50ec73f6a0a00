"""Export of a trained generator to TorchScript or ONNX, checked against the original."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ckpt_export, onnx_export
from monai.networks.utils import convert_to_onnx
from monai.utils import optional_import
from torch import Tensor, nn

from common.errors import UserError
from common.files import atomic_write, read_json
from common.inference.checkpoint import bundle_model, inference_config, load_weights, model_info, network_for
from common.networks.diffusion import DiffusionGenerator
from common.paths import bundle_root
from common.rng import make_rng

LATENT = "latent"


def sample_inputs(
    metadata: Mapping[str, Any], info: Mapping[str, Any], batch: int, seed: int = 0
) -> tuple[Tensor, ...]:
    """Draws inputs of a generator: values (B, ...) and, for a conditional one, class indices (B,).

    Args:
        metadata: the bundle's, which declares the kind of input.
        info: the facts beside the trained model (``model.json``), whose sizes take precedence.
        batch: B.
        seed: seed of the values.
    Returns:
        Float32 (B, latent) from N(0, 1), or (B, C, S, S) class indices or values in the declared range; for a
        conditional generator also int64 (B,), all classes in turn.

    Example:
        >>> image = {"format": "latent", "num_channels": 100}
        >>> metadata = {"network_data_format": {"inputs": {"image": image}}}
        >>> [noise] = sample_inputs(metadata, {"latent": 8}, batch=2)
        >>> noise.shape
        torch.Size([2, 8])
    """
    described = metadata["network_data_format"]["inputs"]["image"]
    classes = info.get("network", {}).get("arguments", {}).get("classes")
    drawn = make_rng(seed, "sample input")
    if described["format"] == LATENT:
        size = (batch, info.get("latent", described["num_channels"]))
        noise = torch.from_numpy(drawn.standard_normal(size)).float()
        return (noise, torch.arange(batch) % classes) if classes else (noise,)
    declared = described["spatial_shape"]
    side = int(info.get("image_size") or str(declared[0]).partition("*")[0])  # ``128*n`` is 128
    shape = (batch, described["num_channels"], *[side] * len(declared))
    lower, upper = described["value_range"]
    if described["format"] == "segmentation":
        most = int(upper) if classes is None else classes
        return (torch.from_numpy(drawn.integers(most + 1, size=shape)).float(),)
    return (torch.from_numpy(drawn.uniform(lower, upper, shape)).float(),)


SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx"}
TOLERANCE = 1e-4
"""Largest difference of images in [-1, 1]: a hundredth of a step of 8 bits."""
INPUTS = ["image", "class"]
"""Input names in an ONNX file: noise or labels, and the class for a conditional model."""
TRACED, COMPARED = 2, 3
"""Batch sizes: not 1, which exporters take for a constant, and a different one for the check."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportSettings:
    """An export as requested on the command line."""

    name: str  # of the bundle
    format: str  # a key of `SUFFIXES`
    ckpt_path: Path | None = None  # default the model of the bundle's inference
    output: Path | None = None  # default beside the weights; of shipped ones in bundles/NAME/run/models


def export(settings: ExportSettings) -> Path:
    """Writes the generator to ``output``, for any batch size and the image size of its training.

    Raises:
        UserError: no trained model, a diffusion model, a missing package, or an export with other images.
    """
    bundle = Path(bundle_root(settings.name))
    weights = settings.ckpt_path or bundle_model(bundle)
    shipped = weights.resolve().parent == (bundle / "models").resolve()  # a folder for shipped weights alone
    folder = bundle / "run" / "models" if shipped else weights.parent
    output = settings.output or folder / f"{weights.stem}{SUFFIXES[settings.format]}"
    metadata, info = read_json(bundle / "configs" / "metadata.json"), model_info(weights)
    network = load_weights(network_for(weights, otherwise=nn.Identity()), weights, "see the bundle's README")
    if isinstance(network, DiffusionGenerator):
        raise UserError(f"{weights}: a diffusion model's sampling loop is not exported; use it in Python")
    convert, run = (_to_onnx, _run_onnx) if settings.format == "onnx" else (_to_torchscript, torch.jit.load)
    with atomic_write(output) as temporary:
        convert(bundle, weights, temporary, sample_inputs(metadata, info, TRACED), network)
        error = difference(network, run(str(temporary)), sample_inputs(metadata, info, COMPARED, seed=1))
        if not error <= TOLERANCE:
            raise UserError(f"{output}: not written, its images differ from PyTorch's by {error:.2g}")
    logger.info(f"{output}: images differ from PyTorch's by {error:.1e} at most")
    return output


def difference(network: nn.Module, exported: Callable[..., Tensor], given: Sequence[Tensor]) -> float:
    """Returns the largest absolute difference between the images of two networks.

    Example:
        >>> difference(nn.Identity(), lambda images: images + 0.5, [torch.zeros(2, 1, 4, 4)])
        0.5
    """
    with torch.inference_mode():
        return float((network(*given) - exported(*given)).abs().max())


def _to_torchscript(bundle: Path, weights: Path, output: Path, *_: Any) -> None:
    ckpt_export(
        "network_def",
        filepath=str(output),
        ckpt_file=str(weights),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(inference_config(bundle)),
        ckpt_path=str(weights),
    )


def _to_onnx(bundle: Path, weights: Path, output: Path, given: Sequence[Tensor], network: nn.Module) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if not optional_import(package)[1]:
            raise UserError(f"ONNX needs {package}: pip install onnx onnxscript onnxruntime")
    batch = torch.export.Dim("batch")
    options: dict[str, Any] = {
        "input_names": INPUTS[: len(given)],
        "output_names": ["pred"],
        "dynamo": True,
        "verbose": False,
        "dynamic_shapes": tuple({0: batch} for _ in given),
    }
    if len(given) > 1:  # MONAI's command supports one input only
        convert_to_onnx(network, given, filename=str(output), use_trace=True, **options)
        return
    onnx_export(
        "network_def",
        filepath=str(output),
        ckpt_file=str(weights),
        config_file=str(inference_config(bundle)),
        use_trace=True,
        input_shape=list(given[0].shape),
        converter_kwargs=options,
        ckpt_path=str(weights),
    )


def _run_onnx(path: str) -> Callable[..., Tensor]:
    """Loads an ONNX file as a function."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [described.name for described in session.get_inputs()]

    def run(*given: Tensor) -> Tensor:
        arrays = {name: value.numpy() for name, value in zip(names, given, strict=True)}
        results: list[Any] = session.run(None, arrays)
        return torch.from_numpy(results[0])

    return run
