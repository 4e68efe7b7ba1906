"""The directory of a plan: ``plans/NAME/``.

It holds who the plan is, the pipeline as it was asked for (values with the places that said them), a state with the
same moves and lease as a run's, an inbox, and what it asks people. Which stage is done is not stored here: the runs
themselves say it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clew.config import to_yaml
from clew.config.tree import Items, Leaf, Node, Origin, Section, leaves, plain
from clew.errors import UserError
from clew.jobs.same import changed, listed
from clew.plans.pipeline import Pipeline, parse_pipeline
from clew.plans.questions import Question, read_questions
from clew.runs import Inbox, State, StateFile, Workspace
from clew.runs.files import read_json, write_atomically, write_json
from clew.runs.ids import ulid
from clew.runs.states import PLAN_MOVES


class Plan:
    """A pipeline in a workspace, seen through its directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The plan's id, which is its directory's name."""
        return self.path.name

    @property
    def states(self) -> StateFile:
        """The state file."""
        return StateFile(self.path, PLAN_MOVES)

    @property
    def state(self) -> State:
        """The state as an observer on this machine may say it."""
        return self.states.read().observed(time.time())

    @property
    def inbox(self) -> Inbox:
        """Where a request to stop is put, and answers to questions."""
        return Inbox(self.path / "inbox")

    @property
    def events(self) -> Path:
        """The plan's own journal, one JSON object a line: failures, tries, questions, answers, deliveries, ends."""
        return self.path / "events.jsonl"

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline as it was last asked for.

        Raises:
            UserError: If it was cut off before it was stored, or its file is damaged.
        """
        try:
            tree = _from_json(read_json(self.path / "tree.json"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                "the plan does not say what to run: it was cut off before it was stored, or its file is damaged",
                where=str(self.path / "tree.json"),
                hint="run the pipeline's file again: clew run FILE; stages that are done are kept",
            ) from error
        assert isinstance(tree, Section)
        return parse_pipeline(tree)

    def choose_run(self, stage: str, run: str) -> None:
        """Note which run stands for a stage now; for those who look from outside, never for decisions."""
        self._note("stages.json", {**self.chosen_runs(), stage: run})
        self._note("skipped.json", _without(self.skipped(), stage))

    def chosen_runs(self) -> dict[str, str]:
        """Return the run of each stage, as last noted."""
        return self._noted("stages.json")

    def skip(self, stage: str, reason: str) -> None:
        """Note that a stage is left out now; for those who look from outside, too."""
        self._note("skipped.json", {**self.skipped(), stage: reason})
        self._note("stages.json", _without(self.chosen_runs(), stage))

    def skipped(self) -> dict[str, str]:
        """Return the stages that were left out, each with the reason."""
        return self._noted("skipped.json")

    def renew(self, stages: Iterable[str]) -> None:
        """Ask for stages to be done again: no run that was made before now stands for one of them any more."""
        self._note("renewed.json", {**self.renewed(), **dict.fromkeys(stages, time.time())})

    def renewed(self) -> dict[str, float]:
        """Return since when (Unix seconds) runs may stand for a stage; without an entry all of them may."""
        return self._noted("renewed.json")

    def questions(self) -> dict[str, Question]:
        """Return what the plan asks about its stages, and nobody has answered yet."""
        return read_questions(self.path)

    def _note(self, name: str, value: dict[str, Any]) -> None:
        if self._noted(name) != value:
            write_json(self.path / name, value)

    def _noted(self, name: str) -> dict[str, Any]:
        try:
            noted: dict[str, Any] = read_json(self.path / name)
        except (OSError, ValueError):
            return {}
        return noted

    def write(self, pipeline: Pipeline) -> None:
        """Store what is asked for now."""
        write_atomically(self.path / "pipeline.yaml", to_yaml(plain(pipeline.tree)))
        write_json(self.path / "tree.json", _to_json(pipeline.tree))


def open_plan(workspace: Workspace, name: str) -> Plan:
    """Return the plan of that name, made if it is new.

    Raises:
        UserError: If the workspace cannot be written.
    """
    plan = Plan(workspace.plans / name)
    try:
        (plan.path / "inbox").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the workspace cannot be written: {error.strerror}",
            where=str(workspace.plans),
            hint="choose another one with --workspace DIR or CLEW_WORKSPACE",
        ) from error
    if not (plan.path / "plan.json").exists():
        plan.states.create()
        write_json(plan.path / "plan.json", {"id": name, "uid": ulid(), "created": time.time()})
    return plan


def check_same_plan(plan: Plan, pipeline: Pipeline) -> None:
    """Make sure that a plan that is at work is what is asked for.

    Raises:
        UserError: If it is another pipeline, with the values that differ.
    """
    before, after = plan.pipeline.tree, pipeline.tree
    values = changed(plain(before), plain(after))
    bases = {key: leaf.origin.base for key, leaf in leaves(before)}  # relative paths mean something else elsewhere
    moved = [
        f"{key}: said in another folder"
        for key, leaf in leaves(after)
        if key not in values and leaf.origin.base != bases.get(key)
    ]
    if values or moved:
        raise UserError(
            f"the pipeline is running already, with another config{listed([*values.values(), *moved])}",
            where=plan.id,
            hint=f"clew resume {plan.id} follows it, clew stop {plan.id} ends it",
        )


def find_plan(workspace: Workspace, name: str) -> Plan | None:
    """Return the plan of that name; None when there is none."""
    path = workspace.plans / name
    return Plan(path) if name and (path / "plan.json").is_file() else None


def _without(values: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if key != name}


def _to_json(node: Node) -> Any:
    origin = [node.origin.layer, node.origin.where, str(node.origin.base) if node.origin.base else None]
    if isinstance(node, Section):
        return {"origin": origin, "section": {name: _to_json(item) for name, item in node.items.items()}}
    if isinstance(node, Items):
        return {"origin": origin, "items": [_to_json(item) for item in node.items]}
    return {"origin": origin, "value": node.value}


def _from_json(value: Any) -> Node:
    layer, where, base = value["origin"]
    origin = Origin(layer, where, Path(base) if base else None)
    if "section" in value:
        return Section({name: _from_json(item) for name, item in value["section"].items()}, origin)
    if "items" in value:
        return Items(tuple(_from_json(item) for item in value["items"]), origin)
    return Leaf(value["value"], origin)
