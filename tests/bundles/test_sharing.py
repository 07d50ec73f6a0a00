"""From a zip on a server to runs, export and use in Python, without the repository."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from common.files import read_json
from common.tools.export import sample_inputs
from common.tools.package import build_one
from tests.bundles.case import BundleCase, override_words
from tests.bundles.cases import CASES
from tests.bundles.conftest import Trained
from tests.bundles.runs import Run, command, fingerprints, finished, forked, python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SHIPPING = [case for case in CASES if (case.root / "models" / "model.pt").is_file()]

# Says which `common` a run works with.
WHENCE = {"_target_": "importlib.import_module", "_requires_": "@_path_", "name": "common"}
USE = """
import sys
from pathlib import Path

import monai.bundle
import torch

folder, *names = sys.argv[1:]
for name in names:
    weights = torch.load(Path(folder, name, "models", "model.pt"), weights_only=True)
    for kind in ({"workflow_type": "inference"}, {}):
        network = monai.bundle.load(name, bundle_dir=folder, device="cpu", **kind)
        state = network.state_dict()
        assert set(state) == set(weights), name
        assert all(torch.equal(state[key], weights[key].to(state[key].dtype)) for key in weights), name
        print("LOADED", name, type(network).__module__)
    exported = Path(folder, name, "models", "model.ts")
    if exported.is_file():
        given = torch.load(Path(folder, name + ".given"), weights_only=True)
        torch.testing.assert_close(torch.jit.load(exported)(given), network.eval()(given))
        print("EXPORTED", name)
import common

print("FROM", common.__file__)
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves without a line for each request."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def downloads(
    tmp_path_factory: pytest.TempPathFactory, run_of: Callable[[BundleCase], Trained]
) -> Iterator[Callable[[BundleCase], Path]]:
    """The folder of downloads in which a bundle, trained and built, lies unpacked as MONAI unpacks it."""
    dist, folder = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("downloads")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(dist)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def download(case: BundleCase) -> Path:
        if not (folder / case.name).is_dir():
            archive = build_one(case.name, dist, run_of(case)[0] / "models")
            address = f"http://127.0.0.1:{server.server_address[1]}/{archive.name}"
            parts = ["download", "--name", case.name, "--url", address, "--bundle_dir", str(folder)]
            run = finished(command(parts, cwd=folder, installed=False))
            assert run.code == 0, run.err
        return folder

    yield download
    server.shutdown()


def run_there(folder: Path, run_id: str, config: str, beside: Path, **overrides: Any) -> Run:
    """A run in a download by its JSON, after a check that the download's own code is what runs."""
    overlay = beside / f"whence_{run_id}.yaml"
    say = "$print('FROM', @whence.__file__)"
    overlay.write_text(yaml.safe_dump({"whence": WHENCE, f"+{run_id}": [say]}))
    files = str([f"configs/{config}.json", str(overlay)])
    parts = ["run", run_id, "--config_file", files, *override_words(overrides)]
    run = forked(parts, beside / f"log_{run_id}", cwd=folder, installed=False)
    assert run.code == 0, run.err
    assert f"FROM {folder / 'common' / '__init__.py'}" in run.out.splitlines()
    return run


def used(folder: Path, names: Sequence[str], elsewhere: Path) -> list[str]:
    """Loads the downloads in one process that starts in another folder; what it printed."""
    interpreter, environment = python(installed=False)
    line = [*interpreter, "-W", "ignore", "-c", USE, str(folder), *names]
    done = subprocess.run(line, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.split(" ")[0] in ("LOADED", "EXPORTED", "FROM")]


def test_the_same_weights_give_the_same_bytes(case: BundleCase, trained: Trained, tmp_path: Path) -> None:
    hashes = [
        hashlib.sha256(build_one(case.name, tmp_path / part, trained[0] / "models").read_bytes()).hexdigest()
        for part in ("first", "second")
    ]
    assert hashes[0] == hashes[1]


