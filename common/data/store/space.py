"""Whether the disk has room for what is to be converted, before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from common.data.store.planes import planes_shape
from common.data.store.records import Job
from common.data.volume_files import is_volume
from common.data.volumes import volume_shape
from common.errors import UserError

# Kept free: records, and the file system's own tables.
RESERVE = 16e6


def check_space(folder: Path, jobs: Sequence[Job]) -> None:
    """Compares the arrays' size, which the sources' headers tell, with what is free.

    Raises:
        UserError: too little.
    """
    if not jobs:
        return
    needed, free = sum(map(array_bytes, jobs)) + RESERVE, shutil.disk_usage(folder).free
    if needed > free:
        files = f"{len(jobs)} file{'' if len(jobs) == 1 else 's'}"
        raise UserError(
            f"{folder}: converting {files} needs {needed / 1e6:.0f} MB but {free / 1e6:.0f} MB are free; "
            "free some space or choose another --store_dir"
        )


def array_bytes(job: Job) -> int:
    """Bytes of the job's array; 0 for a file that cannot be read, which converting it will say."""
    try:
        shape = volume_shape(job.source) if is_volume(job.source) else (1, 1, 1)
    except UserError:
        return 0
    slices = planes_shape(shape, job.geometry.axis)[0]
    return slices * job.geometry.size**2 * (1 if job.request.kind == "label" else 2)
