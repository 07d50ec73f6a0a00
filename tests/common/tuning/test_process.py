"""Commands of bundles, and their logs."""

from __future__ import annotations

import sys
from pathlib import Path

from common.tuning.process import bundle_command, run_logged


def test_command_names_configs_and_settings() -> None:
    one, two = Path("/a/train.yaml"), Path("/a/best.yaml")
    command = bundle_command("training", [one, two], {"n#k": "4"})
    tail = ["run", "training", "--config_file", "['/a/train.yaml', '/a/best.yaml']", "--n#k", "4"]
    assert command[command.index("run") :] == tail
    alone = bundle_command("evaluating", [one], {})
    assert alone[alone.index("run") :] == ["run", "evaluating", "--config_file", "/a/train.yaml"]


def test_output_is_appended_to_the_log_and_the_code_returned(tmp_path: Path) -> None:
    log = tmp_path / "new" / "run.log"
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert [run_logged([sys.executable, "-c", program], log) for _ in range(2)] == [3, 3]
    assert sorted(log.read_text().split()) == ["err", "err", "out", "out"]
