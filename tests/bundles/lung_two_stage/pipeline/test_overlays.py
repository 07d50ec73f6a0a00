"""The chain's overlays: every setting that they give a stage is one that its config has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from bundles.lung_two_stage.pipeline import Chain, Stage
from common.paths import repository_root

CONFIGS = repository_root() / "bundles" / "lung_two_stage" / "configs"
EQUAL, PARTS = ("equal_time",), ("equal_time", "parts")


OF_SCANS = ("hu_offset", "patient_pattern")


def reads_scans(stage: Stage) -> bool:
    parser = ConfigParser()
    parser.read_config([str(path) for path in stage.files(CONFIGS)])
    return all(key in parser for key in OF_SCANS)


def chains(overlays: Sequence[str], work_dir: Path, **settings: object) -> dict[str, Chain]:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in ("pipeline", *overlays)])
    parser.update({"work_dir": str(work_dir), **settings})
    return {name: parser.get_parsed_content(name) for name in ("chain", "baseline_chain")}


def unknown(stage: Stage) -> list[str]:
    """Settings that the stage's config, with its overlays, does not have."""
    parser = ConfigParser()
    parser.read_config([str(path) for path in stage.files(CONFIGS)])
    return [key for key in stage.settings if key.replace("#", "::") not in parser]


@pytest.mark.parametrize("overlays", [(), EQUAL, PARTS], ids=lambda names: "+".join(names) or "alone")
def test_stages_are_given_settings_that_their_configs_have(overlays: Sequence[str], tmp_path: Path) -> None:
    stages = chains(overlays, tmp_path)["baseline_chain"].stages
    assert {stage.name: unknown(stage) for stage in stages} == {stage.name: [] for stage in stages}


def test_parts_bring_back_what_needs_real_slices_with_nodules(tmp_path: Path) -> None:
    without, whole = (chains(overlays, tmp_path)["chain"] for overlays in (EQUAL, PARTS))
    names = [stage.name for stage in whole.stages]
    assert set(names) - {stage.name for stage in without.stages} == {"diagnosis"}
    assert names.index("enhancement") < names.index("diagnosis") < names.index("evaluation")
    settings = {stage.name: stage.settings for stage in whole.stages}
    assert settings["extraction"]["part_mm"] == settings["extraction"]["image_size"]  # pixels of 1 mm
    assert settings["generation"]["real_nodules"] == 0
    assert settings["healthy_slices"]["cpu_minutes"] == settings["enhancer"]["cpu_minutes"] == 0.75
    assert settings["evaluation"]["downstream_tasks"] == "['nodule','segmentation']"


@pytest.mark.parametrize("overlays", [(), EQUAL, PARTS], ids=lambda names: "+".join(names) or "alone")
def test_offset_and_pattern_go_to_all_that_read_scans(overlays: Sequence[str], tmp_path: Path) -> None:
    for given in ({}, {"hu_offset": -1024, "patient_pattern": r"^(P\d+)"}):
        for chain in chains(overlays, tmp_path, **given).values():
            told = {stage.name: stage.overrides(CONFIGS, chain.shared) for stage in chain.stages}
            readers = {stage.name for stage in chain.stages if reads_scans(stage)}
            assert {"segmentation", "table_1", "extraction"} <= readers
            for name, settings in told.items():
                expected = given if name in readers else {}
                assert {key: settings[key] for key in OF_SCANS if key in settings} == expected, name
