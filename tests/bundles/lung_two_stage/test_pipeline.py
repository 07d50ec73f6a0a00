"""The pipeline: its overlays, what it skips and runs again; and as shipped on phantoms."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from bundles.lung_two_stage import pipeline
from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.generation.select import GeneratorModel
from bundles.lung_two_stage.pipeline import Pipeline, Stage, config_keys, parse_stages
from common.data.intensity import to_network, to_unit, window_by_name
from common.errors import UserError
from common.files import read_json
from common.inference.checkpoint import model_info, network_for
from common.metrics.features import extract, extractor_by_name
from common.metrics.fid import fid
from tests.bundles.runs import ROOT, Run, command, finished

CONFIGS = ROOT / "bundles" / "lung_two_stage" / "configs"
LUNG = window_by_name("lung")
OVERLAYS = {"alone": (), "equal_time": ("equal_time",), "parts": ("equal_time", "parts")}
OF_SCANS = {"hu_offset", "patient_pattern"}


def slow(test: Any) -> Any:
    return pytest.mark.slow(pytest.mark.timeout(3000)(test))


@cache
def parsed(*names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in names])
    return parser


def pipelines(overlay: str, work_dir: Path, **settings: object) -> dict[str, Pipeline]:
    """The pipeline, and that of the baselines, with an overlay."""
    parser = ConfigParser(dict(parsed("pipeline", *OVERLAYS[overlay]).get()))
    parser.update({"work_dir": str(work_dir), **settings})
    return {name: parser.get_parsed_content(name) for name in ("chain", "baseline_chain")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_stages_are_given_settings_that_their_configs_have(overlay: str, tmp_path: Path) -> None:
    for stage in pipelines(overlay, tmp_path)["baseline_chain"].stages:
        parser = parsed(*stage.config)
        assert [key for key in stage.settings if key.replace("#", "::") not in parser] == [], stage.name


def test_parts_bring_back_what_needs_real_slices_with_nodules(tmp_path: Path) -> None:
    without, whole = (pipelines(overlay, tmp_path)["chain"] for overlay in ("equal_time", "parts"))
    names = [stage.name for stage in whole.stages]
    assert set(names) - {stage.name for stage in without.stages} == {"diagnosis"}
    assert names.index("enhancement") < names.index("diagnosis") < names.index("evaluation")
    settings = {stage.name: stage.settings for stage in whole.stages}
    assert settings["extraction"]["part_mm"] == settings["extraction"]["image_size"]  # pixels of 1 mm
    assert settings["generation"]["real_nodules"] == 0
    assert settings["healthy_slices"]["cpu_minutes"] == settings["enhancer"]["cpu_minutes"] == 0.75
    assert settings["evaluation"]["downstream_tasks"] == ["nodule", "segmentation"]


def test_what_overlays_leave_to_the_enhancers_config_is_not_set(tmp_path: Path) -> None:
    for overlay in OVERLAYS:
        chain = pipelines(overlay, tmp_path)["chain"]
        (enhancer,) = (stage for stage in chain.stages if stage.name == "enhancer")
        assert not {key for key in enhancer.settings if key.startswith(("lambda", "learning_rate"))}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(
    "given", [{}, {"hu_offset": -1024, "patient_pattern": r"^(P\d+)"}], ids=["", "given"]
)
def test_offset_and_pattern_go_to_all_that_read_scans(
    overlay: str, given: dict[str, Any], tmp_path: Path
) -> None:
    readers = set()
    for chain in pipelines(overlay, tmp_path, **given).values():
        for stage in chain.stages:
            reads = set().union(*(config_keys(path) for path in stage.files(CONFIGS))) >= OF_SCANS
            readers |= {stage.name} if reads else set()
            told = {key: value for key, value in chain.overrides(stage).items() if key in OF_SCANS}
            assert told == (given if reads else {}), stage.name
    assert {"segmentation", "table_1", "extraction"} <= readers


def test_stages_that_make_no_pipeline_are_one_line() -> None:
    with pytest.raises(UserError, match="stage a: there is no stage b before it"):
        parse_stages({"a": {"config": "extract", "after": "b"}, "b": {"config": "extract"}})
    with pytest.raises(UserError, match="stage b: another one writes to a too"):
        parse_stages({"a": {"config": "extract"}, "b": {"config": "extract", "writes": "a"}})
    with pytest.raises(UserError, match=r"extrakt\.yaml: stage a needs this config"):
        parse_stages({"a": {"config": "extrakt"}})[0].files(CONFIGS)
    with pytest.raises(UserError, match="stage a: there is no budget long; name one of short"):
        parse_stages({"a": {"config": "extract", "settings": "long"}}, {"short": {}})
    (left,) = parse_stages({"a": None, "b": {"config": "extract", "after": "a"}})
    assert left.after == []


class Commands:
    """Stands for the stages' processes: each writes a file; the next one may fail after that."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fails = False

    def __call__(self, line: Sequence[str], log: Path, _inherited: Sequence[int]) -> int:
        folder = Path(line[line.index("--output_dir") + 1])
        self.ran.append(folder.name)
        folder.mkdir(exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.txt").touch()
        log.write_text("error: no luck\n" if self.fails else "")
        return int(self.fails)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    stub = Commands()
    monkeypatch.setattr(pipeline, "run_logged", stub)
    return stub


def three(work: Path, **settings: object) -> Pipeline:
    """Two stages after a first one; ``settings`` are the second's."""
    stages: dict[str, dict[str, Any]] = {name: {"config": "train_nodules"} for name in "abc"}
    stages["b"] |= {"after": "a", "settings": settings}
    stages["c"] |= {"after": "b"}
    return Pipeline(stages, work)


def test_only_what_is_not_current_runs(commands: Commands, tmp_path: Path) -> None:
    assert three(tmp_path).run() == ["a", "b", "c"] and three(tmp_path).run() == []
    assert three(tmp_path, seed=1).run() == ["b", "c"]  # the second's settings, the third's input
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["0.txt"]  # nothing of the earlier run
    (tmp_path / "c" / "0.txt").unlink()
    assert three(tmp_path, seed=1).run() == ["c"]
    record = read_json(tmp_path / "pipeline" / "b.json")
    assert set(record) == {"fingerprint", "written", "seconds"} and record["written"]


def test_a_stage_that_failed_goes_on_and_one_of_other_settings_starts_again(
    commands: Commands, tmp_path: Path
) -> None:
    commands.fails = True
    with pytest.raises(UserError, match=r"stage a: no luck \(log: .*a\.log\)"):
        three(tmp_path).run()
    commands.fails = False
    assert three(tmp_path).run() == ["a", "b", "c"]
    assert len(list((tmp_path / "a").iterdir())) == 2  # it went on
    commands.fails = True
    with pytest.raises(UserError, match="stage b"):
        three(tmp_path, seed=1).run()
    commands.fails = False
    assert three(tmp_path, seed=2).run() == ["b", "c"]
    assert len(list((tmp_path / "b").iterdir())) == 1
    assert commands.ran == list("aabcbbc")


def test_a_folder_of_something_else_is_never_removed(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="a: was not written by the pipeline; move it away"):
        three(tmp_path).run()
    assert commands.ran == []
    shutil.rmtree(tmp_path / "a")
    assert three(tmp_path).run() == ["a", "b", "c"]


def test_a_stage_gets_its_folder_resumes_and_the_work_folder_is_filled_in(tmp_path: Path) -> None:
    stage = Stage("x", ["train_nodules"], "training", "y/x", settings={"bank_dir": {"a": "{work_dir}/z"}})
    overrides = stage.overrides(CONFIGS, tmp_path, {"seed": 3, "device": None, "dataset_dir": "scans"})
    assert overrides == {
        **{"work_dir": tmp_path, "output_dir": tmp_path / "y/x", "resume": "true", "seed": 3},
        "bank_dir": {"a": f"{tmp_path}/z"},
    }


def run_chain(work: Path) -> Run:
    parts = ["run", "pipeline", "--config_file", str(CONFIGS / "pipeline.yaml"), "--work_dir", str(work)]
    return finished(command(parts, OMP_NUM_THREADS="1"), timeout=2900)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the chain has written."""
    folder = tmp_path_factory.mktemp("chain") / "work"
    run = run_chain(folder)
    assert run.code == 0, run.err
    return folder


@slow
def test_every_stage_is_current_afterwards(work: Path) -> None:
    run = run_chain(work)
    lines = [line for line in (run.out + run.err).splitlines() if "stage" in line and " of " in line]
    assert run.code == 0 and lines and all(line.endswith(": current") for line in lines), lines


@slow
def test_the_segmenter_beats_its_untrained_copy_and_the_empty_mask(work: Path) -> None:
    methods = read_json(work / "tables" / "segmentation" / "eval" / "metrics.json")["methods"]
    trained = methods["this method"]
    for name in ("untrained this method", "empty mask"):
        assert trained["dice"]["mean"] > 0.3 > 3 * methods[name]["dice"]["mean"]
        assert trained["sensitivity"]["mean"] > 0.3 > methods[name]["sensitivity"]["mean"]
        assert trained["cpm"]["mean"] > methods[name]["cpm"]["mean"] + 0.2


def distance(real: Tensor, drawn: Tensor, features: str = "randvgg") -> float:
    """FID of images (N, 1, S, S)."""
    extractor = extractor_by_name(features)
    return fid(extract(extractor, real), extract(extractor, drawn))


def untrained_copy(ckpt_path: Path) -> nn.Module:
    torch.manual_seed(0)
    return network_for(ckpt_path, otherwise=nn.Identity())


def as_network(hu: np.ndarray, size: int) -> Tensor:
    """HU (N, H, W) -> (N, 1, size, size) in [-1, 1]."""
    images = torch.from_numpy(to_network(to_unit(hu, LUNG, is_hu=True)))[:, None]  # (N, 1, H, W)
    return nn.functional.interpolate(images, size, mode="area")


@slow
@pytest.mark.parametrize("layer", ["nodules", "healthy_slices"])
def test_generators_beat_their_untrained_copies_and_the_mean_image(work: Path, layer: str) -> None:
    path = work / layer / "models" / "model.pt"
    trained = GeneratorModel.load(path, "the chain")
    plain = GeneratorModel(untrained_copy(path), model_info(path))
    kind = NoduleBank if layer == "nodules" else SliceBank
    bank = kind.load(work / "extraction" / layer)
    drawn = torch.from_numpy(trained.draw(len(bank), 0).images[:, :1])
    real = as_network(bank.hu, drawn.shape[-1])
    mean = real.mean(0, keepdim=True).expand_as(real)
    learned = distance(real, drawn)
    assert learned < distance(real, torch.from_numpy(plain.draw(len(bank), 0).images[:, :1]))
    assert learned < distance(real, mean)


@slow
def test_the_enhancer_changes_composites_and_keeps_the_nodules(work: Path) -> None:
    """It starts as the identity: its untrained copy leaves composites as they are.

    The pipeline's 160 iterations change composites by some 15 HU, nodules hardly at all, and leave the
    distance to real slices about where it was: 13.7, 14.4 and 12.5 against 14.5, 14.5 and 12.4 in three runs.
    """
    facts = model_info(work / "enhancer" / "models" / "model.pt")["metrics"]
    before, after = (stacked(work / name, 40) for name in ("composites", "enhanced"))
    others = SliceBank.load(work / "extraction" / "others")
    real = as_network(others.hu, before.shape[-1])
    assert distance(real, after, "gridvgg") < 1.05 * distance(real, before, "gridvgg")
    assert float((after - before).abs().mean()) * LUNG.width / 2 > 5  # HU
    assert facts["lesion_faithfulness"] > 0.97 and facts["dice"] > 0.9 * facts["before_dice"] > 0.09


def stacked(folder: Path, count: int) -> Tensor:
    """The first slices of a folder of shards, (N, 1, H, W) in [-1, 1]."""
    composites = Composites(folder)
    images = np.stack([composites[number].image for number in range(count)])
    return as_network(images, images.shape[-1])
