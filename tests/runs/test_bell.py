"""Who listens to an inbox hears of every command, without asking the system."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

from clew.runs import bell as module
from clew.runs import inbox as inbox_module
from clew.runs.bell import Bell
from clew.runs.inbox import Inbox
from support import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def listening(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    """An inbox that listens, and that is not helped by looking now and then."""
    monkeypatch.setattr(inbox_module, "RESCAN_SECONDS", 1e9)
    inbox = Inbox(folder)
    inbox.listen()
    return inbox


def bells() -> int:
    return sum(thread.name == "clew-bell" for thread in threading.enumerate())


def test_what_lies_there_already_is_found(folder: Path) -> None:
    sent = Inbox(folder).send("note", text="before")
    inbox = Inbox(folder)
    inbox.listen()
    assert [command.id for command in inbox.poll()] == [sent.id]


def test_a_command_is_heard_however_it_comes(listening: Inbox, folder: Path) -> None:
    listening.poll()
    posted = Inbox(folder).send("note", text="by us")
    wait_until(lambda: [command.id for command in listening.poll()] == [posted.id])
    listening.remove(posted)
    (folder.parent / "x.json").write_text('{"verb": "pause"}')
    (folder.parent / "x.json").rename(folder / "moved.json")
    wait_until(lambda: [command.id for command in listening.poll()] == ["moved"])
    (folder / "moved.json").unlink()
    (folder / "written.json").write_text('{"verb": "stop"}')
    wait_until(lambda: [(one.id, one.verb) for one in listening.poll()] == [("written", "stop")])


def test_every_command_of_many_senders_is_heard(listening: Inbox, folder: Path) -> None:
    sent: list[str] = []

    def send() -> None:
        sent.extend(Inbox(folder).send("note", text="x").id for _ in range(20))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    heard: set[str] = set()

    def hear() -> bool:
        heard.update(command.id for command in listening.poll())
        return len(heard) == 80

    wait_until(hear)
    for thread in threads:
        thread.join(60)
    assert heard == set(sent)


def test_nothing_is_asked_of_the_system_while_nothing_comes(listening: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until(lambda: listening.poll() == [])

    def stat(path: str) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr(inbox_module.os, "stat", stat)
    assert all(listening.poll() == [] for _ in range(100))


def test_the_folder_is_listed_now_and_then_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(folder)
    inbox.listen()
    inbox.poll()
    monkeypatch.setattr(Bell, "take", lambda self: False)  # of another machine, for instance
    sent = Inbox(folder).send("note", text="from afar")
    assert inbox.poll() == []
    monkeypatch.setattr(inbox_module, "RESCAN_SECONDS", 0.0)
    assert [command.id for command in inbox.poll()] == [sent.id]


def test_where_the_kernel_cannot_tell_one_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(folder: Path) -> int:
        raise OSError("this system has no inotify")

    monkeypatch.setattr(module, "_watch", cannot)
    inbox = Inbox(folder)
    inbox.listen()
    inbox.poll()
    sent = Inbox(folder).send("note", text="x")
    assert [command.id for command in inbox.poll()] == [sent.id]


def test_a_folder_that_is_gone_is_not_listened_to(listening: Inbox, folder: Path) -> None:
    bell = listening._bell
    assert bell is not None
    folder.rmdir()
    wait_until(lambda: not bell.is_alive)
    with pytest.raises(FileNotFoundError):
        listening.poll()
    with pytest.raises(FileNotFoundError):
        Bell(folder)


def test_with_its_inbox_a_bell_is_gone_and_its_handles(folder: Path) -> None:
    others = bells()  # of sessions that tests before this one have left to the collector
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        inbox = Inbox(folder)
        inbox.listen()
        del inbox
    gc.collect()
    wait_until(lambda: bells() <= others)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_a_process_that_was_forked_leaves_the_bell_of_its_parent_alone(
    listening: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    bell = listening._bell
    assert bell is not None
    monkeypatch.setattr(module.os, "getpid", lambda: -1)
    bell.close()
    monkeypatch.undo()
    assert bell.is_alive
    bell.close()
    bell.close()
    wait_until(lambda: not bell.is_alive)


def test_who_puts_a_command_into_the_very_inbox_is_heard_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "RESCAN_SECONDS", 1e9)
    told: list[int] = []
    inbox = Inbox(folder)
    inbox.listen(lambda: told.append(1))
    inbox.poll()
    monkeypatch.setattr(module.os, "read", lambda *_: b"")  # the kernel is late
    before = len(told)
    sent = inbox.send("note", text="x")
    assert len(told) > before
    assert [command.id for command in inbox.poll()] == [sent.id]


def test_an_inbox_that_listens_no_more_looks(folder: Path) -> None:
    inbox = Inbox(folder)
    inbox.listen()
    bell = inbox._bell
    assert bell is not None and inbox.is_heard
    inbox.mute()
    wait_until(lambda: not bell.is_alive)
    assert not inbox.is_heard
    sent = Inbox(folder).send("note", text="x")
    assert [command.id for command in inbox.poll()] == [sent.id]
