"""The verb health: it asks the trainer, writes into the journal, and changes nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clew.errors import UserError
from clew.session.commands import Rule
from clew.session.verbs import VERBS
from clew.session.verbs.health import HEALTH, note_health

REPORT = {"verdict": "look", "findings": [{"word": "look", "area": "losses", "text": "it jumped"}], "losses": None}


class Patient:
    def save(self, directory): ...

    def load(self, directory): ...

    def health(self):
        return REPORT


class Silent:
    def save(self, directory): ...

    def load(self, directory): ...


def boundary(surface):
    events = []
    return SimpleNamespace(
        step=3, surface=surface, events=events, event=lambda kind, **fields: events.append((kind, fields))
    )


def test_the_report_goes_into_the_journal_and_the_verdict_into_the_result():
    here = boundary(Patient())
    assert HEALTH.carry_out(here, {}) == {"verdict": "look", "findings": ["it jumped"]}
    assert here.events == [("health", {"report": REPORT})]


def test_the_session_notes_the_same_without_a_command():
    here = boundary(Patient())
    assert note_health(here)["verdict"] == "look"
    assert len(here.events) == 1


@pytest.mark.parametrize("surface", [Silent(), None])
def test_a_trainer_that_does_not_say_how_it_is_doing_is_no_reason_to_write_anything(surface):
    here = boundary(surface)
    with pytest.raises(UserError, match="this job does not say how it is doing"):
        HEALTH.carry_out(here, {})
    assert here.events == []


def test_arguments_are_refused():
    with pytest.raises(UserError, match="health has no argument 'deep'; it takes none"):
        HEALTH.carry_out(boundary(Patient()), {"deep": True})


def test_it_is_a_verb_after_which_the_run_goes_on_as_before():
    assert VERBS["health"] is HEALTH
    assert (HEALTH.rule, HEALTH.again) == (Rule(), None)
