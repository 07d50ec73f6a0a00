"""Makes a trust report: reads the sets, measures, writes page and JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from common.data.intensity import WINDOWS
from common.inference.checkpoint import model_info
from common.metrics.features import FeatureExtractor, extractor_by_name
from common.metrics.pretrained import inception_at_hand, inception_classifier
from common.paths import repository_root
from common.provenance import commit, fingerprint
from common.trust.faithfulness import faithfulness
from common.trust.fidelity import fidelity
from common.trust.gate import OPEN, Gate, check_list_name, check_release_folder, release, unflagged
from common.trust.gather_sets import (
    FAITHFULNESS,
    FIDELITY,
    PRIVACY,
    SEGMENTER_FACTOR,
    UTILITY,
    Options,
    gather,
    model_of,
)
from common.trust.image_sets import Sets
from common.trust.privacy import privacy
from common.trust.report import (
    Report,
    Section,
    examples_picture,
    page_path,
    set_facts,
    write_report,
)
from common.trust.utility import utility

T = TypeVar("T")
NO_CONDITIONS = (
    "Nothing to ask: the synthetic images have no conditions, or the real ones no labels. Give --condition "
    "if there are some."
)


class TrustReport:
    """Reads the sets, measures the sections and writes the report.

    Args:
        options: see `common.trust.gather_sets.Options`.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folders = [Path(place) / name for name in ("real", "heldout", "synthetic")]
        ...     for seed, folder in enumerate(folders):
        ...         folder.mkdir()
        ...         for number in range(4):
        ...             noise = np.random.default_rng([seed, number]).integers(0, 256, (16, 16), np.uint8)
        ...             Image.fromarray(noise).save(folder / f"{folder.name}{number}.png")
        ...     real, heldout, synthetic = folders
        ...     options = Options(
        ...         real,
        ...         Path(place) / "report.html",
        ...         heldout=heldout,
        ...         synthetic=synthetic,
        ...         sections=["fidelity"],
        ...         image_size=16,
        ...         resamples=10,
        ...     )
        ...     verdict = TrustReport(options).run()  # doctest: +ELLIPSIS
        fidelity: FID (gridvgg) is ...
        report in ...report.html
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.gate: Gate | None = None

    def run(self) -> str:
        """Writes the page, ``trust.json`` and the released copy if wanted; prints the statements.

        Returns:
            The release gate's verdict, see `common.trust.gate.Gate`; ``open`` if it was not asked for.
        Raises:
            UserError: bad input; nothing is written then.
        """
        options = self.options
        page_path(options.output)
        check_release_folder(options.release)
        model = model_of(options)
        extractor = self._on_device(extractor_by_name(options.extractor, options.extractor_weights))
        with tempfile.TemporaryDirectory(prefix="trust-") as drawn:
            sets = gather(options, model, Path(drawn))
            if options.release is not None:
                check_list_name(sets.synthetic)
            sections = self._measure(sets, extractor)
        report = self._report(sets, sections, model)
        path = write_report(options.output, report)
        for section in sections:
            print(f"{section.name}: {section.statement}")
        gate = self.gate
        if gate is not None:
            verdict = gate.verdict if gate.open else gate.verdict.upper()
            print(f"release gate {verdict}: {gate.reason}")
        print(f"report in {path}")
        if options.release is not None and gate is not None:
            self._release(sets, gate, options.release)
        return OPEN if gate is None else gate.verdict

    def _release(self, sets: Sets, gate: Gate, folder: Path) -> None:
        if not unflagged(sets, gate):
            problem = "every synthetic image, or a slice of its volume, is too near to a training image"
            print(f"nothing copied to {folder}: {problem}")
            return
        count = release(sets, gate, folder)
        print(f"{count} of {len(sets.synthetic)} synthetic images copied to {folder}")

    def _measure(self, sets: Sets, extractor: FeatureExtractor) -> list[Section]:
        """Measures the sections that were asked for."""
        options, seed, device = self.options, self.options.seed, self.device
        resamples, budget = options.resamples, options.segmenter_budget

        def measure_fidelity() -> Section:
            weights = inception_at_hand()  # nothing is downloaded for the inception score alone
            classifier = None if weights is None else self._on_device(inception_classifier(weights))
            return fidelity(sets, extractor, seed, resamples, classifier, device)

        def measure_faithfulness() -> Section:
            section = faithfulness(sets, seed, budget, resamples, device=device)
            return section or Section(FAITHFULNESS, "Faithfulness to the condition", NO_CONDITIONS)

        def measure_utility() -> Section:
            return utility(sets, seed, options.seeds, options.budget, resamples=resamples, device=device)

        def measure_privacy() -> Section:
            similarity = options.max_similarity
            section, self.gate = privacy(sets, extractor, seed, similarity, resamples, device)
            return section

        makers: dict[str, Callable[[], Section]] = {
            FIDELITY: measure_fidelity,
            FAITHFULNESS: measure_faithfulness,
            UTILITY: measure_utility,
            PRIVACY: measure_privacy,
        }
        chosen = [name for name in makers if name in options.sections]
        sections, progress = [], tqdm(chosen, desc="trust report", unit="section", disable=None)
        for name in progress:
            progress.set_postfix_str(name)
            sections.append(makers[name]())
        return sections

    def _report(self, sets: Sets, sections: list[Section], model: Path | None) -> Report:
        options, gate = self.options, self.gate
        state: dict[str, Any] | None = None
        if gate is not None:
            flagged = [sets.synthetic.names[index] for index in gate.flagged]
            state = {
                "verdict": gate.verdict,
                "open": gate.open,
                "reason": gate.reason,
                "threshold": gate.threshold,
                "flagged": flagged,
            }
        name = (options.bundle or options.synthetic or options.real).resolve().name
        named = {"real": sets.real, "heldout": sets.heldout, "synthetic": sets.synthetic}
        sources = self._sources()
        facts = {key: set_facts(each, sources[key], key == "synthetic") for key, each in named.items()}
        shown = [("real", sets.real), ("held-out real", sets.heldout), ("synthetic", sets.synthetic)]
        return Report(name, self._facts(sets, model), facts, sections, state, examples_picture(shown))

    def _facts(self, sets: Sets, model: Path | None) -> dict[str, str]:
        options = self.options
        if model is None:
            window = options.window or WINDOWS["lung"]
            facts = {"model": "not given: images of any generator"}
            facts["window"] = f"{window.lower:g} to {window.upper:g} HU"
        else:
            named = f"{model.name}, SHA-256 {fingerprint(model)}" if model.is_file() else "none: not needed"
            facts = {"model": named, "trained_epochs": str(model_info(model).get("epoch", "unknown"))}
        values = asdict(options.budget).items()
        budget = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values)
        return {
            "commit": commit(repository_root()),
            **facts,
            "image_size": f"{sets.real.images.shape[-1]} pixels",
            "extractor": options.extractor,
            "seed": str(options.seed),
            "intervals": f"over patients where they are known; {options.resamples} resamples",
            "trainings": f"{options.seeds} seeds; {budget}; "
            f"{SEGMENTER_FACTOR} times the iterations for faithfulness",
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

    def _on_device(self, network: T) -> T:
        """Moves an extractor or classifier to the device if it is a network."""
        return network.to(self.device) if isinstance(network, torch.nn.Module) else network
