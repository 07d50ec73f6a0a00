"""The store: converts what is missing or has changed, and says where the rest lies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from common.data.store.conversion import image_slices, label_slices, read_source
from common.data.store.folder import converting_alone, usable_folder
from common.data.store.parallel import in_parallel
from common.data.store.records import Job, content_hash, make_record, read_record, stamps, stored_volume
from common.data.store.request import Geometry, Request
from common.data.store.space import check_space
from common.data.store.volume import StoredVolume
from common.errors import UserError
from common.files import atomic_write, write_json


class SliceStore:
    """A folder of converted files, all cut by one geometry.

    Args:
        folder: made where it is missing; several data sets and settings may share it.
        geometry: how the slices are cut.
        workers: threads that convert, each with one volume in memory; None for one a core.
    """

    def __init__(
        self, folder: str | os.PathLike[str], geometry: Geometry, workers: int | None = None
    ) -> None:
        self.folder, self.geometry = Path(folder), geometry
        self.workers = workers or len(os.sched_getaffinity(0))

    def convert(self, requests: Sequence[Request]) -> list[StoredVolume]:
        """The converted files, in the order of the requests.

        What was converted before is trusted where size and time of the source are as they were, or else its
        content; the rest is converted, on all cores, by one process at a time. Files that were converted
        before a bad one was met stay converted.

        Raises:
            UserError: a bad file, a full disk, a folder that cannot be written.
        """
        jobs = [Job(request, self.geometry) for request in requests]
        done = {job.name: self._trusted(job) for job in jobs}
        missing = {job.name: job for job in jobs if done[job.name] is None}
        if missing:
            done |= self._convert(list(missing.values()))
        return [volume for job in jobs if (volume := done[job.name]) is not None]

    def _convert(self, missing: list[Job]) -> dict[str, StoredVolume | None]:
        usable_folder(self.folder)
        with converting_alone(self.folder):
            # Another process may have converted them while this one waited.
            found = in_parallel(missing, self._unchanged, self.workers, "checking")
            rest = [job for job, volume in zip(missing, found, strict=True) if volume is None]
            check_space(self.folder, rest)
            made = iter(in_parallel(rest, self._converted, self.workers, "converting"))
            return {
                job.name: next(made) if volume is None else volume
                for job, volume in zip(missing, found, strict=True)
            }

    def _record_path(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def _known(self, job: Job) -> tuple[dict[str, Any], StoredVolume] | None:
        """The record and what it says, where the job was converted from whatever the source was then."""
        record = read_record(self._record_path(job))
        volume = None if record is None else stored_volume(record, job, self.folder)
        return None if record is None or volume is None else (record, volume)

    def _trusted(self, job: Job) -> StoredVolume | None:
        """The volume where size and time of the source are those on record."""
        known = self._known(job)
        return known[1] if known is not None and known[0]["parts"] == stamps(job.source) else None

    def _unchanged(self, job: Job) -> StoredVolume | None:
        """The volume where the source's content is that on record; brings its times up to date."""
        known, parts = self._known(job), stamps(job.source)
        if known is None or not parts:
            return None
        record, volume = known
        if record["parts"] != parts:
            if content_hash(job.source) != record["sha256"]:
                return None
            write_json(self._record_path(job), {**record, "parts": parts})
        return volume

    def _converted(self, job: Job) -> StoredVolume:
        """Converts one file: the array first, under a name of its content, then the record that names it."""
        parts, content = stamps(job.source), content_hash(job.source)
        request, path = job.request, job.source
        source = read_source(request, self.geometry)
        slices = (
            label_slices(source, self.geometry, path)
            if request.intensity is None or request.kind == "label"
            else image_slices(source, self.geometry, request.intensity, path)
        )
        array = f"{job.name}-{content[:8]}.npy"
        with atomic_write(self.folder / array) as temporary:
            np.save(temporary, slices.array)
        record = make_record(job, array, parts, content, source, slices)
        write_json(self._record_path(job), record)
        self._remove_others(job, array)
        volume = stored_volume(record, job, self.folder)
        if volume is None:
            raise UserError(f"{self.folder / array}: was changed while it was written; run again")
        return volume

    def _remove_others(self, job: Job, array: str) -> None:
        """Removes the arrays of the source's earlier content."""
        for path in self.folder.glob(f"{job.name}-????????.npy"):
            if path.name != array:
                with suppress(FileNotFoundError):
                    path.unlink()
