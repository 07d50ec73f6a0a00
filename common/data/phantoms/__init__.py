"""Anatomical chest phantoms: made CT volumes with label maps, the data every bundle falls back on."""
