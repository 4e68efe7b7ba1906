"""The laws of commands, on the state machine alone: no files, no clock, no trainer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clew.runs import Command
from clew.session.commands import APPLIED, Done, Ledger, Rule, Standing
from clew.session.verbs import VERBS

RULES = {name: verb.rule for name, verb in VERBS.items()}
EFFECTS = RULES | {"double": Rule()}


@dataclass
class Toy:
    """Trains; the order and the number of effects can be told from its value."""

    value: float = 1.0

    def step(self, standing: Standing) -> None:
        self.value = self.value * 3 % 1009 + standing.settings.get("lr", 0.0)

    def do(self, verb: str) -> None:
        if verb == "double":
            self.value = (self.value * 2 + 1) % 1009


@dataclass
class Attempt:
    ledger: Ledger
    toy: Toy
    step: int


@dataclass
class Saved:
    value: float
    settings: dict[str, float]
    contained: list[str] = field(default_factory=list)


VERB = st.one_of(
    st.tuples(st.sampled_from(["pause", "resume", "double"]), st.just({})),
    st.tuples(st.just("step"), st.fixed_dictionaries({"steps": st.integers(1, 3)})),
    st.tuples(st.just("set"), st.fixed_dictionaries({"lr": st.integers(0, 9).map(float)})),
)


class SteeredRun(RuleBasedStateMachine):
    """A run that is told things, dies at the worst moments, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[dict] = []
        self.inbox: dict[str, Command] = {}
        self.gone: list[Command] = []
        self.saved: dict[int, Saved] = {}
        self.clock = 0.0
        self.live: Attempt | None = None
        self.start()

    @rule(command=VERB, at=st.none() | st.integers(0, 12), before=st.none() | st.integers(0, 12))
    def send(self, command, at, before):
        self.clock += 1
        verb, args = command
        sent = Command(verb, args, id=f"c{self.clock:03.0f}", sent=self.clock, at=at, before=before)
        self.inbox[sent.id] = sent

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def deliver_again(self, data):
        command = data.draw(st.sampled_from(self.gone))
        self.inbox[command.id] = command

    @precondition(lambda self: self.live and not self.live.ledger.standing.is_paused(self.live.step))
    @rule()
    def train(self):
        self.live.toy.step(self.live.ledger.standing)
        self.live.step += 1
        self.replay()

    @precondition(lambda self: self.live)
    @rule(dies=st.sampled_from(["", "", "before it is journalled", "after it is journalled"]))
    def carry_out_one(self, dies):
        live = self.live
        for command in live.ledger.receive(self.inbox.values()):
            del self.inbox[command.id]
        command = live.ledger.next(live.step)
        if command is None:
            return
        outcome = live.ledger.refusal(command, live.step) or APPLIED
        if outcome == APPLIED:
            live.toy.do(command.verb)
        if dies == "before it is journalled":
            self.live = None
            return
        fields = {"id": command.id, "verb": command.verb, "args": command.args, "at": live.step, "outcome": outcome}
        self.journal.append(fields)
        if dies == "after it is journalled":
            self.live = None
            return
        live.ledger.settle(command, live.step, outcome)
        self.gone.append(self.inbox.pop(command.id))

    @precondition(lambda self: self.live)
    @rule()
    def save(self):
        ledger, step = self.live.ledger, self.live.step
        if step not in self.saved:
            known = (dict(ledger.standing.settings), ledger.contained(step))
            self.saved[step] = Saved(self.live.toy.value, *known)

    @precondition(lambda self: self.saved and not self.live)
    @rule()
    def newest_checkpoint_rots(self):
        del self.saved[max(self.saved)]

    @precondition(lambda self: self.live)
    @rule()
    def kill(self):
        self.live = None

    @precondition(lambda self: not self.live)
    @rule()
    def start(self):
        self.clock += 1
        ledger = Ledger(EFFECTS, self.journal, asked=self.clock)
        step = max(self.saved, default=0)
        toy = Toy()
        if step in self.saved:
            found = self.saved[step]
            toy = Toy(found.value)
            ledger.restore(step, settings=found.settings, contained=found.contained)
        self.live = Attempt(ledger, toy, step)
        self.replay()

    def replay(self):
        for event in self.live.ledger.replay(self.live.step):
            self.live.toy.do(event.verb)

    def applied(self) -> list[dict]:
        found = [event for event in self.journal if event["outcome"] == APPLIED]
        return sorted(found, key=lambda event: event["at"])

    @invariant()
    def no_command_is_settled_twice(self):
        ids = [event["id"] for event in self.journal]
        assert len(ids) == len(set(ids))

    @invariant()
    def the_run_stands_where_an_undisturbed_one_with_the_same_commands_would(self):
        if not self.live:
            return
        toy, standing, left = Toy(), Standing(), self.applied()
        for step in range(self.live.step + 1):
            if step:
                toy.step(standing)
            while left and left[0]["at"] == step:
                event = left.pop(0)
                toy.do(event["verb"])
                standing = EFFECTS[event["verb"]].fold(standing, replace(Done.of(event), at=step))
        assert (self.live.toy.value, self.live.ledger.standing) == (toy.value, standing)

    @invariant()
    def preconditions_are_kept(self):
        sent = {command.id: command for command in self.gone}
        for event in self.applied():
            if command := sent.get(event["id"]):
                assert command.at in (None, event["at"])
                assert command.before is None or event["at"] < command.before


