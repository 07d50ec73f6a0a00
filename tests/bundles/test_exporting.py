"""Exported generators give the images of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.inference.checkpoint import load_weights, network_for
from common.tools import export as exporting
from common.tools.export import ExportSettings, export
from tests.bundles.case import BundleCase
from tests.bundles.conftest import Trained

pytestmark = pytest.mark.slow


def plain_images(model: Path, given: torch.Tensor) -> np.ndarray:
    """What eager PyTorch draws."""
    network = load_weights(network_for(model, otherwise=torch.nn.Identity()), model, "")
    with torch.inference_mode():
        return network(given).numpy()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_torchscript_draws_the_same_images(
    case: BundleCase, trained: Trained, tmp_path: Path, batch: int
) -> None:
    model = trained[0] / "models" / "model.pt"
    path = export(ExportSettings(case.name, "torchscript", model, tmp_path / "x.ts"))
    given = case.network_input().repeat(3, *[1] * (case.network_input().ndim - 1))[:batch]
    images = torch.jit.load(path)(given).detach().numpy()
    np.testing.assert_allclose(images, plain_images(model, given), atol=1e-5)


def test_onnx_draws_the_same_images_in_any_batch(case: BundleCase, trained: Trained, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = trained[0] / "models" / "model.pt"
    path = export(ExportSettings(case.name, "onnx", model, tmp_path / "x.onnx"))
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [described] = session.get_inputs()
    assert described.name == "image" and described.shape[0] == "batch"
    given = case.network_input()
    for batch in (given[:1], given, given.repeat(3, *[1] * (given.ndim - 1))):
        [images] = session.run(["pred"], {"image": batch.numpy()})
        np.testing.assert_allclose(images, plain_images(model, batch), atol=1e-5)


def test_an_export_with_other_images_is_not_kept(
    case: BundleCase, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "difference", lambda *_: float("nan"))
    with pytest.raises(UserError, match=r"x.ts: not written, its images differ from PyTorch's by nan"):
        export(
            ExportSettings(case.name, "torchscript", trained[0] / "models" / "model.pt", tmp_path / "x.ts")
        )
    assert not list(tmp_path.iterdir())


def test_without_weights_nothing_is_exported(case: BundleCase, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model yet"):
        export(ExportSettings(case.name, "torchscript", tmp_path / "model.pt"))
