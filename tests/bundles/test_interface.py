"""What MONAI asks of a bundle: metadata, network format, properties, export; and life in another folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.inference.models import network_for
from tests.bundles.pix2pix_covid.runs import (
    BUNDLE,
    CONFIGS,
    ROOT,
    TINY,
    Run,
    arguments,
    command,
    finished,
    forked,
)

METADATA = CONFIGS / "metadata.json"
SCHEMA = ROOT / "tests" / "data" / "meta_schema_20240725.json"
PROPERTIES = """
import sys
from monai.bundle import ConfigWorkflow

name, kind, run_id, *pairs = sys.argv[1:]
folder = "bundles/pix2pix_covid/configs/"
workflow = ConfigWorkflow(
    *(folder + file for file in (name + ".yaml", "metadata.json", "logging.conf")),
    workflow_type=kind,
    run_id=run_id,
    **dict(pair.split("=") for pair in pairs),
)
workflow.initialize()
print("MISSING", workflow.check_properties())
"""


def test_metadata_follows_the_schema(tmp_path: Path) -> None:
    schema = shutil.copy(SCHEMA, tmp_path / SCHEMA.name)
    parts = ["verify_metadata", "--meta_file", str(METADATA), "--filepath", str(schema)]
    run = forked(parts, tmp_path / "log")
    assert run.code == 0 and "metadata is verified with no error" in run.out + run.err, run.err


@pytest.mark.parametrize("config", ["inference", "evaluate", "train"])
def test_the_network_keeps_to_its_declared_format(tmp_path: Path, config: str) -> None:
    files = ["--meta_file", str(METADATA), "--config_file", str(CONFIGS / f"{config}.yaml")]
    run = forked(["verify_net_in_out", "network_def", *files, "--n", "2"], tmp_path / "log")
    assert run.code == 0 and "data shape of network is verified with no error" in run.out + run.err, run.err


@pytest.mark.parametrize(
    ("config", "kind", "run_id"),
    [
        ("train", "train", "training"),
        pytest.param("evaluate", "infer", "evaluating", marks=pytest.mark.slow),
        pytest.param("inference", "infer", "inference", marks=pytest.mark.slow),
    ],
)
def test_no_property_is_missing(pairs: Path, tmp_path: Path, config: str, kind: str, run_id: str) -> None:
    data = f"input_dir={pairs / 'masks'}" if config == "inference" else f"dataset_dir={pairs}"
    line = [sys.executable, "-c", PROPERTIES, config, kind, run_id, data, f"output_dir={tmp_path / 'run'}"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "MISSING []" in done.stdout.splitlines(), done.stderr


def test_export_gives_the_same_images(trained: tuple[Path, Run], tmp_path: Path) -> None:
    model = trained[0] / "models" / "model.pt"
    files = ["--config_file", str(CONFIGS / "inference.yaml"), "--meta_file", str(METADATA)]
    target = ["--ckpt_file", str(model), "--filepath", str(tmp_path / "model.ts"), "--ckpt_path", str(model)]
    run = forked(["ckpt_export", "network_def", *files, *target], tmp_path / "log")
    assert run.code == 0, run.err
    exported = torch.jit.load(tmp_path / "model.ts")
    plain = network_for(model, otherwise=torch.nn.Identity()).eval()
    plain.load_state_dict(torch.load(model, weights_only=True))
    mask = (torch.rand(2, 1, 32, 32) > 0.5).float()
    torch.testing.assert_close(exported(mask), plain(mask))


def test_the_plain_command_works_from_another_folder(pairs: Path, tmp_path: Path) -> None:
    """Absolute paths to the configs, nothing of the repository on the path; a relative output folder."""
    before = {path.name for path in BUNDLE.iterdir()}
    settings = {**TINY, "dataset_dir": pairs, "output_dir": "run"}
    run = finished(command(arguments("training", "train", **settings), cwd=tmp_path))
    assert run.code == 0, run.err
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert (tmp_path / "run" / "models" / "model.pt").is_file()
    assert {path.name for path in BUNDLE.iterdir()} == before


def test_run_is_an_alias_of_each_files_own_list(
    trained: tuple[Path, Run], pairs: Path, tmp_path: Path
) -> None:
    model = trained[0] / "models" / "model.pt"
    settings = {"ckpt_path": model, "input_dir": pairs / "masks", "output_dir": tmp_path / "out"}
    assert forked(arguments("run", "inference", **settings), tmp_path / "log").code == 0
    assert len(list((tmp_path / "out").iterdir())) == 8


@pytest.mark.slow
@pytest.mark.parametrize("script", ["prepare_data.py", "bench.py"])
def test_scripts_run_from_another_folder(tmp_path: Path, script: str) -> None:
    line = [sys.executable, str(ROOT / "scripts" / script), "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr
