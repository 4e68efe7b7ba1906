import pytest

from clew.errors import UserError
from clew.runs import Inbox


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path)


def test_commands_come_in_the_order_in_which_they_were_sent(inbox):
    sent = [inbox.send("checkpoint").id, inbox.send("stop").id]
    assert sorted(command.id for command in inbox.poll()) == sorted(sent)
    assert {command.verb for command in Inbox(inbox._folder).poll()} == {"checkpoint", "stop"}


def test_an_unchanged_inbox_is_not_listed_again(inbox):
    inbox.send("stop")
    assert len(inbox.poll()) == 1
    assert inbox.poll() == []


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


def test_an_unknown_verb_is_refused_with_a_suggestion(inbox):
    with pytest.raises(UserError, match="unknown command 'stopp'\n  did you mean 'stop'"):
        inbox.send("stopp")
