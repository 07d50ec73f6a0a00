"""Weights to ship: a model in half precision, the facts beside it, and its section of the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.data.patients import SPLITS_FILE
from common.errors import UserError
from common.files import atomic_write, read_json, write_json
from common.inference.checkpoint import model_info, network_for, read_weights
from common.metrics.evaluate import format_interval, format_number
from common.paths import METADATA, bundle_root, repository_root
from common.provenance import commit
from common.rng import preserved_rng
from common.tools.export import difference, sample_inputs
from common.tools.package import LARGEST, shared_bytes
from common.training.checkpoint import read_state, save_tensors

HAND_WRITTEN = "<!-- below: written by hand, kept -->"
REMEMBERED = ("data", "terms", "command", "commit")
STEPS = 255
"""Half precision may change images by one step of 8 bits at most."""


@dataclass(frozen=True)
class ShipSettings:
    """What to ship, as requested on the command line.

    Attributes:
        bundle: its name.
        run: the training's ``output_dir``.
        name: of the shipped file: ``model`` for the bundle's main network.
        network: take the last weights of this network from the resume file, of its moving average if there is
            one; None for the best model.
        data, terms, command, commit: for the card; None for those that the card has already.
        trust: the ``trust.json`` of a report on images that the model drew.
        output: folder; None for the bundle's ``models``.
    """

    bundle: str
    run: Path
    name: str = "model"
    network: str | None = None
    data: str | None = None
    terms: str | None = None
    command: str | None = None
    commit: str | None = None
    trust: Path | None = None
    output: Path | None = None


def ship(settings: ShipSettings) -> Path:
    """Writes ``NAME.pt``, ``NAME.json`` and the section of NAME in ``README.md``; returns the weights' path.

    Raises:
        UserError: no trained model, weights that half precision changes or that are too large, a closed
            release gate, or no word about data, terms and command.
    """
    root = Path(bundle_root(settings.bundle))
    folder = settings.output or root / "models"
    models, target = settings.run / "models", folder / f"{settings.name}.pt"
    source = models / target.name if (models / target.name).is_file() else models / "model.pt"
    facts = json.loads(shared_bytes(source.with_suffix(".json"))) if model_info(source) else {}
    if not facts.get("network"):
        raise UserError(f"{source}: no model with its .json; --run takes the output_dir of a training")
    resumed = read_state(models if source.stem == "model" else source.with_suffix("")) or {}
    state = read_weights(source)
    if settings.network is not None:
        state, facts = last_weights(resumed, settings.network, models), _of_last(facts, resumed)
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    metadata = read_json(root / METADATA)
    is_main = settings.name == "model" or "layer" in facts
    given = sample_inputs(metadata, facts, 2) if is_main else _images(facts)
    _check_rounding(network_for(source, nn.Identity()), state, half, given, source)
    verdict = _verdict(settings.trust)
    facts["card"] = _card_texts(settings, model_info(target).get("card", {}))
    with atomic_write(target) as temporary:
        save_tensors(half, temporary)
        if temporary.stat().st_size > LARGEST:
            raise UserError(f"{target}: {temporary.stat().st_size / 1e6:.0f} MB; the model zoo takes 25")
    write_json(target.with_suffix(".json"), facts)
    metrics = settings.run / "eval" / "metrics.json"
    minutes = resumed.get("handlers", {}).get("budget", {}).get("cpu_seconds", 0) / 60
    text = section(target.name, facts, minutes, read_json(metrics) if metrics.is_file() else {}, verdict)
    write_section(folder / "README.md", settings.bundle, target.name, text)
    return target


def last_weights(resumed: Mapping[str, Any], network: str, folder: Path) -> dict[str, Tensor]:
    """Returns the weights in a resume file's content: the moving average's if there is one.

    Raises:
        UserError: there is no resume file, or no such network in it.
    """
    networks = resumed.get("networks", {})
    if network not in networks:
        raise UserError(f"{folder}: no resume file with a network {network!r}; it has {', '.join(networks)}")
    return dict(networks.get(f"{network}_ema", networks[network]))


def _of_last(facts: Mapping[str, Any], resumed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts without the best model's metrics, which are not those of the last weights."""
    kept = {name: value for name, value in facts.items() if name not in ("score", "metrics")}
    return kept | {name: resumed[name] for name in ("iteration", "epoch")}


