"""The release gate: may these synthetic images be shared?

Patients are the unit, because images of one patient are not independent. An image that is outstandingly near
to one patient (see `common.trust.near_copies`) is a hit. A copy hits the training patient that it was made
of; other images that resemble a real patient hit training and held-out patients in proportion to their
numbers. So the gate tests whether the patients that were hit are training patients more often than expected
by chance, and whether there are more of them than real images of other patients would hit.

`release` copies the images that the gate does not flag.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.stats import betabinom, hypergeom, nchypergeom_wallenius
from torch import Tensor

from common.data.layouts import MASK_FOLDERS
from common.data.samples import stem
from common.data.volume_io import source_parts
from common.errors import UserError
from common.files import replaced_folder, visible_files, write_json
from common.rng import make_rng
from common.trust.image_sets import IMAGE_FOLDER, ImageSet, Sets
from common.trust.near_copies import Copies
from common.trust.readers import ARRAY_SUFFIX, SHARD_SUFFIX, shard_samples

OPEN, CLOSED, UNDECIDED = "open", "closed", "undecided"
SIGNIFICANT = 0.01
NEARER = 4
"""An image is certainly a copy if its 1 - similarity to a training patient is this many times smaller than
any real image's to another patient: half the distance. The smallest of many distances shrinks slowly if
images differ in many ways, so other real images do not come that near by their number alone."""
FEWEST = 20
"""With fewer held-out patients the gate is undecided."""
COARSEST = 0.2
"""The gate is undecided where this share of copies could have gone unnoticed."""
DRAWS, SURE = 200, 0.9
"""Draws of copied images, and the share of draws in which the gate must have closed."""


@dataclass(frozen=True)
class Gate:
    """The gate's answer.

    Attributes:
        verdict: ``open``, ``closed`` or ``undecided``.
        threshold: the score above which an image is flagged; a similarity where that was given.
        flagged: indices of the synthetic images above it that are nearest to a training patient, the highest
            score first.
        reason: one sentence.
        similarities: each synthetic image's correlation with its nearest training image.
        nearest: indices of these training images.
        scores: see `common.trust.near_copies.Evidence`.
        p_value: of the test; NaN where the threshold was given.
        calibrated: whether the threshold comes from real images.
        noticed: the smallest share of copies that would have closed the gate; infinite for none, NaN where
            the threshold was given.
    """

    verdict: str
    threshold: float
    flagged: list[int]
    reason: str
    similarities: list[float] = field(default_factory=list)
    nearest: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    p_value: float = math.nan
    calibrated: bool = True
    noticed: float = math.nan

    @property
    def open(self) -> bool:
        """Whether the synthetic images may be released as they are."""
        return self.verdict == OPEN


@dataclass(frozen=True)
class Counts:
    """The numbers that the tests take.

    Attributes:
        images: synthetic ones.
        trained, heldout: patients of the pool.
        hit, hit_heldout: how many of them were hit.
        reference: patients whose images set the threshold.
        rank: one more than the number of these that exceed it.
        odds: images per training patient relative to images per held-out patient.

    Example:
        >>> counts = Counts(200, trained=30, heldout=25, hit=12, hit_heldout=0, reference=55, rank=2)
        >>> counts.critical, counts.p_value() < 0.01
        (8, True)
    """

    images: int
    trained: int
    heldout: int
    hit: int
    hit_heldout: int
    reference: int
    rank: int
    odds: float = 1.0

    def p_value(self, hit: int | None = None) -> float:
        """The p-value of both tests together (Bonferroni), as if ``hit`` training patients had been hit."""
        count = self.hit if hit is None else hit
        side = side_p_value(count, self.hit_heldout, self.trained, self.heldout, self.odds)
        return min(1.0, 2 * min(side, many_p_value(count, self.images, self.rank, self.reference)))

    @property
    def critical(self) -> int | None:
        """The smallest number of hit training patients that closes the gate; None if no number would."""
        most = min(self.trained, self.images)
        low, high = 0, most
        if not most or self.p_value(most) >= SIGNIFICANT:
            return None
        while high - low > 1:  # the p-value falls with every patient
            middle = (low + high) // 2
            low, high = (low, middle) if self.p_value(middle) < SIGNIFICANT else (middle, high)
        return high


def side_p_value(hit: int, hit_heldout: int, trained: int, heldout: int, odds: float = 1.0) -> float:
    """Returns the probability that ``hit`` or more of the hit patients are training patients by chance.

    For images that are no copies it does not matter which patients the model was trained on: among the
    patients that they hit, training patients follow a hypergeometric distribution (Fisher's exact test),
    however many images hit each of them. Patients with more images are hit more often: if training patients
    have more, the distribution is Wallenius' noncentral hypergeometric one.

    Args:
        odds: see `Counts`; values below 1 are taken for 1.

    Example:
        >>> round(side_p_value(hit=5, hit_heldout=0, trained=20, heldout=20), 4)
        0.0236
    """
    if odds <= 1:
        return float(hypergeom.sf(hit - 1, trained + heldout, trained, hit + hit_heldout))
    return float(nchypergeom_wallenius.sf(hit - 1, trained + heldout, trained, hit + hit_heldout, odds))


def many_p_value(hit: int, images: int, rank: int, reference: int) -> float:
    """Returns the probability that images of as many other patients hit as many training patients or more.

    Some real patients hit others too: the share above the r-th highest of m scores has the distribution
    Beta(r, m + 1 - r), whatever that of the scores is, so the count is beta-binomial (and not larger if the
    threshold lies between that score and the next higher one). If several images are of one patient, fewer
    patients are hit.

    Example:
        >>> round(many_p_value(hit=1, images=1, rank=1, reference=19), 6)  # the highest of twenty scores
        0.05
    """
    return float(betabinom.sf(hit - 1, images, rank, reference + 1 - rank))


def counts_of(copies: Copies) -> Counts:
    """Counts the patients that the synthetic images hit."""
    hit, hit_heldout = (
        len(copies.patients[copies.synthetic.images[near]].unique()) for near in copies.hits(copies.synthetic)
    )
    trained, heldout = int(copies.trained.sum()), int((~copies.trained).sum())
    images = int(copies.trained[copies.patients].sum())
    return Counts(
        len(copies.synthetic),
        trained,
        heldout,
        hit,
        hit_heldout,
        reference=len(copies.usual),
        rank=copies.rank,
        odds=(images / trained) / ((len(copies.patients) - images) / heldout),
    )


def smallest_noticed(copies: Copies, counts: Counts, seed: int = 0) -> float:
    """Finds the smallest share of copies that would have closed the gate nine times in ten.

    Copies of randomly drawn training images hit their patients as often as the planted copies of the kind
    that is found worst; as many held-out patients are hit as real images of other patients hit.

    Returns:
        A share of the synthetic images; infinite if no share would have closed it.
    """
    by_chance = round((counts.rank - 1) / counts.reference * counts.heldout)
    critical = replace(counts, hit_heldout=by_chance).critical
    sensitivity = min(copies.noticed().values())
    if critical is None:
        return math.inf
    random = make_rng(seed, "gate", "noticed")
    owners = copies.patients[copies.trained[copies.patients]].numpy()
    needed = []
    for _ in range(DRAWS):
        hit = np.resize(owners[random.permutation(len(owners))], counts.images)
        noticed = np.flatnonzero(random.random(counts.images) < sensitivity)
        firsts = np.sort(np.unique(hit[noticed], return_index=True)[1])  # each patient's first copy
        needed.append(noticed[firsts[critical - 1]] + 1 if len(firsts) >= critical else math.inf)
    return float(np.quantile(needed, SURE, method="higher")) / counts.images


def release_gate(
    copies: Copies,
    similar: Tensor,
    nearest: Sequence[int],
    max_similarity: float | None = None,
    seed: int = 0,
) -> Gate:
    """Decides whether the gate is open, closed or undecided.

    Without ``max_similarity`` the gate closes if more training patients are hit than expected by chance
    (p < 0.01), or if one image is certainly a copy, see `NEARER`. With it, the gate closes if any synthetic
    image is more similar to a training image.

    Args:
        similar: (N,) similarities of the synthetic images to their nearest training images.
        nearest: indices of these training images.
        max_similarity: in [-1, 1]; None calibrates the threshold on real images.
        seed: of the draws for the smallest share that would have been noticed.
    Raises:
        UserError: ``max_similarity`` is no correlation.

    Example: see `common.trust.privacy.privacy`.
    """
    evidence = copies.synthetic
    known = similar.tolist(), [int(index) for index in nearest], evidence.scores.tolist()
    if max_similarity is not None:
        if not -1 <= max_similarity <= 1:
            problem = "a correlation between -1 and 1, such as 0.95"
            raise UserError(f"max_similarity {max_similarity}: give {problem}")
        flagged = _ordered(similar, similar > max_similarity)
        reason = f"{_count_images(len(flagged))} more similar to a training image than the given"
        verdict = CLOSED if flagged else OPEN
        threshold = float(max_similarity)
        return Gate(verdict, threshold, flagged, f"{reason} {threshold:.3g}", *known, calibrated=False)
    flagged = _ordered(evidence.scores, copies.hits(evidence)[0])
    counts = counts_of(copies)
    p_value, noticed = counts.p_value(), smallest_noticed(copies, counts, seed)
    sure = int(certain_copies(copies).sum())
    verdict = _verdict(counts, p_value, sure, noticed)
    reason = _reason(verdict, counts, len(flagged), sure, p_value, noticed)
    return Gate(verdict, copies.threshold, flagged, reason, *known, p_value=p_value, noticed=noticed)


def _ordered(measure: Tensor, hits: Tensor) -> list[int]:
    """Indices of the hits, the highest measure first."""
    return [index for index in measure.argsort(descending=True, stable=True).tolist() if hits[index]]


def _count_images(count: int) -> str:
    number = "no" if not count else str(count)
    return f"{number} synthetic {'image is' if count < 2 else 'images are'}"


def certain_copies(copies: Copies) -> Tensor:
    """Finds the synthetic images (N,) bool that are copies whatever the statistics say, see `NEARER`."""
    evidence = copies.synthetic
    limit = 1 - (1 - float(copies.reference.whole.max())) / NEARER
    return copies.hits(evidence)[0] & (evidence.training >= evidence.whole) & (evidence.whole > limit)


def _verdict(counts: Counts, p_value: float, sure: int, noticed: float) -> str:
    if counts.heldout < FEWEST:
        return UNDECIDED
    if sure or p_value < SIGNIFICANT:
        return CLOSED
    return OPEN if noticed <= COARSEST else UNDECIDED


def _reason(verdict: str, counts: Counts, flagged: int, sure: int, p_value: float, noticed: float) -> str:
    text = (
        f"{flagged} of {counts.images} synthetic images {'is' if flagged == 1 else 'are'} outstandingly near "
        "to a training patient "
        f"({counts.hit} of {counts.trained} training patients, {counts.hit_heldout} of {counts.heldout} "
        f"held-out ones; p = {p_value:.2g})"
    )
    copied = "1 image is a copy" if sure == 1 else f"{sure} images are copies"
    if sure:
        text = f"{copied} (at less than half the distance of any real image to another patient); {text}"
    if verdict == CLOSED:
        return text
    if verdict == OPEN:
        return f"no evidence of copying above {100 * noticed:.3g} % of the images; {text}"
    if counts.heldout < FEWEST:
        few = "1 held-out patient is" if counts.heldout == 1 else f"{counts.heldout} held-out patients are"
        return f"{few} too few to tell, bring at least {FEWEST}; {text}"
    least = f"of less than {100 * noticed:.3g} %" if math.isfinite(noticed) else "of any share"
    return f"copies {least} of the images would not have been noticed; {text}"


MANIFEST = "released.json"


def release(sets: Sets, gate: Gate, output_dir: str | os.PathLike[str]) -> int:
    """Writes the images that the gate did not flag to a folder, atomically.

    Files are copied unchanged, with their labels and provenance JSON. Images that share a file are written
    one by one: a sample of a shard as its files, an image of a NumPy stack as ``.npy``. A volume stays whole,
    so one flagged slice leaves all of it out. ``released.json`` lists the released images, and those left out
    with their nearest training image and its similarity.

    Args:
        sets: as they were read; names are those of files in ``sets.synthetic.folder``.
        gate: of these sets.
        output_dir: absent, empty, or that of an earlier release.
    Returns:
        How many images were written.
    Raises:
        UserError: the folder holds other things, the disk is full, all images are flagged, or see
            `check_list_name`.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as place:
        ...     names = ["a.npy", "b.npy"]
        ...     for name in names:
        ...         np.save(f"{place}/{name}", np.zeros((8, 8), np.int16))
        ...     images = ImageSet(torch.zeros(2, 1, 8, 8), names, names, folder=place)
        ...     gate = Gate("closed", 0.9, [1], "b is a copy", [0.2, 0.95], [0, 0], [0.1, 2.0])  # flags b.npy
        ...     count = release(Sets(images, images, images), gate, f"{place}/cleared")
        ...     count, sorted(path.name for path in Path(place, "cleared").iterdir())
        (1, ['a.npy', 'released.json'])
    """
    source, kept = Path(sets.synthetic.folder), unflagged(sets, gate)
    if not kept:
        raise UserError(
            f"{source}: all {len(sets.synthetic)} images are near to training images; nothing was written"
        )
    check_list_name(sets.synthetic)
    parts: dict[str, list[str]] = defaultdict(list)  # to release, of each file
    for name in kept:
        parts[_file(name)].append(name.partition("#")[2])
    with replaced_folder(output_dir, MANIFEST) as folder:
        for file, part in parts.items():
            _write(source, file, part, folder)
        write_json(folder / MANIFEST, _manifest(sets, gate, set(kept)))
    return len(kept)


def check_release_folder(folder: Path | None) -> None:
    """Checks, before anything is measured, that the folder for released images holds no other files.

    Raises:
        UserError: it does.
    """
    if folder is None or not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise UserError(f"{folder}: holds other files; give --release a new folder")


def check_list_name(synthetic: ImageSet) -> None:
    """Checks that no image's provenance JSON has the name of the list of released images.

    Raises:
        UserError: one is.
    """
    source = Path(synthetic.folder)
    for file in map(_file, synthetic.names):
        if not _divisible(file) and source / MANIFEST in _record(source / file):
            raise UserError(
                f"{source / file}: its {MANIFEST} is called as the list of what is released; rename both"
            )


def unflagged(sets: Sets, gate: Gate) -> list[str]:
    """Lists the names of all synthetic images except flagged ones and other slices of their volumes."""
    names = sets.synthetic.names
    flagged = {names[index] for index in gate.flagged}
    lost = {_file(name) for name in flagged if not _divisible(_file(name))}
    return [name for name in names if name not in flagged and _file(name) not in lost]


def _write(source: Path, file: str, parts: Sequence[str], folder: Path) -> None:
    inner, keys = folder / PurePosixPath(file).with_suffix(""), set(parts)
    if file.endswith(SHARD_SUFFIX):
        inner.mkdir(parents=True)
        for key, files in shard_samples(source / file):
            for suffix, content in files.items() if key in keys else ():
                (inner / f"{key}.{suffix}").write_bytes(content)
    elif file.endswith(ARRAY_SUFFIX) and any(parts):
        inner.mkdir(parents=True)
        array = np.load(source / file, mmap_mode="r", allow_pickle=False)
        for index in parts:
            np.save(inner / f"{index}{ARRAY_SUFFIX}", array[int(index)])
    else:
        for path in (*source_parts(source / file), *_record(source / file), *_labels(source, file)):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _labels(source: Path, file: str) -> list[Path]:
    """Finds the label of an image in ``images/``, where the folder has one of equal name."""
    first, *rest = PurePosixPath(file).parts
    if first != IMAGE_FOLDER or not rest:
        return []
    name = stem(Path(file))
    folders = [source / folder for folder in MASK_FOLDERS if (source / folder).is_dir()]
    return [path for folder in folders for path in visible_files(folder) if stem(path) == name]


def _record(image: Path) -> list[Path]:
    """Returns the provenance JSON next to an image, if any, see `common.provenance`."""
    path = image.with_name(f"{stem(image)}.json")
    return [path] if path.is_file() else []


def _manifest(sets: Sets, gate: Gate, kept: set[str]) -> dict[str, object]:
    rows = [
        {
            "image": name,
            "nearest": sets.real.names[gate.nearest[index]],
            "similarity": round(gate.similarities[index], 4),
            "score": round(gate.scores[index], 2) if gate.scores else None,
            "why": "too similar" if index in gate.flagged else "another slice of its volume is",
        }
        for index, name in enumerate(sets.synthetic.names)
        if name not in kept
    ]
    return {
        "similarity": "correlation with the nearest training image, moved as it fits best",
        "score": "how much nearer than usual the nearest patient is, see common.trust.near_copies",
        "threshold": gate.threshold,
        "calibrated": gate.calibrated,
        "gate": gate.verdict,
        "released": [name for name in sets.synthetic.names if name in kept],
        "left_out": rows,
    }


def _file(name: str) -> str:
    return name.partition("#")[0]


def _divisible(file: str) -> bool:
    return file.endswith((SHARD_SUFFIX, ARRAY_SUFFIX))
