import pytest
from plan_support import Outcome, stage

from clew.errors import ConfigError
from clew.plans import load_pipeline
from clew.plans.policy import Policy, RetryConfig, can_pass
from clew.runs import Failure, State, Workspace
from clew.targets import LocalTarget
from support import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("borne")]

NOW = {"times": 2, "wait_seconds": 0}


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "ws")


def test_abort_starts_nothing_more(workspace):
    done = Outcome(workspace, {"a": stage(error="ValueError"), "b": stage()})
    assert (done.state, done.launched) == (State.FAILED, ["p.a"])
    assert done.told() == ["failure", "completion"]
    assert done.events[0]["reason"] == "ValueError: it went wrong"


def test_continue_goes_on_with_what_does_not_need_the_stage_and_fails_in_the_end(workspace):
    stages = {
        "a": stage(error="ValueError"),
        "takes": stage(source="${a.artifacts.out}"),
        "after": stage(after="a"),
        "third": stage(after="takes"),
        "free": stage(),
    }
    done = Outcome(workspace, stages, on_failure="continue")
    assert done.state is State.FAILED
    assert done.launched == ["p.a", "p.free"]
    assert done.skips() == {"takes": "a has failed", "after": "a has failed", "third": "takes was skipped"}
    assert done.plan.skipped() == done.skips()


def test_when_every_stage_has_failed_the_pipeline_has_failed(workspace):
    stages = {"a": stage(error="ValueError"), "b": stage(error="OSError")}
    assert Outcome(workspace, stages, on_failure="continue").state is State.FAILED


def test_a_stage_says_for_itself_what_its_failure_means(workspace):
    stages = {"a": stage(error="ValueError", on_failure="continue"), "b": stage(error="ValueError"), "c": stage()}
    done = Outcome(workspace, stages)
    assert done.launched == ["p.a", "p.b"]


def test_what_was_skipped_is_started_once_the_failure_is_mended(workspace, tmp_path):
    stages = {"a": stage(error="ValueError", gate=str(tmp_path / "gate")), "b": stage(after="a")}
    first = Outcome(workspace, stages, on_failure="continue")
    assert first.plan.skipped() == {"b": "a has failed"}
    (tmp_path / "gate").touch()
    second = Outcome(workspace, stages, on_failure="continue")
    assert (second.state, second.plan.skipped()) == (State.COMPLETED, {})


def test_a_cause_that_can_pass_is_tried_again_in_the_same_run(workspace):
    done = Outcome(workspace, {"a": stage(error="OSError", good_attempt=3)}, on_failure="retry", retry=NOW)
    assert done.state is State.COMPLETED
    assert done.launched == ["p.a"] * 3
    assert done.results["a"].run.result.attempts == 3
    assert done.person.notes == [
        "a: try 1 of 2 follows in 0 s (it went wrong)",
        "a: try 2 of 2 follows in 0 s (it went wrong)",
    ]
    assert done.told() == ["retry", "retry", "completion"]


def test_tries_are_limited(workspace):
    done = Outcome(workspace, {"a": stage(error="MemoryError"), "b": stage()}, on_failure="retry", retry=NOW)
    assert (done.state, done.launched) == (State.FAILED, ["p.a"] * 3)


@pytest.mark.parametrize("error", ["UserError", "ConfigError", "ValueError", "FileNotFoundError"])
def test_a_cause_that_cannot_pass_is_not_tried_again(workspace, error):
    done = Outcome(workspace, {"a": stage(error=error, good_attempt=2)}, on_failure="retry", retry=NOW)
    assert (done.state, done.launched) == (State.FAILED, ["p.a"])


def test_after_the_last_try_comes_what_on_failure_says(workspace):
    stages = {"a": stage(error="OSError"), "b": stage()}
    done = Outcome(workspace, stages, on_failure="continue", retry={"times": 1, "wait_seconds": 0})
    assert (done.state, done.launched) == (State.FAILED, ["p.a", "p.a", "p.b"])


def test_others_go_on_while_a_stage_waits_for_its_next_try(workspace):
    retry = {"times": 1, "wait_seconds": 0.5}
    done = Outcome(workspace, {"a": stage(error="OSError", good_attempt=2), "b": stage()}, retry=retry)
    assert (done.state, done.launched) == (State.COMPLETED, ["p.a", "p.b", "p.a"])