TestSteeredRun = SteeredRun.TestCase
TestSteeredRun.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def ledger(*commands: Command, **options) -> Ledger:
    made = Ledger(RULES, **options)
    made.receive(commands)
    return made


def drain(book: Ledger, step: int) -> dict[str, str]:
    outcomes = {}
    while (command := book.next(step)) is not None:
        outcomes[command.id] = book.refusal(command, step) or APPLIED
        book.settle(command, step, outcomes[command.id])
    return outcomes


def test_commands_are_carried_out_in_the_order_of_their_arrival_and_one_that_waits_holds_up_no_other():
    book = ledger(Command("note", id="late", at=9), Command("note", id="b"), Command("note", id="a"))
    assert list(drain(book, 3)) == ["b", "a"]
    assert book.alarm == 9
    assert drain(book, 9) == {"late": APPLIED}
    assert book.alarm == math.inf


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (Command("fly"), "rejected: not a command"),
        (Command("note", at=4), "rejected: step 4 has passed, 5 are done"),
        (Command("note", before=5), "expired: it was for a step before 5, and 5 are done"),
        (Command("note", at=9, before=4), "expired: it was for a step before 4, and 5 are done"),
        (Command("note", if_config="beef"), "rejected: the run's config is c0ffee, not beef"),
        (Command("note", if_config="c0f", at=5, before=6), APPLIED),
        (Command("stop", sent=1.0), "expired: the run was resumed after it"),
        (Command("stop", sent=1.0, at=5), APPLIED),
        (Command("set", sent=1.0), APPLIED),
    ],
)
def test_a_command_whose_preconditions_do_not_hold_is_refused_with_the_reason(command, outcome):
    book = ledger(replace(command, id="x"), config_hash="c0ffee", asked=2.0)
    assert drain(book, 5) == {"x": outcome}


def test_steps_pause_again_when_they_are_done():
    book = ledger(Command("pause", id="a"), Command("step", {"steps": 2}, id="b"))
    drain(book, 4)
    assert [book.standing.is_paused(step) for step in (4, 5, 6, 7)] == [False, False, True, True]
    assert book.alarm == 6


def test_a_stop_ends_a_pause_for_the_attempt_that_comes_after_it():
    book = ledger(Command("pause", id="a"), Command("stop", id="b"))
    drain(book, 4)
    assert not book.standing.is_paused(4)


def test_what_was_set_at_a_later_step_by_an_earlier_attempt_is_in_force():
    history = [
        {"id": "a", "verb": "set", "args": {"lr": 8.0}, "at": 8, "outcome": APPLIED},
        {"id": "b", "verb": "set", "args": {"lr": 4.0}, "at": 4, "outcome": APPLIED},
    ]
    book = Ledger(RULES, history)
    book.restore(9)
    assert book.standing.settings == {"lr": 8.0}


def test_what_is_no_outcome_in_a_damaged_journal_does_no_harm():
    history = [{"id": "a"}, {"id": "b", "verb": "pause", "outcome": APPLIED, "at": None}, {"verb": "x"}]
    assert Ledger(RULES, history).standing == Standing()
