"""Anatomical chest phantoms: made CT volumes with label maps, the data every bundle falls back on."""

from __future__ import annotations

from common.data.phantoms.lesions import lesion_share
from common.data.phantoms.phantom import Phantom, make_phantom
from common.data.phantoms.writing import PhantomSettings, ensure_phantoms, write_phantoms

__all__ = ["Phantom", "PhantomSettings", "ensure_phantoms", "lesion_share", "make_phantom", "write_phantoms"]
