"""What meets faults: each prepares a folder, does something in it, and knows what must hold after whatever happened.

A body says what is safe by ``mark(text)``, at the moment at which Clew has told its caller so. A check is given the
folder as a fault has left it, and these marks. It then goes on as a user would, so it may change the folder.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import marching
import torch
import walks
from shimmed import Ended

import clew.worker
from clew.checkpoints import CheckpointStore
from clew.checkpoints.leftovers import GRACE_SECONDS, leftovers, remove
from clew.jobs import create_job_run, load_job
from clew.lineage.fork import Asked, fork
from clew.lineage.going_on import Wish, go_on_with
from clew.merging.weights import Layout, TensorFile
from clew.runs import (
    Command,
    Fenced,
    JobResult,
    JournalWriter,
    Owner,
    Run,
    RunInfo,
    State,
    Workspace,
    create_run,
    read_events,
)
from clew.runs.states import FINAL, OWNED
from clew.session import Session

Mark = Callable[[str], None]
MARCH = f"{Path(marching.__file__)}:march"
STEPS = 6


@dataclass(frozen=True)
class Scenario:
    """Something that is done to a folder.

    Attributes:
        prepare: Makes what there is before.
        body: Does it.
        check: Raises AssertionError unless what must hold holds.
        attend: What somebody does meanwhile, from outside; it is given the process's number.
    """

    prepare: Callable[[Path], None]
    body: Callable[[Path, Mark], None]
    check: Callable[[Path, Ended], None]
    attend: Callable[[Path, int], None] = lambda root, pid: None


def tidy(root: Path) -> None:
    """What is left behind is what ``clew gc`` finds, and when it has deleted that, nothing hidden is left."""
    workspace = Workspace(root)
    for one in leftovers(workspace, time.time() + 2 * GRACE_SECONDS):
        remove(one)
    hidden = [path for path in root.rglob(".*") if path.name not in (".lock", ".reserve")]
    assert hidden == [], hidden


# Checkpoints alone.


def _content(text: str, folder: Path) -> None:
    (folder / "weights").write_text(text * 3000)
    (folder / "nested").mkdir()
    (folder / "nested" / "state").write_text(text)


def _store(root: Path) -> CheckpointStore:
    return CheckpointStore(root / "checkpoints", attempt=1)


def _three_saved(root: Path) -> None:
    (root / "checkpoints").mkdir()
    for step in (10, 20):
        _store(root).save(step, partial(_content, f"{step}"), metric=float(step))


def _save_and_prune(root: Path, mark: Mark) -> None:
    _store(root).save(30, partial(_content, "30"), metric=30.0)
    mark("30")
    _store(root).tag("nice", 20)
    mark("tagged")
    _store(root).prune(1, saved=30)


def _saved_is_there(root: Path, ended: Ended) -> None:
    store = _store(root)
    good, bad = store.newest_good()
    assert bad == {}
    assert good is not None
    assert good.step == 30 if "30" in ended.marks else good.step in (20, 30)
    assert (good.path / "weights").read_text() == f"{good.step}" * 3000
    steps = {one.step for one in store.all()}
    assert steps >= {10, 20}, "the best, and the one before, stay until they are not kept"
    if "tagged" in ended.marks:
        assert store.tags() == {"nice": 20}
    store.save(40, partial(_content, "40"))
    assert [one.step for one in store.all()] == [40, *sorted(steps, reverse=True)]
    assert [path.name for path in store.folder.iterdir() if path.name.startswith((".saving", ".trash"))] == []


def _many_saved(root: Path) -> None:
    (root / "checkpoints").mkdir()
    for step in (10, 20, 30, 40):
        _store(root).save(step, partial(_content, f"{step}"))


def _prune(root: Path, mark: Mark) -> None:
    _store(root).prune(2)
    mark("pruned")


def _two_are_left(root: Path, ended: Ended) -> None:
    good, bad = _store(root).newest_good()
    assert good is not None
    assert (good.step, bad) == (40, {})
    there = [one.step for one in _store(root).all()]
    assert there[:2] == [40, 30], "never fewer than promised"
    assert all(not one.problem() for one in _store(root).all())


# The journal, the state, commands.


def _folder_of_a_journal(root: Path) -> None:
    (root / "journal").mkdir()


def _write_journal(root: Path, mark: Mark) -> None:
    journal = JournalWriter(root / "journal", 1)
    journal.write("restore", step=0)
    for step in range(1, 7):
        journal.write_metrics(step, {"loss": 1 / step})
        journal.flush(sync=step % 2 == 0)
        if step % 2 == 0:
            mark(f"{step}")
    journal.close()
    mark("closed")


def _journal_is_whole(root: Path, ended: Ended) -> None:
    steps = [event["step"] for event in read_events(root / "journal", frozenset({"metric"}))]
    assert steps == list(range(1, len(steps) + 1)), "no gaps, no doubles"
    safe = [int(one) for one in ended.marks if one.isdigit()]
    assert len(steps) >= max(safe, default=0)
    journal = JournalWriter(root / "journal", 2)
    journal.write("restore", step=len(steps))
    journal.write_metrics(len(steps) + 1, {"loss": 0.0})
    journal.close()
    after = [event["step"] for event in read_events(root / "journal", frozenset({"metric"}))]
    assert after == [*steps, len(steps) + 1]


def _a_run(root: Path) -> None:
    create_run(root / "runs", RunInfo(id="a", job="x"), "job: x\n", {})


def _move(root: Path, mark: Mark) -> None:
    states = Run(root / "runs/a").states
    attempt = states.queue()
    mark("queued")
    states.move(State.STARTING, attempt=attempt)
    mark("starting")
    states.move(State.RUNNING, attempt=attempt, owner=Owner.current())
    mark("running")
    states.renew(attempt)
    states.move(State.PAUSED, attempt=attempt)
    mark("paused")
    states.move(State.RUNNING, attempt=attempt)
    states.move(State.COMPLETED, attempt=attempt)
    mark("completed")


def _state_is_legal(root: Path, ended: Ended) -> None:
    run = Run(root / "runs/a")
    now = run.states.read()
    order = ["created", "queued", "starting", "running", "paused", "running", "completed"]
    known = ended.marks[-1] if ended.marks else "created"
    assert now.state.value in order[order.index(known) :]
    if "completed" in ended.marks:
        assert run.state is State.COMPLETED
        return
    if now.state is State.COMPLETED:
        return
    assert run.state in {State.CREATED, State.INTERRUPTED}, "its owner is gone"
    tidy(root)
    assert run.states.queue() == now.attempt + 1


def _create(root: Path, mark: Mark) -> None:
    create_run(root / "runs", RunInfo(id="b", job="x"), "job: x\n", {})
    mark("created")


def _run_or_none(root: Path, ended: Ended) -> None:
    workspace = Workspace(root)
    there = {run.id for run in workspace.list_runs()}
    assert "a" in there
    assert "b" in there or "created" not in ended.marks
    if "b" not in there:
        assert not (root / "runs/b").exists()
        _create(root, lambda text: None)
    run = workspace.find_run("b")
    assert (run.state, run.info.job, run.config_path.read_text()) == (State.CREATED, "x", "job: x\n")
    tidy(root)


def _post(root: Path, mark: Mark) -> None:
    inbox = Run(root / "runs/a").inbox
    for name in ("one", "two"):
        inbox.post(Command("note", {"text": name}))
        mark(name)


def _commands_are_whole(root: Path, ended: Ended) -> None:
    found = [(command.verb, command.args) for command in Run(root / "runs/a").inbox.peek()]
    texts = [args["text"] for verb, args in found if verb == "note"]
    assert len(found) == len(texts), "never half a command"
    assert len(set(texts)) == len(texts)
    assert set(ended.marks) <= set(texts) <= {"one", "two"}
    tidy(root)


def _result(root: Path, mark: Mark) -> None:
    run = Run(root / "runs/a")
    attempt = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=attempt, owner=Owner.current())
    JobResult("a", "x", "completed", 1.0, attempt, metrics={"loss": 1.0}, notes={"text": "x" * 9000}).save(run.path)
    run.states.move(State.COMPLETED, attempt=attempt)
    mark("completed")


def _result_is_there(root: Path, ended: Ended) -> None:
    run = Run(root / "runs/a")
    result = JobResult.load(run.path)
    if run.states.read().state is State.COMPLETED:
        assert result is not None
        assert (result.metrics, len(result.notes["text"])) == ({"loss": 1.0}, 9000)
    else:
        assert "completed" not in ended.marks
        run.states.queue()


# Children, merges, artifacts.


def _a_march(root: Path, name: str = "a", steps: int = STEPS) -> Run:
    workspace = Workspace(root)
    workspace.runs.mkdir(exist_ok=True)
    loaded = load_job({"job": MARCH, "name": name, "steps": steps, "every": 2})
    return create_job_run(workspace, loaded)


def carry_on(run: Run) -> int:
    """Make one attempt in this process."""
    attempt = run.states.queue()
    run.states.move(State.STARTING, attempt=attempt)
    return clew.worker.work(run, attempt)


def _a_parent(root: Path) -> None:
    assert carry_on(_a_march(root)) == 0


def _fork(root: Path, mark: Mark) -> None:
    fork(Run(root / "runs/a"), Asked(name="b", words=("lr=0.5",)))
    mark("forked")


def _child_or_none(root: Path, ended: Ended) -> None:
    parent, child = Run(root / "runs/a"), Run(root / "runs/b")
    there = {run.id for run in Workspace(root).list_runs()}
    if child.path.exists():
        good, bad = CheckpointStore(child.checkpoints).newest_good()
        assert bad == {}
        assert good is not None
        info = child.info
        assert (info.parent, info.fork_step, good.step, child.state) == ("a", STEPS, STEPS, State.CREATED)
        assert info.changes == {"lr": 0.5}
    else:
        assert "forked" not in ended.marks
        assert there == {"a"}
        _fork(root, lambda text: None)
    assert carry_on(child) == 0
    assert CheckpointStore(parent.checkpoints).newest_good()[1] == {}
    tidy(root)


_LAYOUT = {name: Layout((16, 16), torch.float32) for name in ("one", "two")}


def _write_merge(session: Session[object], number: float) -> None:
    with session.artifact("model") as folder:
        folder.mkdir()
        with TensorFile(folder / "model.safetensors", _LAYOUT) as file:
            for name in _LAYOUT:
                file.write(name, torch.full((16, 16), number))
        (folder / "config.json").write_text("{}")


def _an_old_merge(root: Path) -> None:
    _a_run(root)
    _merge(root, lambda text: None, 1.0)


def _merge(root: Path, mark: Mark, number: float = 2.0) -> None:
    run = Run(root / "runs/a")
    attempt = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=attempt, owner=Owner.current())
    try:
        with Session(run, object(), attempt) as session:
            _write_merge(session, number)
            mark("merged")
    finally:
        run.states.move(State.FAILED, attempt=attempt)


def _owned(root: Path, mark: Mark) -> None:
    """Save as the owner of a run, which somebody else may take meanwhile."""
    run = Run(root / "runs/a")
    attempt = run.states.queue()
    for state in (State.STARTING, State.RUNNING):
        run.states.move(state, attempt=attempt, owner=Owner.current())
    store = CheckpointStore(run.checkpoints, attempt=attempt, fence=lambda: run.states.holding(attempt))
    with suppress(Fenced):
        store.save(10, partial(_content, "10"))


def _merge_is_whole(root: Path, ended: Ended) -> None:
    from safetensors.torch import load_file

    run = Run(root / "runs/a")
    made = run.artifacts / "model"
    if made.exists():
        tensors = load_file(made / "model.safetensors")
        numbers = {float(tensor.mean()) for tensor in tensors.values()}
        assert numbers in ({1.0}, {2.0}), "one of both, not a mixture"
        assert sorted(path.name for path in made.iterdir()) == ["config.json", "model.safetensors"]
        if "merged" in ended.marks:
            assert numbers == {2.0}
    else:
        assert "merged" not in ended.marks
    if run.state in FINAL:
        tidy(root)
    _merge(root, lambda text: None, 3.0)
    assert float(load_file(made / "model.safetensors")["one"].mean()) == 3.0
    tidy(root)


# A whole run.


def _a_steered_run(root: Path) -> None:
    assert carry_on(_a_march(root, "other", 2)) == 0
    run = _a_march(root)
    for number, (verb, at, args) in enumerate(_ASKED):
        # Their names are always the same, so that what is left of a run can be compared with what was.
        run.inbox.post(
            Command(verb, args, id=f"01K0000000000000000000000{number}", at=at, issuer="test", sent=number + 1.0)
        )


_ASKED = [
    ("set", 1, {"lr": 0.5}),
    ("checkpoint", 3, {"tag": "nice"}),
    ("merge", 3, {"sources": [".", "other@2"]}),
    ("evaluate", 4, {}),
    ("reset", 5, {"to": "other@2"}),
]


def _carry_out(root: Path, mark: Mark) -> None:
    assert carry_on(Run(root / "runs/a")) == 0
    mark("completed")


def _told(run: Run) -> list[tuple[str, int, str]]:
    return [(event["verb"], event["at"], event["outcome"]) for event in run.events("command")]


def _run_goes_on(root: Path, ended: Ended) -> None:
    run = Run(root / "runs/a")
    good, bad = CheckpointStore(run.checkpoints).newest_good()
    assert bad == {}
    now = run.states.read().state
    if run.state is not State.COMPLETED:
        assert "completed" not in ended.marks
        assert now not in OWNED or run.state is State.INTERRUPTED
        before = list(_positions(run))
        assert before == list(range(1, len(before) + 1)), before
        assert not before or good is None or before[-1] - good.step <= 2 + 1, "lost work is within the interval"
        assert carry_on(run) == 0
    values = _positions(run)
    assert list(values) == list(range(1, STEPS + 1)), "no gaps, no doubles"
    told = [one for one in _told(run) if one[0] not in ("pause", "resume")]
    assert sorted(one[:2] for one in told) == sorted(one[:2] for one in _ASKED), "each command has one outcome"
    refused = [outcome for *_, outcome in told if outcome != "applied"]
    assert all("[Errno" in outcome for outcome in refused) and (ended.survived or not refused), refused
    # One that is back after a power loss is known to be settled; what came after the end waits for the next attempt.
    settled = {event["id"] for event in run.events("command")}
    assert all(command.id in settled or command.verb == "resume" for command in run.inbox.peek())
    result = run.result
    assert result is not None
    assert (result.status, result.metrics["position"]) == ("completed", values[STEPS])
    assert float((run.artifacts / "map" / "position").read_text()) == values[STEPS]
    if not refused:
        assert values == expectation()
        assert CheckpointStore(run.checkpoints).tags() == {"nice": 3}
    tidy(root)


def _make_space(root: Path, pid: int) -> None:
    """Let a run that waits for space go on; one for which that does not help is killed, as somebody may do."""
    run, process, times = Run(root / "runs/a"), Owner.of(pid), 0
    while process.is_alive():
        asked = any(command.verb == "resume" for command in run.inbox.peek())
        if run.states.read().state is State.PAUSED and not asked:
            times += 1
            if times > 2:
                os.kill(pid, signal.SIGKILL)
                return
            run.inbox.send("resume")
        time.sleep(0.01)


def _positions(run: Run) -> dict[int, float]:
    """Where a march was after each step; in the order of the journal."""
    found = [event for event in run.events("metric") if "position" in event["values"]]
    values = {event["step"]: event["values"]["position"] for event in found}
    assert len(values) == len(found), "no step twice"
    return values


@cache
def expectation() -> dict[int, float]:
    """What a steered run comes to that nothing disturbs; computed once a process."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        _a_steered_run(root)
        assert carry_on(Run(root / "runs/a")) == 0
        return _positions(Run(root / "runs/a"))


