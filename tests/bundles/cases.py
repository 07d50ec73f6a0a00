"""The bundles that the shared tests run on."""

from __future__ import annotations

from tests.bundles.dcgan_covid.case import CASE as DCGAN
from tests.bundles.lung_two_stage.case import CASE as LUNG
from tests.bundles.patchgan_cardiac.case import CASE as PATCHGAN
from tests.bundles.pix2pix_covid.case import CASE as PIX2PIX

CASES = (PIX2PIX, PATCHGAN, DCGAN, LUNG)
SLOW = (LUNG,)  # has quick tests of its own stages
