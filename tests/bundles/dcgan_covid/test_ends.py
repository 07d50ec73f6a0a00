from __future__ import annotations

import pytest

from bundles.dcgan_covid.ends import End, check_ends
from common.errors import UserError

NOTHING = End("to")


def test_names_for_people() -> None:
    assert End("from", seed=3).name == "seed 3 sample 0"
    assert End("to", image="a/b.png").name == "b.png"
    assert End("from", seed=3, sample=7).place == (3, 7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": 1, "image": "a.png"}, "--from_seed and --from_image: give one of the two"),
        ({"sample": 2}, "--from_sample belongs to --from_seed"),
        ({"seed": 1, "slice_index": 2}, "--from_slice belongs to --from_image"),
    ],
)
def test_an_end_is_one_thing(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        End("from", **settings)  # type: ignore[arg-type]


def test_a_seed_is_a_whole_number() -> None:
    with pytest.raises(UserError, match="from_seed x: give a whole number of at least 0"):
        End("from", seed="x").place  # type: ignore[arg-type]  # noqa: B018


@pytest.mark.parametrize(
    ("start", "stop", "names", "said"),
    [
        (NOTHING, End("to", seed=1), [], "give --from_seed or --from_image"),
        (End("from", seed=1), NOTHING, [], "give --to_seed or --to_image$"),
        (End("from", seed=1), NOTHING, ["a"], "or --to_class to change the class alone"),
        (End("from", seed=1), End("to", seed=2, category="a"), [], "trained without classes"),
        (End("from", seed=1, category="c"), End("to", seed=2), ["a", "b"], "no class c; the model has a, b"),
    ],
)
def test_no_walk_without_two_ends(start: End, stop: End, names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_ends(start, stop, names)


def test_walks_between_all_kinds_of_ends() -> None:
    check_ends(End("from", seed=1), End("to", image="a.png"), [])
    check_ends(End("from", seed=1), End("to", category="b"), ["a", "b"])