# A run that goes back, and on differently.


def _a_run_that_was_cut_off(root: Path) -> None:
    run = _a_march(root)
    run.inbox.post(Command("set", {"lr": 50.0}, id="01K00000000000000000000000", at=3, issuer="test", sent=1.0))
    walks.attempt(run, killed_at=5)
    assert [one.step for one in CheckpointStore(run.checkpoints).all()] == [4, 2]


def _go_back(root: Path, mark: Mark) -> None:
    run = Run(root / "runs/a")
    go_on_with(run, Wish(["lr=0.25", "log_every=2"], at="2"))
    mark("chosen")
    assert carry_on(run) == 0
    mark("completed")


def _goes_on_one_way(root: Path, ended: Ended) -> None:
    run = Run(root / "runs/a")
    assert CheckpointStore(run.checkpoints).newest_good()[1] == {}
    if run.state is not State.COMPLETED:
        assert "completed" not in ended.marks
        assert CheckpointStore(run.checkpoints).all(), "the only good one is never lost"
        assert carry_on(run) == 0
    as_before, otherwise = courses()
    values = _positions(run)
    assert values == otherwise or (values == as_before and "chosen" not in ended.marks)
    told = [(event["at"], event["issuer"]) for event in run.events("command") if event["verb"] == "set"]
    assert told == ([(2, "resume")] if values == otherwise else [(3, "test")])
    assert not (run.path / "resume.json").exists()
    assert run.result is not None
    assert run.result.metrics["position"] == values[STEPS]
    tidy(root)


