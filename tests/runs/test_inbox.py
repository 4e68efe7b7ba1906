import json
import os
import time

import pytest

from clew.runs import Command, Inbox


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path)


def test_commands_come_in_the_order_in_which_they_were_sent(inbox):
    sent = [inbox.send("note", text=str(number)).id for number in range(20)]
    assert [command.id for command in inbox.poll()] == sent


def test_an_unchanged_inbox_is_not_listed_again(inbox, tmp_path):
    inbox.send("stop")
    os.utime(tmp_path, (time.time() - 1,) * 2)
    assert len(inbox.poll()) == 1
    assert inbox.poll() == []


def test_what_comes_within_the_same_tick_of_the_file_system_is_not_overlooked(inbox, tmp_path):
    inbox.send("note", text="first")
    tick = tmp_path.stat()
    assert len(inbox.poll()) == 1
    inbox.send("note", text="second")
    os.utime(tmp_path, ns=(tick.st_atime_ns, tick.st_mtime_ns))
    assert len(inbox.poll()) == 2


def test_a_command_stays_until_it_is_removed(inbox, tmp_path):
    command = inbox.send("stop")
    assert [item.id for item in Inbox(tmp_path).poll()] == [command.id]
    inbox.remove(command)
    assert Inbox(tmp_path).poll() == []


def test_a_file_that_is_no_command_is_handed_on_to_be_rejected(inbox, tmp_path):
    (tmp_path / "broken.json").write_text("{nonsense")
    assert [(item.id, item.verb) for item in inbox.poll()] == [("broken", "?")]


def test_half_a_command_is_never_seen(inbox, tmp_path):
    (tmp_path / ".01ABC.json.123.tmp").write_text('{"verb": "st')
    assert inbox.poll() == []


@pytest.mark.parametrize(
    "nonsense", [{"verb": 3}, {"args": "x"}, {"at": "soon"}, {"at": True}, {"sent": "now"}, {"extra": 1}, [], "x", None]
)
def test_a_command_with_nonsense_in_its_fields_is_none(nonsense, inbox, tmp_path):
    value = {"verb": "stop", **nonsense} if isinstance(nonsense, dict) else nonsense
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert [command.verb for command in inbox.poll()] == ["?"]


def test_preconditions_travel_with_the_command(inbox):
    sent = inbox.post(Command("stop", at=7, before=9, if_config="ab"))
    assert inbox.poll() == [sent]
    assert (sent.issuer, sent.sent > 0) != ("", False)
