import threading
from pathlib import Path

import pytest
from plan_support import FLAKY, Here, Outcome, Person, stage

from clew.plans import Executor, find_plan, load_pipeline, open_plan
from clew.runs import State, Workspace
from clew.targets.watching import Silent
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


def stages(**more):
    return {"a": stage(error="ValueError", **more), "b": stage(after="a"), "free": stage()}


def execute(workspace, config, answers=()):
    return Outcome(workspace, config, answers, on_failure="wait")


def test_resume_goes_on_with_the_same_run(workspace):
    done = execute(workspace, stages(good_attempt=2), ["resume"])
    assert (done.state, done.launched) == (State.COMPLETED, ["p.a", "p.free", "p.a", "p.b"])
    assert done.plan.questions() == {}
    assert done.told() == ["failure", "waiting", "answer", "completion"]


def test_restart_begins_a_new_run(workspace):
    done = execute(workspace, stages(), ["restart", "abort"])
    assert done.launched == ["p.a", "p.free", "p.a.2"]
    assert done.state is State.FAILED


def test_continue_goes_on_without_it(workspace):
    done = execute(workspace, stages(), ["continue"])
    assert (done.state, done.launched, done.skips()) == (State.FAILED, ["p.a", "p.free"], {"b": "a has failed"})


def test_abort_ends_the_pipeline_as_failed(workspace):
    done = execute(workspace, stages(), ["abort"])
    assert (done.state, done.plan.questions()) == (State.FAILED, {})


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_end_of_file_and_ctrl_c_end_the_pipeline_as_stopped_and_resume_asks_again(workspace, end):
    done = execute(workspace, stages(), [end])
    assert (done.state, len(done.person.asked)) == (State.STOPPED, 1)
    asked = done.plan.questions()["a"]
    assert (asked.run, asked.reason) == ("p.a", "ValueError: it went wrong")
    again = execute(workspace, stages(), ["abort"])
    assert again.launched == []  # the question goes first: nothing is tried before somebody has answered
    assert again.person.asked[0] == asked


def test_the_person_is_asked_only_when_nothing_else_can_happen(workspace):
    done = execute(workspace, stages(), ["abort"])
    assert done.person.notes[0] == (
        "a has failed and waits for an answer: ValueError: it went wrong\n"
        "  clew answer p a resume|restart|continue|abort"
    )
    assert done.launched == ["p.a", "p.free"]


def test_an_answer_that_came_while_nobody_carried_the_plan_out_is_taken(workspace):
    execute(workspace, stages(good_attempt=2), [EOFError])
    plan = find_plan(workspace, "p")
    plan.inbox.send("answer", stage="a", question=plan.questions()["a"].id, choice="resume")
    done = execute(workspace, stages(good_attempt=2))
    assert (done.state, done.person.asked, done.launched) == (State.COMPLETED, [], ["p.a", "p.b"])


def test_an_answer_to_another_question_is_thrown_away(workspace):
    execute(workspace, stages(), [EOFError])
    plan = find_plan(workspace, "p")
    plan.inbox.send("answer", stage="a", question="an older one", choice="resume")
    plan.inbox.send("answer", stage="a", question=plan.questions()["a"].id, choice="dance")
    done = execute(workspace, stages(), ["abort"])
    assert (len(done.person.asked), plan.inbox.poll()) == (1, [])


def test_a_question_about_a_config_that_was_changed_is_dropped(workspace):
    execute(workspace, stages(), [EOFError])
    done = execute(workspace, {**stages(), "a": stage(score=0.1)})
    assert (done.state, done.plan.questions(), done.person.asked) == (State.COMPLETED, {}, [])


def test_a_question_is_dropped_when_the_pipeline_does_not_ask_any_more(workspace):
    execute(workspace, stages(good_attempt=2), [EOFError])
    done = Outcome(workspace, stages(good_attempt=2))
    assert (done.state, done.plan.questions()) == (State.COMPLETED, {})


def test_a_stage_that_cannot_even_be_made_is_asked_about_too(workspace):
    config = {"a": stage(), "b": stage(source="${a.artifacts.nothing}")}
    done = execute(workspace, config, ["resume", EOFError])
    assert (done.state, len(done.person.asked)) == (State.STOPPED, 2)
    assert done.plan.questions()["b"].run == ""


def test_a_plan_that_waits_is_paused_and_stop_ends_it(workspace):
    seen = []

    def onlooker():
        wait_until(lambda: (plan := find_plan(workspace, "p")) is not None and plan.state is State.PAUSED)
        plan = find_plan(workspace, "p")
        seen.append(plan.states.read().reason)
        plan.inbox.send("stop")

    thread = threading.Thread(target=onlooker)
    thread.start()
    done = execute(workspace, {"a": stage(error="ValueError")}, [""] * 10_000)
    thread.join()
    assert (done.state, seen) == (State.STOPPED, ["waits for an answer: a"])


def test_an_answer_from_elsewhere_is_taken_while_the_person_thinks(workspace):
    def elsewhere():
        wait_until(lambda: (plan := find_plan(workspace, "p")) is not None and bool(plan.questions()))
        plan = find_plan(workspace, "p")
        plan.inbox.send("answer", stage="a", question=plan.questions()["a"].id, choice="resume")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    done = execute(workspace, stages(good_attempt=2), [""] * 10_000)
    thread.join()
    assert done.state is State.COMPLETED
    assert "a: resume" in done.person.notes


def test_damaged_questions_are_no_questions(workspace):
    execute(workspace, stages(), [EOFError])
    (find_plan(workspace, "p").path / "questions.json").write_text("{")
    done = execute(workspace, stages(good_attempt=2), ["abort"])
    assert done.plan.questions() == {}


def test_resume_keeps_its_word_when_the_job_was_mended_meanwhile(workspace, tmp_path):
    job = tmp_path / "mended.py"
    text = Path(FLAKY.rpartition(":")[0]).read_text()
    job.write_text(text)

    class Mender(Person):
        def answer(self, question):
            job.write_text(text.replace("if config.error and", "if False and"))
            return "resume"

    config = {"a": {"job": f"{job}:flaky", "error": "ValueError", "good_attempt": 2}}
    target = Here()
    executor = Executor(open_plan(workspace, "p"), workspace, target, Silent(), Mender())
    assert executor.execute(load_pipeline({"stages": config, "on_failure": "wait"})) is State.COMPLETED
    assert target.launched == ["p.a", "p.a"]
