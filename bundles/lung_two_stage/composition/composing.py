"""A million composites: planned, rendered, written to shards. What the config and the script call."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Sequence
from contextlib import nullcontext

from tqdm import tqdm

from bundles.lung_two_stage.composition.planning import Account
from bundles.lung_two_stage.composition.settings import Settings
from bundles.lung_two_stage.composition.shards import MANIFEST, ShardSet
from bundles.lung_two_stage.composition.tar_file import TarWriter
from bundles.lung_two_stage.composition.working import renderer_of, write_shards
from bundles.lung_two_stage.composition.workplace import Description, alone_in, planned, shards_of
from common.errors import UserError
from common.handlers.progress import pace
from common.training import distributed

SAMPLED = 16
"""Composites rendered to know how large all will be."""


def compose(settings: Settings) -> None:
    """Makes the set of composites that ``settings`` ask for, or what is missing of it.

    Stopped at any point and called again it writes the same files. Of the processes of
    ``torch.distributed.run`` each takes a part of the shards.

    Raises:
        UserError: a source is not fit, the folder holds another set, or the disk has not enough space.
    """
    renderer_of.cache_clear()  # the sources may have changed since an earlier call
    distributed.start("cpu")
    try:
        with alone_in(settings) if distributed.is_main() else nullcontext():
            job = _prepared(settings) if distributed.is_main() else None
            description, missing = distributed.gather(job)[0]  # the others wait here for the plan
            shards = shards_of(settings, description)
            _render(settings, shards, missing)
            if shards.finish():  # whichever process ends last
                print(
                    f"{shards.count} composites in {len(shards)} shards: {shards.folder / MANIFEST}",
                    flush=True,
                )
    finally:
        distributed.stop()


def _prepared(settings: Settings) -> tuple[Description, list[int]]:
    """The plan, told; the shards to be written, which the disk has space for."""
    description = planned(settings)
    print(told(Account(**description["account"])), flush=True)
    shards = shards_of(settings, description)
    missing = shards.missing()
    check_space(settings, shards, missing)
    return description, missing


def told(account: Account) -> str:
    """One line: what is kept of how many combinations, and what could not be placed."""
    skipped = account.impossible()
    return (
        f"{account.kept} of {account.combinations} combinations kept, farthest from the lung's edge"
        f"{f'; skipped: {skipped}' if skipped else ''}"
    )


def check_space(settings: Settings, shards: ShardSet, missing: list[int]) -> None:
    """Prints what the missing shards will take on the disk.

    Raises:
        UserError: more than it has.
    """
    if not missing:
        return
    count = sum(len(shards.numbers(shard)) for shard in missing)
    needed, free = bytes_needed(settings, shards, missing), shutil.disk_usage(shards.folder).free
    height, width = renderer_of(settings).normals.hu.shape[1:]
    line = (
        f"{count} composites of {height} x {width} as {settings.file_format} in {len(missing)} shards take "
        f"{needed / 1e9:.3g} GB; {shards.folder} has {free / 1e9:.3g} GB free"
    )
    print(line, flush=True)
    if needed > free:
        raise UserError(f"{line}: lower --count, free some space, or choose another --output_dir")


def bytes_needed(settings: Settings, shards: ShardSet, chosen: Sequence[int]) -> float:
    """What the chosen shards will take, from a few composites spread over the whole set."""
    renderer, form = renderer_of(settings), settings.form
    numbers = range(0, shards.count, -(-shards.count // SAMPLED))
    tar = TarWriter(io.BytesIO())
    for number in numbers:
        member = renderer.member(number, form)
        for suffix, content in member.files.items():
            tar.add(f"{member.key}.{suffix}", content)
    count = sum(len(shards.numbers(shard)) for shard in chosen)
    return count * tar.size / len(numbers) + len(chosen) * tarfile.RECORDSIZE  # the end of each archive


def _render(settings: Settings, shards: ShardSet, missing: list[int]) -> None:
    """This process's part of the missing shards, with a bar."""
    rank, ranks = distributed.rank(), distributed.ranks()
    mine = missing[rank::ranks]
    total = sum(len(shards.numbers(shard)) for shard in mine)
    part = f"composing, process {rank + 1} of {ranks}" if ranks > 1 else "composing"
    with tqdm(
        total=total, desc=part, unit="image", disable=not distributed.is_main() or not mine, **pace()
    ) as bar:
        write_shards(settings, shards, mine, bar.update)
