"""Several ranks stand still at the same steps and do the same there; here they are threads, each at its own pace."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist

from clew.checkpoints import CheckpointStore
from clew.inspection.samples import Scores
from clew.runs import Command, Owner, RunInfo, State, create_run
from clew.session import CheckpointConfig, RunStopped, Setting
from clew.session.helping import Helping
from clew.session.leading import Leading
from clew.session.ranks import Channel, Ranks

RANKS = 3


class Counter:
    """Counts with a rate that can be set; each rank writes a file of its own."""

    def __init__(self, rank: int) -> None:
        self.rank, self.step, self.value, self.rate = rank, 0, 0.0, 1.0
        self.rates: list[float] = []
        self.evaluated: list[int] = []
        self.error: Exception | None = None
        self.selections: list[list[int] | None] = []
        self.scored: list[int] = []

    def count(self) -> None:
        self.step += 1
        self.value += self.rate
        self.rates.append(self.rate)

    def save(self, directory):
        self._write(f"{self.step} {self.value}", directory)

    def snapshot(self):
        return partial(self._write, f"{self.step} {self.value}")

    def _write(self, text, directory):
        if self.error is not None:
            raise self.error
        (directory / f"state-{self.rank}").write_text(text)

    def seal(self, directory):
        assert len(list(directory.glob("state-*"))) == RANKS
        (directory / "sealed").touch()

    def load(self, directory):
        step, value = (directory / f"state-{self.rank}").read_text().split()
        self.step, self.value = int(step), float(value)

    def settings(self):
        return [Setting("rate", lambda: self.rate, partial(setattr, self, "rate"), low=0, high=9, open=True)]

    def evaluate(self):
        self.evaluated.append(self.step)
        return {"value": self.value}

    def select(self, selection):
        self.selections.append(None if selection is None else selection.parts[0].ids.tolist())

    def scorer(self, split):
        return Lengths(self)


class Lengths:
    """Ten samples, of which the last are the hardest."""

    batch_size = 4

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def __len__(self) -> int:
        return 10

    def score(self, ids, *, tokens=False):
        self._counter.scored += ids.tolist()
        return Scores(ids.astype(float))

    def fields(self, ids):
        return [{"text": str(number), "length": int(number)} for number in ids]


class Alive:
    """A crew of which nobody dies."""

    def __init__(self) -> None:
        self.signal = ""

    def check(self) -> None:
        """Nothing is wrong."""


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", RunInfo(id="r", job="count", config_hash="c0ffee"), "job: count\n", {})


def attempt(run, until=40, *, every=100, counters=None, crew=None, at=None, policy=None):
    """Make an attempt with all ranks; return how each ended, at which step, and the counters."""
    number = run.states.queue()
    run.states.move(State.STARTING, attempt=number)
    run.states.move(State.RUNNING, attempt=number, owner=Owner.current())
    store, crew = dist.HashStore(), crew or Alive()
    counters = counters or [Counter(rank) for rank in range(RANKS)]
    ends: dict[int, object] = {}
    policy = policy or CheckpointConfig(every=every)

    def work(rank: int) -> None:
        ranks, counter = Ranks(rank, RANKS, store, lambda: store), counters[rank]
        if rank == 0:
            session = Leading(run, None, number, None, ranks=ranks, crew=crew)
        else:
            session = Helping(run, None, number, ranks=ranks, tell=lambda name: None)
        try:
            with session:
                session.attach(counter, policy)
                while counter.step < until:
                    counter.count()
                    if rank == 0 and at:
                        at(counter.step)
                    session.boundary(counter.step)
            ends[rank] = (State.COMPLETED, until)
        except RunStopped as stop:
            ends[rank] = (stop.state, stop.step)
        except Exception as error:
            ends[rank] = error

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive(), "a rank waits for ever"
    end = ends[0][0] if isinstance(ends[0], tuple) else State.FAILED
    run.states.move(end, attempt=number)
    return [ends[rank] for rank in range(RANKS)], counters


def outcomes(run):
    return [(event["verb"], event["outcome"], event["at"]) for event in run.events("command")]


def test_a_command_holds_from_the_same_step_on_in_every_rank(run):
    run.inbox.post(Command("set", {"rate": 3}, at=7))

    def later(step):
        time.sleep(0.02)  # what a step takes
        if step == 20:
            run.inbox.send("set", rate="*2")

    ends, counters = attempt(run, at=later)
    assert ends == [(State.COMPLETED, 40)] * RANKS
    assert counters[0].rates == counters[1].rates == counters[2].rates
    assert counters[0].rates[6:8] == [1, 3]
    (first, second) = outcomes(run)
    assert first == ("set", "applied", 7)
    assert second[:2] == ("set", "applied")
    assert second[2] >= 20
    assert counters[1].rates[second[2] - 1 : second[2] + 1] == [3, 6]


def test_between_meetings_nobody_looks_and_a_meeting_comes_soon(run):
    looks = []

    class Watched(Alive):
        def check(self) -> None:
            looks.append(1)

    def later(step):
        time.sleep(0.002)
        if step == 100:
            run.inbox.send("evaluate")

    _, counters = attempt(run, until=400, at=later, crew=Watched())
    ((_, outcome, step),) = outcomes(run)
    assert outcome == "applied"
    assert 100 <= step <= 300  # a meeting comes every 0.2 s
    assert [counter.evaluated for counter in counters] == [[step]] * RANKS


def test_a_stop_ends_every_rank_at_the_same_step_and_the_next_attempt_goes_on_there(run):
    run.inbox.post(Command("stop", at=13))
    ends, _ = attempt(run)
    assert ends == [(State.STOPPED, 13)] * RANKS
    run.inbox.post(Command("set", {"rate": 2}, at=20))
    ends, counters = attempt(run)
    assert ends == [(State.COMPLETED, 40)] * RANKS
    assert [counter.value for counter in counters] == [20 + 2 * 20] * RANKS
    assert [len(counter.rates) for counter in counters] == [27] * RANKS


def test_settings_in_force_are_restored_in_every_rank(run):
    run.inbox.post(Command("set", {"rate": 4}, at=3))
    run.inbox.post(Command("stop", at=5))
    attempt(run)
    _, counters = attempt(run)
    assert [counter.rates for counter in counters] == [[4] * 35] * RANKS


def test_a_paused_run_stands_in_every_rank_until_it_goes_on(run):
    run.inbox.post(Command("pause", {}, at=4))

    def until_paused():
        deadline = time.monotonic() + 20
        while run.states.read().state is not State.PAUSED:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        stands.append([counter.step for counter in counters])
        run.inbox.send("resume")

    stands: list[list[int]] = []
    counters = [Counter(rank) for rank in range(RANKS)]
    watcher = threading.Thread(target=until_paused, daemon=True)
    watcher.start()
    ends, _ = attempt(run, counters=counters)
    watcher.join(timeout=20)
    assert stands == [[4] * RANKS]
    assert ends == [(State.COMPLETED, 40)] * RANKS


@pytest.mark.parametrize(("asynchronous", "expected"), [(True, [37, 30, 15]), (False, [30, 15])])
def test_a_checkpoint_has_the_part_of_every_rank_at_the_same_step(run, asynchronous, expected):
    attempt(run, policy=CheckpointConfig(every=15, keep_last=9, asynchronous=asynchronous))
    saved = CheckpointStore(run.checkpoints).all()
    assert [checkpoint.step for checkpoint in saved] == expected
    for checkpoint in saved:
        assert checkpoint.problem() == ""
        assert (checkpoint.path / "sealed").is_file()
        parts = {(checkpoint.path / f"state-{rank}").read_text() for rank in range(RANKS)}
        assert parts == {f"{checkpoint.step} {float(checkpoint.step)}"}


def test_a_rank_that_cannot_write_its_part_leaves_no_checkpoint(run):
    counters = [Counter(rank) for rank in range(RANKS)]
    counters[2].error = PermissionError(13, "Permission denied")
    run.inbox.post(Command("checkpoint", at=5))
    ends, _ = attempt(run, counters=counters)
    assert ends == [(State.COMPLETED, 40)] * RANKS
    ((_, outcome, _),) = outcomes(run)
    assert outcome.startswith("rejected: the checkpoint could not be saved")
    assert "rank 2" in outcome
    assert CheckpointStore(run.checkpoints).all() == []


def test_a_signal_to_any_rank_saves_and_ends_all(run):
    crew = Alive()

    def later(step):
        time.sleep(0.02)
        if step == 9:
            crew.signal = "SIGTERM"  # another rank has told of it

    ends, _ = attempt(run, crew=crew, at=later)
    assert {end[0] for end in ends} == {State.INTERRUPTED}
    assert len({end[1] for end in ends}) == 1
    assert CheckpointStore(run.checkpoints).all()[0].step == ends[0][1] >= 9


@pytest.mark.parametrize(
    ("recipe", "ids", "scored"),
    [("hardest 30%", [7, 8, 9], True), ("where length < 2", [0, 1], False), ("ids [3, 5]", [3, 5], False)],
)
def test_every_rank_trains_on_what_was_chosen_and_all_look_at_the_samples_for_it(run, recipe, ids, scored):
    run.inbox.post(Command("select", {"recipe": recipe}, at=5))
    _, counters = attempt(run)
    ((verb, outcome, step),) = outcomes(run)
    assert (verb, outcome, step) == ("select", "applied", 5)
    assert [counter.selections for counter in counters] == [[ids]] * RANKS
    assert [counter.scored for counter in counters] == [list(range(10)) if scored else []] * RANKS


def test_a_selection_is_taken_back_and_chosen_again_in_every_rank(run):
    run.inbox.post(Command("select", {"recipe": "ids [1]"}, at=5))
    run.inbox.post(Command("select", {"recipe": "all"}, at=6))
    run.inbox.post(Command("stop", at=8))
    _, counters = attempt(run, every=4)
    assert [counter.selections for counter in counters] == [[[1], None]] * RANKS
    run.inbox.post(Command("select", {"recipe": "ids [2]"}, at=9))
    _, counters = attempt(run, until=12)
    assert [counter.selections[-1] for counter in counters] == [[2]] * RANKS


def test_an_inspection_is_the_work_of_all_ranks(run):
    run.inbox.post(Command("inspect", {"clusters": 2}, at=5))
    _, counters = attempt(run)
    (event,) = run.events("command")
    assert (event["outcome"], event["result"]["samples"], event["result"]["loss"]) == ("applied", 10, 4.5)
    assert [counter.scored for counter in counters] == [list(range(10))] * RANKS


def test_what_one_process_cannot_choose_is_rejected_and_the_others_have_changed_nothing(run):
    run.inbox.post(Command("select", {"recipe": "where length > 99"}, at=5))
    ends, counters = attempt(run)
    ((_, outcome, _),) = outcomes(run)
    assert outcome.startswith('rejected: where "length > 99" chooses none of the 10 samples')
    assert [counter.selections for counter in counters] == [[]] * RANKS
    assert ends == [(State.COMPLETED, 40)] * RANKS


def test_what_is_done_in_one_process_only_is_rejected_with_the_reason_and_a_way_out(run):
    run.inbox.post(Command("merge", {"sources": ["."]}, at=5))
    attempt(run)
    ((_, outcome, _),) = outcomes(run)
    assert outcome == (
        "rejected: nothing can be merged in a run of several ranks (stop it, and go on in one process: "
        "clew resume RUN --ranks 1)"
    )


def test_a_run_of_several_ranks_does_not_go_on_as_another_one_and_bears_no_child(run):
    child = create_run(run.path.parent, RunInfo(id="child", job="count"), "job: count\n", {})
    hidden = child.path.rename(child.path.with_name(".new-child"))
    run.inbox.post(Command("fork", {"staging": hidden.name, "switch": True}, at=5))
    ends, _ = attempt(run)
    assert ends == [(State.COMPLETED, 40)] * RANKS
    ((_, outcome, _),) = outcomes(run)
    assert outcome.startswith("rejected: a run of several ranks cannot go on as another one")
    assert hidden.is_dir()


def test_the_docs_say_what_is_rejected_and_why():
    words = " ".join(Path(__file__).parents[2].joinpath("docs", "sharding.md").read_text().split())
    for reason in (
        "*nothing can be merged in a run of several ranks*",
        "*a run of several ranks cannot go on as another one*",
        "*the weights are sharded over ranks, and the health of shards is not told yet*",
        "`clew resume RUN --ranks 1`",
    ):
        assert reason in words


def test_a_fork_begins_with_the_parts_of_all_ranks(run):
    child = create_run(run.path.parent, RunInfo(id="child", job="count"), "job: count\n", {})
    hidden = child.path.rename(child.path.with_name(".new-child"))
    run.inbox.post(Command("fork", {"staging": hidden.name}, at=5))
    attempt(run)
    (checkpoint,) = CheckpointStore(run.path.parent / "child" / "checkpoints").all()
    assert checkpoint.step == 5
    assert {(checkpoint.path / f"state-{rank}").read_text() for rank in range(RANKS)} == {"5 5.0"}


def test_words_that_all_have_heard_do_not_stay_in_memory():
    store = dist.HashStore()
    speaker = Channel(store, "c", Ranks(0, 2, store))
    hearer = Channel(store, "c", Ranks(1, 2, store))
    sizes = []
    for number in range(1000):
        speaker.say(number=number)
        assert hearer.hear() == {"number": number}
        sizes.append(store.num_keys())
    assert max(sizes) <= 70
