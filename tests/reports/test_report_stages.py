import pytest
from report_workspaces import finish, generation, make_eval, make_run, metric, restore, rollout, write_events

from clew.reports.stages import Stage, StageView, ancestors, evaluations_of, predecessor
from clew.runs import JournalWriter, State


def graph(root, **evals_right):
    """base -> eval_base; base -> sft -> eval_sft; sft -> grpo -> eval_grpo."""
    needs = {
        "eval_grpo": ["grpo"],
        "eval_sft": ["sft"],
        "eval_base": ["base"],
        "base": [],
        "sft": ["base"],
        "grpo": ["sft"],
    }
    views = []
    for name, before in needs.items():
        run = make_eval(root, name, evals_right[name]) if name in evals_right else None
        views.append(Stage(StageView(name, "eval" if name.startswith("eval") else name, run, before)))
    return views


def test_ancestors_are_the_stages_that_made_the_model(tmp_path):
    before = ancestors(graph(tmp_path))
    assert before["eval_grpo"] == {"base", "sft", "grpo"}
    assert before["eval_base"] == {"base"}


def test_waiting_for_an_evaluation_makes_it_no_ancestor():
    stages = [Stage(StageView("eval_base", "eval")), Stage(StageView("sft", "sft", None, ["eval_base"]))]
    assert ancestors(stages)["sft"] == frozenset()


def test_evaluations_stand_in_the_order_of_their_models(tmp_path):
    assert [stage.name for stage in evaluations_of(graph(tmp_path))] == ["eval_base", "eval_sft", "eval_grpo"]


def test_an_evaluation_is_compared_with_that_of_the_nearest_model_before(tmp_path):
    stages = graph(tmp_path, eval_base=1, eval_sft=2, eval_grpo=3)
    assert predecessor(stages[0], stages) is stages[1]
    assert predecessor(stages[1], stages) is stages[2]
    assert predecessor(stages[2], stages) is None


def test_evaluations_on_different_branches_are_not_compared(tmp_path):
    views = [StageView(name, name) for name in ("left", "right")]
    views += [StageView(f"eval_{name}", "eval", make_eval(tmp_path, name, 2), [name]) for name in ("left", "right")]
    stages = [Stage(view) for view in views]
    assert predecessor(stages[3], stages) is None


def test_evaluations_of_other_problems_are_not_compared(tmp_path):
    few, many = make_eval(tmp_path, "few", 2, count=10), make_eval(tmp_path, "many", 2, count=20)
    stages = [Stage(StageView("few", "eval", few)), Stage(StageView("sft", "sft"))]
    stages.append(Stage(StageView("many", "eval", many, ["sft"])))
    assert predecessor(stages[2], stages) is None


def test_samples_are_the_first_by_index_in_whatever_order_they_came(tmp_path):
    facts = Stage(StageView("e", "eval", make_eval(tmp_path, "e", 3))).facts  # written in reverse
    assert sorted(facts.evaluation.samples) == [0, 1, 2, 3]


def test_points_that_a_later_attempt_does_again_are_left_out(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    write_events(run, [restore(0), metric(10, loss=3.0), metric(20, loss=99.0)])
    write_events(run, [restore(10), metric(20, loss=2.0)], attempt=2)
    facts = Stage(StageView("r", "sft", run)).facts
    assert facts.series["loss"].points() == [(10, 3.0), (20, 2.0)]
    assert facts.resumed == [10]


def test_generations_that_a_later_attempt_does_again_count_once(tmp_path):
    run = make_run(tmp_path, "r", "eval")
    write_events(run, [restore(0), generation(0, "0", 1.0), generation(4, "x", 0.0)])
    write_events(run, [restore(1), generation(4, "8", 1.0)], attempt=2)
    evaluation = Stage(StageView("r", "eval", run)).facts.evaluation
    assert evaluation.tallies["exact"].count == 2
    assert evaluation.tallies["exact"].mean == 1.0


def test_events_that_are_not_as_expected_are_left_out(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    odd = [
        {"kind": "metric", "step": 1},
        {"kind": "metric", "values": {"loss": 1.0}},
        {"kind": "generation", "metrics": 3},
    ]
    odd += [{"kind": "metric", "step": 2, "values": {"loss": None, "name": "text"}}, {"kind": "rollout"}]
    write_events(run, odd)
    facts = Stage(StageView("r", "sft", run)).facts
    assert facts.series == {}
    assert (facts.evaluation.count, facts.rollouts.count) == (1, 1)


def test_a_worker_that_was_killed_has_its_time_from_the_journal(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    write_events(run, [restore(0), metric(1, loss=1.0)])
    finish(run, State.INTERRUPTED, seconds=0.0)
    assert Stage(StageView("r", "sft", run)).seconds == 1.0


def test_without_a_journal_no_time_is_known(tmp_path):
    assert Stage(StageView("r", "sft", make_run(tmp_path, "r", "sft"))).seconds is None


def test_the_result_of_an_earlier_attempt_is_not_the_result_of_this_one(tmp_path):
    run = finish(make_run(tmp_path, "r", "sft"), State.FAILED, metrics={"loss": 1.0})
    assert Stage(StageView("r", "sft", run)).result is not None
    run.states.queue()
    assert Stage(StageView("r", "sft", run)).result is None


def test_a_run_that_died_without_a_result_shows_its_log(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    run.states.queue()
    run.states.move(State.FAILED, attempt=1)
    run.log_path(1).write_text("one\ntwo\n")
    failure = Stage(StageView("r", "sft", run)).failure
    assert failure is not None
    assert (failure.reason, failure.log_tail) == ("the run ended without writing down why", ["one", "two"])


@pytest.mark.parametrize("name", ["result.json", "run.json", "state.json"])
def test_a_damaged_file_costs_only_what_it_held(tmp_path, name):
    run = finish(make_run(tmp_path, "r", "sft"), metrics={"loss": 1.0})
    (run.path / name).write_text("{")
    stage = Stage(StageView("r", "sft", run))
    assert {"result.json": stage.result, "run.json": stage.info, "state.json": stage.attempt}[name] is None


def test_a_job_that_trains_and_samples_is_no_evaluation(tmp_path):
    run = make_run(tmp_path, "r", "mine")
    write_events(run, [metric(1, loss=1.0), generation(0, "0", 1.0)])
    assert not Stage(StageView("r", "mine", run)).is_evaluation


def test_a_job_of_ones_own_that_only_scores_is_an_evaluation(tmp_path):
    run = make_run(tmp_path, "r", "mine")
    write_events(run, [generation(0, "0", 1.0)])
    assert Stage(StageView("r", "mine", run)).is_evaluation


def test_rollouts_of_all_ranks_count_and_metrics_only_of_the_first(tmp_path):
    run = make_run(tmp_path, "r", "grpo")
    write_events(run, [rollout(1, {"exact": 1.0}), metric(1, reward=1.0)])
    other = JournalWriter(run.path / "journal", 1, 1)
    other.write(**rollout(1, {"exact": 0.0}))
    other.write(**metric(1, reward=0.0))
    other.close()
    facts = Stage(StageView("r", "grpo", run)).facts
    assert facts.rollouts.parts["exact"].points() == [(1.0, 0.5)]
    assert facts.series["reward"].count == 1