@cache
def courses() -> tuple[dict[int, float], dict[int, float]]:
    """What a run that was cut off comes to as it was, and differently; computed once a process."""
    found = []
    for body in (_carry_out, _go_back):
        with TemporaryDirectory() as folder:
            _a_run_that_was_cut_off(Path(folder))
            body(Path(folder), lambda text: None)
            found.append(_positions(Run(Path(folder) / "runs/a")))
    return found[0], found[1]


SCENARIOS = {
    "save": Scenario(_three_saved, _save_and_prune, _saved_is_there),
    "prune": Scenario(_many_saved, _prune, _two_are_left),
    "journal": Scenario(_folder_of_a_journal, _write_journal, _journal_is_whole),
    "state": Scenario(_a_run, _move, _state_is_legal),
    "create": Scenario(_a_run, _create, _run_or_none),
    "inbox": Scenario(_a_run, _post, _commands_are_whole),
    "result": Scenario(_a_run, _result, _result_is_there),
    "fork": Scenario(_a_parent, _fork, _child_or_none),
    "merge": Scenario(_an_old_merge, _merge, _merge_is_whole),
    "owned": Scenario(_a_run, _owned, lambda root, ended: None),
    "back": Scenario(_a_run_that_was_cut_off, _go_back, _goes_on_one_way, _make_space),
    "run": Scenario(_a_steered_run, _carry_out, _run_goes_on, _make_space),
}
