"""Memory that the processes of an engine share: what one counts, the other reads."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from parrot_backend.vllm_plugin.attention_board import AttentionBoard, AttentionFigures


def opened(path: Path) -> AttentionBoard:
    board = AttentionBoard(path)
    board.attach()
    return board


def _count_elsewhere(path: Path) -> None:
    board = AttentionBoard(path)
    board.count(2**40, 7, is_shared=True)
    board.is_on = False


def test_counters_begin_at_nothing(tmp_path: Path) -> None:
    assert opened(tmp_path / "b").figures() == AttentionFigures("on", 0, 0, 0, 0)


def test_until_our_backend_has_come_the_state_says_so(tmp_path: Path) -> None:
    board = AttentionBoard(tmp_path / "b")
    assert board.figures().state == "another attention backend runs here"
    board.attach()
    assert board.figures().state == "on"


def test_steps_add_up(tmp_path: Path) -> None:
    board = opened(tmp_path / "b")
    board.count(100, 30, is_shared=True)
    board.count(50, 50, is_shared=False)
    assert board.figures() == AttentionFigures("on", 2, 1, 150, 80)


def test_another_process_writes_and_this_one_reads(tmp_path: Path) -> None:
    board = opened(tmp_path / "b")
    child = multiprocessing.get_context("spawn").Process(
        target=_count_elsewhere, args=(tmp_path / "b",)
    )
    child.start()
    child.join()
    assert child.exitcode == 0
    assert board.figures() == AttentionFigures("off", 1, 1, 2**40, 7)
    assert not board.is_on


def test_it_lives_on_without_its_name(tmp_path: Path) -> None:
    writer, reader = opened(tmp_path / "b"), opened(tmp_path / "b")
    reader.forget_name()
    reader.forget_name()
    assert list(tmp_path.iterdir()) == []
    writer.count(1, 1, is_shared=False)
    assert reader.figures().steps == 1
    assert opened(tmp_path / "b").figures().steps == 0


@pytest.mark.parametrize("text", ["no compiler", "ä" * 1000, "x" * 447, "x" * 448])
def test_a_reason_is_kept_as_far_as_there_is_room(tmp_path: Path, text: str) -> None:
    board = AttentionBoard(tmp_path / "b")
    board.count(3, 3, is_shared=False)
    board.attach("something longer that was said before")
    board.attach(text)
    state = board.figures().state
    assert text.startswith(state)
    assert len(state.encode()) >= min(len(text.encode()), 440)
    assert board.figures().steps == 1


def test_the_state_is_on_where_some_layers_share(tmp_path: Path) -> None:
    board = AttentionBoard(tmp_path / "b")
    board.attach("window")
    assert board.figures().state == "window"
    board.attach()
    board.attach("window")
    assert board.figures().state == "on"
    board.is_on = False
    assert board.figures().state == "off"


def test_links_and_files_of_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="link"):
        AttentionBoard(tmp_path / "link")
    assert (tmp_path / "target").read_bytes() == b"precious"
    monkeypatch.setattr(os, "getuid", lambda: -2)
    with pytest.raises(PermissionError, match="somebody else"):
        AttentionBoard(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"precious"
