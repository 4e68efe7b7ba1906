import json

import pytest

from clew.errors import ConfigError, UserError
from clew.notify import Notifier, NotifyConfig, open_notifier
from clew.notify.notifier import LinesFile
from clew.plans import load_pipeline

STAGE = "stages:\n  a: {job: x}\n"
ERRORS = {
    "no section": ("notify: yes\n", r"p\.yaml:1: 'notify' must be a section"),
    "an unknown event": ("notify:\n  events: [failures]\n", r"p\.yaml:2: 'notify\.events'"),
    "an unknown key": (
        "notify:\n  webhook:\n    url: http://x/\n    secret: abc\n",
        r"p\.yaml:4: unknown key 'notify\.webhook\.secret'\n  did you mean 'notify\.webhook\.secret_env'",
    ),
    "no address": ("notify:\n  webhook: {timeout_seconds: 1}\n", r"p\.yaml:2: .*url and url_env: say one of them"),
    "two addresses": ("notify:\n  webhook: {url: http://x/, url_env: X}\n", "url and url_env: say one of them"),
    "a file as an address": ("notify:\n  webhook: {url: 'file:///etc/passwd'}\n", "an address starts with http:// or"),
    "a password": ("notify:\n  webhook: {url: 'http://me:secret@x/'}\n", "a password does not belong into a config"),
    "a file outside": ("notify:\n  file: ../x.jsonl\n", r"file: '\.\./x\.jsonl' leads out of the workspace"),
    "an absolute file": ("notify:\n  file: /tmp/x.jsonl\n", "leads out of the workspace"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_mistakes_are_named_with_their_place(tmp_path, monkeypatch, case):
    text, message = ERRORS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(text + STAGE)
    with pytest.raises(ConfigError, match=message) as error:
        load_pipeline(tmp_path / "p.yaml")
    assert "secret@" not in str(error.value)


def test_a_link_does_not_lead_out_of_the_workspace(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=r"'link/x\.jsonl' leads out of its folder"):
        open_notifier(NotifyConfig(file="link/x.jsonl"), root=tmp_path / "workspace")


def test_a_pipeline_lies_over_its_workspace(tmp_path):
    (tmp_path / "clew.yaml").write_text("notify:\n  file: all.jsonl\n  webhook: {url: 'http://x/', attempts: 2}\n")
    (tmp_path / "p.yaml").write_text("notify: {webhook: {attempts: 9}, events: [failure]}\n" + STAGE)
    notify = load_pipeline(tmp_path / "p.yaml", environment=tmp_path / "clew.yaml").notify
    assert (notify.file, notify.events) == ("all.jsonl", ["failure"])
    assert (notify.webhook.url, notify.webhook.attempts) == ("http://x/", 9)


def test_a_pipeline_can_be_silent_in_a_workspace_that_is_not(tmp_path):
    (tmp_path / "clew.yaml").write_text("notify: {file: all.jsonl}\n")
    (tmp_path / "p.yaml").write_text("notify: null\n" + STAGE)
    assert load_pipeline(tmp_path / "p.yaml", environment=tmp_path / "clew.yaml").notify == NotifyConfig()


def test_lines_are_whole_and_json(tmp_path):
    with open_notifier(NotifyConfig(file="deep/events.jsonl"), root=tmp_path) as notifier:
        notifier.tell("failure", pipeline="p", reason="two\nlines", value=float("nan"))
        notifier.tell("completion", pipeline="p")
    first, second = (tmp_path / "deep/events.jsonl").read_text().splitlines()
    record = json.loads(first)
    assert (record["event"], record["reason"], record["value"]) == ("failure", "two\nlines", "nan")
    assert json.loads(second)["id"] != record["id"]


def test_what_a_crash_has_torn_spoils_no_other_line(tmp_path):
    (tmp_path / "x").write_text('{"event": "fail')
    LinesFile(tmp_path / "x").put({"event": "completion"})
    assert json.loads((tmp_path / "x").read_text().splitlines()[-1]) == {"event": "completion"}


def test_a_file_that_cannot_be_written_is_complained_about_once_and_the_others_are_told(tmp_path):
    (tmp_path / "folder").mkdir()
    words = []
    good = LinesFile(tmp_path / "good")
    notifier = Notifier([LinesFile(tmp_path / "folder"), good], complain=words.append)
    notifier.tell("failure")
    notifier.tell("completion")
    assert words == [f"an event could not be told: Is a directory ({tmp_path / 'folder'})"]
    assert len((tmp_path / "good").read_text().splitlines()) == 2