def test_a_download_alone_trains_evaluates_infers_and_exports(
    case: BundleCase, data: Path, tmp_path: Path, downloads: Callable[[BundleCase], Path]
) -> None:
    folder = downloads(case) / case.name
    two_iterations = case.settings(data, tmp_path / "run", batch_size=10, val_interval=1)
    run_there(folder, "training", "train", tmp_path, **two_iterations)
    assert len((tmp_path / "run" / "logs" / "losses.csv").read_text().splitlines()) == 3
    assert (tmp_path / "run" / "models" / "model.pt").is_file()
    beside = {**case.beside(data), **case.evaluating(data)}
    run_there(folder, "evaluating", case.evaluate, tmp_path, dataset_dir=data, **beside)
    assert len(list(folder.glob("**/eval/metrics.json"))) == 1
    given = {**case.inference(data), "output_dir": tmp_path / "out"}
    run_there(folder, "inference", "inference", tmp_path, **given)
    assert list((tmp_path / "out").iterdir())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = ["--bundle_root", str(folder), "--config_file", str(folder / "configs" / "inference.json")]
    metadata = ["--meta_file", str(folder / "configs" / "metadata.json"), "--n", "2"]
    metadata += ["--ckpt_path", "none"]  # the network of the metadata, not the tiny one that was trained
    for parts in (["ckpt_export", *files], ["verify_net_in_out", "network_def", *files, *metadata]):
        run = forked(parts, tmp_path / f"log_{parts[0]}", cwd=elsewhere, installed=False)
        assert run.code == 0, run.err
    by_yaml = ["run", "inference", "--config_file", str(folder / "configs" / "inference.yaml")]
    by_yaml += override_words({**given, "output_dir": tmp_path / "by_yaml"})
    run = forked(by_yaml, tmp_path / "log_yaml", cwd=elsewhere, installed=False)
    assert run.code == 0, run.err
    assert list(fingerprints(tmp_path / "by_yaml").values()) == list(fingerprints(tmp_path / "out").values())
    torch.save(case.network_input(), folder.with_name(f"{case.name}.given"))
    lines = used(folder.parent, [case.name], elsewhere)
    assert lines[:3] == [*[f"LOADED {case.name} {case.network_module}"] * 2, f"EXPORTED {case.name}"]
    assert lines[3] == f"FROM {folder / 'common' / '__init__.py'}"


@pytest.mark.parametrize("case", SHIPPING, ids=lambda case: case.name)
def test_a_zip_with_shipped_weights_passes_the_zoos_checks(case: BundleCase, tmp_path: Path) -> None:
    """Shapes, TorchScript and loading, with the weights of the zip and what its metadata declare."""
    shutil.unpack_archive(build_one(case.name, tmp_path / "dist"), tmp_path)
    folder, elsewhere = tmp_path / case.name, tmp_path / "elsewhere"
    elsewhere.mkdir()
    shipped = {path.name: path.read_bytes() for path in (case.root / "models").iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in (folder / "models").iterdir()} == shipped
    files = ["--bundle_root", str(folder), "--config_file", str(folder / "configs" / "inference.json")]
    metadata = ["--meta_file", str(folder / "configs" / "metadata.json"), "--n", "2"]
    for parts in (["ckpt_export", *files], ["verify_net_in_out", "network_def", *files, *metadata]):
        run = forked(parts, tmp_path / f"log_{parts[0]}", cwd=elsewhere, installed=False)
        assert run.code == 0, run.err
    info = read_json(folder / "models" / "model.json")
    [given] = sample_inputs(read_json(folder / "configs" / "metadata.json"), info, 2)
    torch.save(given, folder.with_name(f"{case.name}.given"))
    lines = used(tmp_path, [case.name], elsewhere)
    assert lines[2] == f"EXPORTED {case.name}"


@pytest.mark.parametrize("order", [1, -1])
def test_all_bundles_live_in_one_process(
    order: int, tmp_path: Path, downloads: Callable[[BundleCase], Path]
) -> None:
    cases = CASES[::order]
    names = [case.name for case in cases]
    folder, *_ = [downloads(case) for case in cases]
    lines = used(folder, names, tmp_path)
    loaded = [line.split()[1:] for line in lines if line.startswith("LOADED")]
    assert loaded == [[case.name, case.network_module] for case in cases for _ in range(2)]
    assert lines[-1] == f"FROM {folder / names[0] / 'common' / '__init__.py'}"