def _images(facts: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Draws inputs for a network that takes images: (2, 1, S, S) in [-1, 1]."""
    size = facts.get("image_size", 64)
    height, width = size if isinstance(size, list) else (size, size)
    return (torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


def _check_rounding(
    network: nn.Module,
    state: Mapping[str, Tensor],
    half: Mapping[str, Tensor],
    given: tuple[Tensor, ...],
    source: Path,
) -> None:
    """Raises if half precision changes what a network makes of ``given`` by more than a step of 8 bits."""
    network.load_state_dict(state)
    with preserved_rng(0), torch.inference_mode():
        before = network.eval()(*given)
    network.load_state_dict(half)
    with preserved_rng(0):
        error = difference(network, lambda *_: before, given)
    most = max(2.0, float(before.max() - before.min())) / STEPS  # images are of [-1, 1], logits of any range
    if not error <= most:
        raise UserError(f"{source}: half precision changes its images by {error:.2g}, more than {most:.2g}")


def _verdict(trust: Path | None) -> str:
    """Returns what the card says about the release gate.

    Raises:
        UserError: the gate is closed.
    """
    gate = None if trust is None else read_json(trust).get("gate")
    if gate is None:
        return "not run"
    if gate["verdict"] == "closed":
        raise UserError(f"{trust}: the release gate is closed ({gate['reason']}); these weights do not ship")
    return f"release gate **{gate['verdict']}**: {gate['reason']}"


def _card_texts(settings: ShipSettings, before: Mapping[str, str]) -> dict[str, str]:
    texts = {name: getattr(settings, name) or before.get(name) for name in REMEMBERED}
    texts["commit"] = texts["commit"] or commit(repository_root())
    missing = next((name for name, value in texts.items() if not value), None)
    if missing:
        raise UserError(f"--{missing}: the model card needs it; give it once, later calls remember it")
    return {name: str(value) for name, value in texts.items()}


def section(
    file: str, facts: Mapping[str, Any], minutes: float, metrics: Mapping[str, Any], verdict: str
) -> str:
    """Returns the part of a model card that follows from the files, as Markdown without its heading.

    Args:
        file: name of the weights.
        facts: the JSON beside them.
        minutes: CPU minutes of the training; 0 if unknown.
        metrics: the content of ``eval/metrics.json``; empty for none.
        verdict: of the trust report.
    """
    texts, slices = facts["card"], facts.get("slices", {})
    counts = [
        f"{n} for {part}" + (f" ({slices[part]} slices)" if part in slices else "")
        for part, n in facts.get("patients", {}).items()
    ]
    by_table = facts.get("split", {}).get("rule") == SPLITS_FILE
    unknown = "; split by a table: in other copies of the data they cannot be told apart" * by_table
    budget = f"{minutes:.0f} CPU minutes, " if minutes else ""
    rows = {
        "Data": texts["data"],
        "Terms": texts["terms"],
        "Patients": (", ".join(counts) or "none") + unknown,
        "Network": f"`{facts['network']['target'].rpartition('.')[2]}`, weights in float16",
        "Budget": f"{budget}{facts.get('iteration', '?')} iterations, {facts.get('epoch', '?')} epochs",
        "Command": f"`{texts['command']}`, commit `{texts['commit']}`",
        "Trust report": verdict,
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *table, "", *_metrics(metrics)])


def _metrics(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["Not evaluated yet."]
    values: Mapping[str, Any] = metrics["metrics"]
    baselines = list(next(iter(values.values()))["baselines"])
    patients = max((value.get("patients") or 0 for value in values.values()), default=0)
    titles = [name.replace("_", " ") for name in baselines]
    lines = [
        f"Split `{metrics.get('split', 'test')}`, {patients} patients, extractor `{metrics['extractor']}`.",
        "",
    ]
    lines += [f"| metric | better | model | {' | '.join(titles)} |", f"|{'---|' * (3 + len(titles))}"]
    for name, value in values.items():
        beside = (format_number(value["baselines"][baseline]["mean"]) for baseline in baselines)
        lines.append(f"| `{name}` | {value['better']} | {format_interval(value)} | {' | '.join(beside)} |")
    return lines


def write_section(card: Path, bundle: str, file: str, text: str) -> None:
    """Writes the section of ``file`` into a model card; what was written there by hand stays."""
    before = card.read_text(encoding="utf-8") if card.is_file() else f"# Model card: {bundle}\n"
    heading = f"## `{file}`\n"
    head, present, rest = before.partition(heading)
    mine, following, others = rest.partition("\n## ")
    by_hand = mine.partition(HAND_WRITTEN)[2] if present else "\n"
    own = f"{heading}\n{text}\n\n{HAND_WRITTEN}{by_hand.rstrip()}\n"
    with atomic_write(card) as temporary:
        temporary.write_text(f"{head.rstrip()}\n\n{own}{following}{others}", encoding="utf-8")
