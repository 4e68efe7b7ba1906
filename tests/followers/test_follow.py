"""How a follower goes along a run, whatever happens to it."""

import json
import threading

import pytest
from followed_runs import begin, end, made_run, run_that_went_back, tell
from plain_followers import Lines

from clew.followers.follow import Follow, Patience
from clew.followers.process import supervise
from clew.followers.tail import NumberedTail
from clew.runs import JournalTail, State
from clew.runs.following import is_followed, read_record, record_path, trouble_of
from support import wait_until

SOON = Patience(first_seconds=0.01, most_seconds=0.02)


def follow_of(run, config, said=None, attempt=None):
    say = (said if said is not None else []).append
    return Follow(run, attempt or run.states.read().attempt, "lines", config, patience=SOON, say=say)


def record_of(run):
    return read_record(record_path(run.path, "lines"))


def delivered(run):
    path = run.path / "following" / "lines"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def endings(run):
    return (run.path / "following" / "lines.ends").read_text().split("\n")[:-1]


def metric_steps(run):
    return [event["step"] for event in delivered(run) if event["kind"] == "metric"]


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path)


def test_everything_is_handed_on_once_and_in_order(run):
    attempt = begin(run)
    tell(run, attempt, 1, 2500)
    end(run, attempt)
    follow_of(run, Lines())()
    assert [event["number"] for event in delivered(run)] == list(range(5001))
    assert metric_steps(run) == list(range(1, 2501))
    assert (record_of(run).status, record_of(run).memory) == ("done", {"sent": 5001})
    assert endings(run) == ["completed"]


def test_one_that_is_done_is_left_alone(run):
    end(run, begin(run))
    follow_of(run, Lines())()
    follow_of(run, Lines())()
    assert endings(run) == ["completed"]


def test_a_tracker_that_fails_is_tried_again_until_it_takes_everything(run):
    tell(run, begin(run), 1, 3)
    end(run, 1)
    said = []
    follow_of(run, Lines(trouble="fails", failures=2), said)()
    assert metric_steps(run) == [1, 2, 3]
    assert [line.partition("; ")[0] for line in said] == ["clew: lines: ConnectionError: nobody answers"] * 2
    assert (record_of(run).status, record_of(run).error) == ("done", "")
    assert endings(run) == ["goes on", "goes on", "completed"]


def test_what_can_never_work_is_given_up_at_once(run):
    attempt, said = begin(run), []
    follow_of(run, Lines(trouble="refuses"), said)()
    reason = "this will never work (do something else)"
    assert said == [f"clew: lines: given up: {reason}; clew track run catches up"]
    assert trouble_of(run.path, record_of(run)) == f"given up: {reason}; clew track run catches up"
    assert run.states.read().attempt == attempt


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Lines(trouble="hangs"), "nothing was delivered for 0.2 s after the end of the run"),
        (
            Lines(trouble="fails", failures=10**6),
            "nothing was delivered for 0.2 s after the end of the run: ConnectionError: nobody answers",
        ),
    ],
    ids=["hangs", "fails"],
)
def test_one_that_does_not_get_on_is_given_up_some_time_after_the_end(run, config, reason):
    tell(run, begin(run), 1, 3)
    end(run, 1)
    supervise(run, 1, follow_of(run, config), linger=0.2)
    assert (record_of(run).status, record_of(run).error) == ("given up", reason)


def test_after_it_was_given_up_it_can_catch_up(run):
    tell(run, begin(run), 1, 3)
    end(run, 1)
    follow_of(run, Lines(trouble="refuses"))()
    follow_of(run, Lines())()
    assert (metric_steps(run), record_of(run).status) == ([1, 2, 3], "done")


def test_the_next_attempt_is_followed_by_another_one_which_goes_on_where_it_was(run):
    tell(run, begin(run), 1, 10)
    end(run, 1, State.INTERRUPTED)
    follow_of(run, Lines())()
    tell(run, begin(run), 7, 12)
    end(run, 2)
    follow_of(run, Lines())()
    assert metric_steps(run) == [*range(1, 11), *range(7, 13)]
    assert [event["number"] for event in delivered(run)] == list(range(len(delivered(run))))
    assert endings(run) == ["interrupted", "completed"]


def test_one_that_belongs_to_an_earlier_attempt_leaves_without_a_last_word(run):
    tell(run, begin(run), 1, 3)
    end(run, 1, State.INTERRUPTED)
    begin(run)
    follow_of(run, Lines(), attempt=1)()
    assert endings(run) == ["goes on"]
    assert record_of(run).status == "following"


def test_two_never_deliver_at_the_same_time(run):
    attempt = begin(run)
    said = []
    threads = [threading.Thread(target=follow_of(run, Lines(), said), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: bool(said))
    assert is_followed(run.path, "lines")
    assert said == ["clew: lines: another process follows this run; waiting for its end"]
    tell(run, attempt, 1, 3)
    end(run, attempt)
    for thread in threads:
        thread.join(timeout=30)
    assert metric_steps(run) == [1, 2, 3]
    assert endings(run) == ["completed"]


def test_a_run_that_nobody_follows_any_more_says_so(run):
    tell(run, begin(run), 1, 3)
    follow = follow_of(run, Lines())
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    wait_until(lambda: record_of(run) is not None)
    assert trouble_of(run.path, record_of(run)) == ""
    follow.stop("enough")
    thread.join(timeout=30)
    record_path(run.path, "lines").write_text(json.dumps({**vars(record_of(run)), "status": "following", "error": ""}))
    assert trouble_of(run.path, record_of(run)) == "nobody follows the run any more; clew track run catches up"


def test_a_run_whose_directory_is_gone_is_left(run, tmp_path):
    begin(run)
    said = []
    run.path.rename(tmp_path / "elsewhere")
    follow_of(run, Lines(), said, attempt=1)()
    assert "No such file or directory" in said[0]


def test_secrets_do_not_get_into_records(run, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "correcthorsebatterystaple")
    monkeypatch.setattr(Lines, "open", lambda *_: (_ for _ in ()).throw(OSError("key correcthorsebatterystaple")))
    tell(run, begin(run), 1, 1)
    end(run, 1)
    said = []
    supervise(run, 1, follow_of(run, Lines(), said), linger=0.1)
    assert "[redacted]" in record_of(run).error
    assert "correcthorse" not in str(said) + record_path(run.path, "lines").read_text()


def test_who_comes_late_is_not_told_what_is_superseded(tmp_path):
    run = run_that_went_back(tmp_path)
    follow_of(run, Lines())()
    assert metric_steps(run) == [*range(1, 7), *range(7, 13)]
    # Numbers count what is left out: whoever was there from the start has the same ones.
    assert delivered(run)[-1]["number"] == sum(1 for _ in JournalTail(run.path / "journal").poll()) - 1


def test_batches_are_bounded_and_together_the_whole(tmp_path):
    run = run_that_went_back(tmp_path)
    folder = run.path / "journal"
    tail, found = NumberedTail(folder, {}, 0), []
    while True:
        events, more = tail.poll(4)
        assert len(events) <= 4
        found += events
        if not more:
            break
        tail = NumberedTail(folder, tail.offsets, tail.number)
    assert found == NumberedTail(folder, {}, 0).poll(10**6)[0]
