"""What ``scripts/build_bundle.py`` does once its arguments are read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.errors import UserError
from common.files import read_json
from common.paths import repository_root
from common.sharing.archive import write_archive
from common.sharing.contents import bundle_contents
from common.sharing.hub import push
from common.sharing.listing import update_listing
from common.sharing.rules import violations
from common.sharing.weights import LISTED, copy_large, listed, parted, trained_models

ALL = "all"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """A build as asked for on the command line."""

    name: str  # of a bundle, or `ALL`
    output: Path
    models: Path | None = None  # default bundles/NAME/models
    url: str | None = None  # where others will find `output`
    push_to_hub: str | None = None  # OWNER/REPOSITORY


def build(settings: Settings) -> list[Path]:
    """Writes ``OUTPUT/NAME_vVERSION.zip`` of one or all bundles and lists them; the zips' paths.

    Raises:
        UserError: no such bundle, or one that the model zoo would not take.
    """
    names = bundle_names() if settings.name == ALL else [settings.name]
    if settings.name == ALL and (settings.models or settings.push_to_hub):
        option = "--models" if settings.models else "--push_to_hub"
        raise UserError(f"{option}: takes one bundle, not {ALL}; name it")
    url = settings.url.rstrip("/") if settings.url else None
    built = [
        build_one(name, settings.output, settings.models, url)
        for name in tqdm(names, desc="building", unit="bundle", disable=None)
    ]
    update_listing(settings.output, url)
    if settings.push_to_hub:
        logger.info(f"pushed: {push(settings.push_to_hub, settings.name, built[0])}")
    return built


def build_one(name: str, output: Path, models: Path | None = None, url: str | None = None) -> Path:
    """One bundle's zip; files that are too large for it go to ``OUTPUT/NAME_vVERSION/models``.

    Raises:
        UserError: no such bundle, or one that the model zoo would not take.
    """
    root = repository_root()
    bundle = root / "bundles" / name
    if name not in bundle_names():
        raise UserError(f"{bundle}: no bundle; there are {', '.join(bundle_names())}")
    against = violations(bundle)
    if against:
        more = f" (and {len(against) - 1} more)" if len(against) > 1 else ""
        raise UserError(f"{against[0]}{more}; the model zoo wants it")
    titled = f"{name}_v{read_json(bundle / 'configs' / 'metadata.json')['version']}"
    small, large = parted(trained_models(models or bundle / "models"))
    contents = bundle_contents(root, name, small)
    if large:
        contents[LISTED] = listed(large, f"{url}/{titled}" if url else None)
        copy_large(large, output / titled)
    write_archive(output / f"{titled}.zip", name, contents)
    return output / f"{titled}.zip"


def bundle_names() -> list[str]:
    """The bundles of the repository that can be used: those with ``configs/inference.yaml``."""
    return sorted(p.parents[1].name for p in repository_root().glob("bundles/*/configs/inference.yaml"))