def test_a_failure_that_ends_the_pipeline_does_not_wait_for_another_stage_s_next_try(workspace):
    stages = {"a": stage(error="OSError", retry={"wait_seconds": 3600}), "b": stage(error="ValueError")}
    done = Outcome(workspace, stages)
    assert (done.state, done.launched) == (State.FAILED, ["p.a", "p.b"])
    assert done.results["a"].state is State.FAILED


def test_a_killed_worker_goes_on_by_itself(workspace):
    from clew.plans import Executor, open_plan
    from clew.targets.watching import Silent

    executor = Executor(open_plan(workspace, "p"), workspace, LocalTarget(), Silent())
    stages = {"a": {"job": TINY, "until": 8, "kill_at": 7}}
    assert executor.execute(load_pipeline({"stages": stages, "retry": NOW})) is State.COMPLETED
    run = executor.results["a"].run
    assert run.result.attempts == 2
    assert [event["step"] for event in run.events("metric")] == list(range(1, 9))


def test_a_stage_that_cannot_be_made_is_not_tried_again(workspace):
    stages = {"a": stage(), "b": stage(source="${a.artifacts.nothing}")}
    done = Outcome(workspace, stages, on_failure="retry", retry=NOW)
    assert done.launched == ["p.a"]
    assert "the stage has no 'artifacts.nothing'" in done.results["b"].failure.reason


def test_waits_grow_by_their_factor_up_to_an_hour():
    retry = RetryConfig(times=9, wait_seconds=10, factor=3)
    assert [retry.wait(tries) for tries in range(4)] == [10, 30, 90, 270]
    assert retry.wait(50) == retry.wait(100_000) == 3600


PASSING = [
    "killed",
    "interrupted",
    "MemoryError",
    "OutOfMemoryError",
    "OSError",
    "ConnectionResetError",
    "TimeoutError",
]
LASTING = ["ValueError", "UserError", "ConfigError", "DataError", "FileNotFoundError", "PermissionError", "stopped", ""]


@pytest.mark.parametrize(
    ("kind", "passes"), [*((kind, True) for kind in PASSING), *((kind, False) for kind in LASTING)]
)
def test_which_causes_can_pass(kind, passes):
    assert can_pass(Failure(kind, "something")) is passes


@pytest.mark.parametrize(
    ("reason", "passes"),
    [
        ("CUDA out of memory. Tried", True),
        ("DefaultCPUAllocator: can't allocate memory", True),
        ("shapes differ", False),
    ],
)
def test_memory_that_ran_out_is_known_by_its_words(reason, passes):
    assert can_pass(Failure("RuntimeError", reason)) is passes


def test_a_stage_lies_over_its_pipeline_key_by_key():
    top = {"on_failure": "wait", "retry": {"times": 5, "factor": 3}}
    pipeline = load_pipeline({"stages": {"a": stage(retry={"times": 1}), "b": stage(on_failure="abort")}, **top})
    assert pipeline.stages["a"].policy == Policy(on_failure="wait", retry=RetryConfig(times=1, factor=3))
    assert pipeline.stages["b"].policy.on_failure == "abort"
    assert load_pipeline({"stages": {"a": stage()}}).stages["a"].policy.tries is None


ERRORS = {
    "an unknown choice": (
        "on_failure: contniue\nstages:\n  a:\n    job: x\n",
        r"p\.yaml:1: 'on_failure' must be abort \| continue \| retry \| wait, not 'contniue'\n  did you mean",
    ),
    "an unknown key": (
        "stages:\n  a:\n    job: x\n    retry: {tims: 3}\n",
        r"p\.yaml:4: unknown key 'retry\.tims'\n  did you mean 'retry\.times'\?",
    ),
    "a number out of bounds": ("retry: {times: 0}\nstages:\n  a:\n    job: x\n", r"p\.yaml:1: 'retry\.times'.*>= 1"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_mistakes_are_named_with_their_place(tmp_path, case, monkeypatch):
    text, message = ERRORS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_pipeline(tmp_path / "p.yaml")
