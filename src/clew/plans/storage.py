"""The directory of a plan: ``plans/NAME/``.

It holds who the plan is, the pipeline as it was asked for (values with the places that said them), a state with the
same moves and lease as a run's, and an inbox. Which stage is done is not stored here: the runs themselves say it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from clew.config import to_yaml
from clew.config.tree import Items, Leaf, Node, Origin, Section, plain
from clew.errors import UserError
from clew.plans.pipeline import Pipeline, parse_pipeline
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
        """Where a request to stop is put."""
        return Inbox(self.path / "inbox")

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline as it was last asked for."""
        tree = _from_json(read_json(self.path / "tree.json"))
        assert isinstance(tree, Section)
        return parse_pipeline(tree)

    def choose_run(self, stage: str, run: str) -> None:
        """Note which run stands for a stage now; for those who look from outside, never for decisions."""
        if self.chosen_runs().get(stage) != run:
            write_json(self.path / "stages.json", {**self.chosen_runs(), stage: run})

    def chosen_runs(self) -> dict[str, str]:
        """Return the run of each stage, as last noted."""
        try:
            chosen: dict[str, str] = read_json(self.path / "stages.json")
        except (OSError, ValueError):
            return {}
        return chosen

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


def find_plan(workspace: Workspace, name: str) -> Plan | None:
    """Return the plan of that name; None when there is none."""
    path = workspace.plans / name
    return Plan(path) if name and (path / "plan.json").is_file() else None


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
