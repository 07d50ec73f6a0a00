"""Makes a trust report: reads the sets, measures, writes page and JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from common.data.intensity import WINDOWS
from common.errors import UserError
from common.inference.checkpoint import model_info
from common.metrics.features import FeatureExtractor, extractor_by_name
from common.metrics.inception_score import Classifier
from common.metrics.pretrained import inception_at_hand, inception_classifier
from common.paths import repository_root
from common.provenance import commit, fingerprint
from common.trust.faithfulness import faithfulness
from common.trust.fidelity import fidelity
from common.trust.figures import examples_picture
from common.trust.gate import OPEN, Gate
from common.trust.gather_sets import (
    FAITHFULNESS,
    FIDELITY,
    JUDGE,
    PRIVACY,
    UTILITY,
    Options,
    gather,
    model_of,
)
from common.trust.html_page import page_path, write_report
from common.trust.image_sets import Sets
from common.trust.privacy import privacy
from common.trust.release import MANIFEST, check_list_name, release, unflagged
from common.trust.results import GateState, Report, Section, set_facts
from common.trust.utility import utility

T = TypeVar("T")
NO_CONDITIONS = (
    "Nothing to ask: the synthetic images have no conditions, or the real ones no labels. Give --condition "
    "where there are some."
)


def check_release_folder(folder: Path | None) -> None:
    """Checks before anything is measured that the folder for released images holds no other files.

    Raises:
        UserError: it does.
    """
    if folder is None or not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise UserError(f"{folder}: holds other files; give --release a new folder")


class TrustReport:
    """Reads the sets, measures the sections and writes the report.

    Args:
        options: see `common.trust.gather_sets.Options`.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.gate: Gate | None = None

    def run(self) -> str:
        """Writes the page, ``trust.json`` and the released copy if wanted; prints the statements.

        Returns:
            The release gate's verdict, see `common.trust.gate.Gate`; ``open`` where it was not asked for.
        Raises:
            UserError: bad input; nothing is written then.
        """
        page_path(self.options.output)
        check_release_folder(self.options.release)
        model = model_of(self.options)
        extractor = self._extractor()
        with tempfile.TemporaryDirectory(prefix="trust-") as drawn:
            sets = gather(self.options, model, Path(drawn))
            if self.options.release is not None:
                check_list_name(sets.synthetic)
            sections = self._sections(sets, extractor)
        report = self._report(sets, sections, model)
        path = write_report(self.options.output, report)
        self._print(report, path)
        if self.options.release is not None and self.gate is not None:
            self._release(sets, self.gate, self.options.release)
        return OPEN if self.gate is None else self.gate.verdict

    def _release(self, sets: Sets, gate: Gate, folder: Path) -> None:
        if not unflagged(sets, gate):
            print(
                f"nothing copied to {folder}: every synthetic image, or a slice of its volume, is too near "
                "to a training image"
            )
            return
        count = release(sets, gate, folder)
        print(f"{count} of {len(sets.synthetic)} synthetic images copied to {folder}")

    def _sections(self, sets: Sets, extractor: FeatureExtractor) -> list[Section]:
        options = self.options
        makers: dict[str, Callable[[], Section]] = {
            FIDELITY: lambda: fidelity(
                sets, extractor, options.seed, options.resamples, self._classifier(), self.device
            ),
            FAITHFULNESS: lambda: self._faithfulness(sets),
            UTILITY: lambda: self._utility(sets),
            PRIVACY: lambda: self._privacy(sets, extractor),
        }
        wanted = [name for name in makers if name in options.sections]
        progress = tqdm(wanted, desc="trust report", unit="section", disable=None)
        sections = []
        for name in progress:
            progress.set_postfix_str(name)
            sections.append(makers[name]())
        return sections

    def _faithfulness(self, sets: Sets) -> Section:
        options = self.options
        found = faithfulness(sets, options.seed, options.judge, options.resamples, device=self.device)
        return found or Section(FAITHFULNESS, "Faithfulness to the condition", NO_CONDITIONS)

    def _utility(self, sets: Sets) -> Section:
        options = self.options
        return utility(
            sets,
            options.seed,
            options.seeds,
            options.budget,
            resamples=options.resamples,
            device=self.device,
        )

    def _privacy(self, sets: Sets, extractor: FeatureExtractor) -> Section:
        options = self.options
        section, self.gate = privacy(
            sets, extractor, options.seed, options.max_similarity, options.resamples, self.device
        )
        return section

    def _report(self, sets: Sets, sections: list[Section], model: Path | None) -> Report:
        gate = self.gate
        state = None
        if gate is not None:
            flagged = [sets.synthetic.names[place] for place in gate.flagged]
            state = GateState(gate.verdict, gate.reason, {"threshold": gate.threshold, "flagged": flagged})
        shown = [("real", sets.real), ("held-out real", sets.heldout), ("synthetic", sets.synthetic)]
        return Report(
            self._name(),
            self._facts(sets, model),
            set_facts(sets, self._sources()),
            sections,
            state,
            examples_picture(shown),
        )

    def _name(self) -> str:
        """The name of the bundle, or of the folder of synthetic images."""
        options = self.options
        named = options.bundle or options.synthetic or options.real
        return named.resolve().name

    def _model_facts(self, model: Path | None) -> dict[str, str]:
        if model is None:
            window = self.options.window or WINDOWS["lung"]
            return {
                "model": "not given: images of any generator",
                "window": f"{window.lower:g} to {window.upper:g} HU",
            }
        named = f"{model.name}, SHA-256 {fingerprint(model)}" if model.is_file() else "none: not needed"
        return {"model": named, "trained_epochs": str(model_info(model).get("epoch", "unknown"))}

    def _facts(self, sets: Sets, model: Path | None) -> dict[str, str]:
        options = self.options
        budget = ", ".join(
            f"{name.replace('_', ' ')} {value:g}" for name, value in asdict(options.budget).items()
        )
        return {
            "commit": commit(repository_root()),
            **self._model_facts(model),
            "image_size": f"{sets.real.images.shape[-1]} pixels",
            "extractor": options.extractor,
            "seed": str(options.seed),
            "intervals": f"over patients where they are known; {options.resamples} resamples",
            "trainings": f"{options.seeds} seeds; {budget}; {JUDGE} times the iterations for faithfulness",
        }

    def _sources(self) -> dict[str, str]:
        options = self.options
        real = options.real.name
        drawn = f"{options.generate} generated by the bundle, seed {options.seed}"
        return {
            "real": real if options.heldout else f"{real}, the training patients",
            "heldout": options.heldout.name if options.heldout else f"{real}, the other patients",
            "synthetic": drawn if options.generate or options.synthetic is None else options.synthetic.name,
        }

    def _print(self, report: Report, path: Path) -> None:
        for section in report.sections:
            print(f"{section.name}: {section.statement}")
        if report.gate is not None:
            verdict = report.gate.verdict
            print(f"release gate {verdict if verdict == OPEN else verdict.upper()}: {report.gate.reason}")
        print(f"report in {path}")

    def _extractor(self) -> FeatureExtractor:
        extractor = extractor_by_name(self.options.extractor, self.options.extractor_weights)
        return _to_device(extractor, self.device)

    def _classifier(self) -> Classifier | None:
        """Inception where its weights are at hand: nothing is downloaded for the score alone."""
        weights = inception_at_hand()
        return None if weights is None else _to_device(inception_classifier(weights), self.device)


def _to_device(network: T, device: torch.device) -> T:
    """The extractor or classifier, moved to the device where it is a network."""
    return network.to(device) if isinstance(network, torch.nn.Module) else network
