from __future__ import annotations

from common.sharing.documents import comments_in_the_download, in_the_download


def test_commands_are_for_the_downloads_own_folder() -> None:
    text = "['bundles/mine/configs/a.yaml','bundles/mine/configs/b.yaml'] --logdir bundles/mine/logs"
    assert in_the_download(text, "mine") == "['configs/a.yaml','configs/b.yaml'] --logdir logs"


def test_code_keeps_its_place_and_other_bundles_are_others() -> None:
    text = "see bundles/mine/parts/net.py, bundles/mined/x and bundles.mine.parts"
    assert in_the_download(text, "mine") == text


def test_only_comments_of_a_config_change() -> None:
    text = "# bundles/mine/configs/a.yaml\nkey: bundles/mine/configs/a.yaml\n  # bundles/mine/logs\n"
    assert (
        comments_in_the_download(text, "mine")
        == "# configs/a.yaml\nkey: bundles/mine/configs/a.yaml\n  # logs\n"
    )
