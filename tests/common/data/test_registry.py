import copy
import json
import re

import pytest

from common.data.layouts import LAYOUTS
from common.data.registry import find_dataset, load_registry, validate
from common.data.samples import ORIENTATIONS
from common.errors import UserError
from common.paths import repository_root


@pytest.fixture(scope="module")
def content():
    return json.loads((repository_root() / "datasets.json").read_text(encoding="utf-8"))


def test_shipped_registry_fits_its_schema():
    registry = load_registry()
    assert len(registry) >= 20
    assert {bundle for entry in registry.values() for bundle in entry.bundles} == {
        "pix2pix_covid", "patchgan_cardiac", "dcgan_covid", "lung_two_stage"
    }  # fmt: skip


COVID = ["medseg_100", "covid19_ct_seg", "mosmed", "covid_semiseg", "covid_lesion_collection", "covid_ct"]
OTHERS = ["mm_whs", "chd68", "image_chd", "acdc", "luna16", "lidc_idri"]


@pytest.mark.parametrize("name", [*COVID, *OTHERS])
def test_the_papers_sets_are_listed(name):
    assert load_registry()[name].landing_page.startswith("http")


def test_mask_conventions():
    registry = load_registry()
    assert registry["medseg_100"].mask.foreground == (1, 2, 3)
    assert registry["medseg_100"].mask.values[3] == "pleural effusion"
    assert registry["cncb_lesions"].mask.foreground == (2, 3)  # 1 is the lung, not a lesion
    assert registry["mm_whs"].mask.values[420] == "left atrium"
    assert registry["covid_semiseg"].mask.threshold == 128
    assert registry["covid_ct"].mask.kind == "none"


def test_every_rule_of_every_entry_is_usable():
    for entry in load_registry().values():
        assert entry.adapter == "pairs" or entry.adapter in LAYOUTS
        assert all(value in entry.mask.values for value in entry.mask.foreground or ())
        if entry.pairs:
            assert re.compile(entry.pairs.key).groups >= 1
            assert entry.pairs.orientation in ORIENTATIONS
            assert (entry.pairs.masks is None) == (entry.mask.kind == "none")
        for pattern, identity in entry.shared_patients:
            assert identity.format(*["7"] * re.compile(pattern).groups)


def test_sign_up_sets_list_no_files_and_overlaps_go_both_ways():
    registry = load_registry()
    for name, entry in registry.items():
        assert not (entry.sign_up and entry.files)
        assert all(name in registry[other].overlaps for other in entry.overlaps), name


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("medseg_100", "licence"), 3, "licence"),
        (("medseg_100", "landing_page"), "ftp://x", "landing_page"),
        (("medseg_100", "bundles"), ["pix2pix"], "bundles"),
        (("covid19_ct_seg", "files", 0, "sha256"), "abc", "sha256"),
        (("covid19_ct_seg", "files", 0, "name"), "../x.zip", "name"),
        (("covid19_ct_seg", "files", 0, "unpack_to"), "../x", "unpack_to"),
        (("mosmed", "files"), [{"url": "https://x.org/a", "name": "a", "sha256": None}], "files"),
        (("mosmed", "overlaps"), ["nowhere"], "nowhere"),
        (("mosmed", "colour"), "red", "colour"),
    ],
)
def test_schema_refuses(content, path, value, named):
    broken = copy.deepcopy(content)
    place = broken["datasets"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(UserError, match=named):
        validate(broken, "datasets.json")


def test_missing_field_is_named(content):
    broken = copy.deepcopy(content)
    del broken["datasets"]["acdc"]["mask"]
    with pytest.raises(UserError, match=r"acdc.*'mask' is a required property"):
        validate(broken, "datasets.json")


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="nearest known name is 'mosmed'"):
        find_dataset("MosMedData", load_registry())
