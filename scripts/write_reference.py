"""Write ``docs/reference.md`` from the code, and the last line of every page: ``python scripts/write_reference.py``.

Verbs, options, schemas, states and moves are read from what runs. The source is searched for journal events and
environment variables, and one that has no meaning in the tables below is an error.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import clew
from clew.cli.main import VERBS
from clew.cli.parser import Parser
from clew.config import describe
from clew.config.schema import fields_of, is_config
from clew.errors import ClewError, UserError
from clew.jobs import JobConfig, job_registry
from clew.jobs.loading import registries
from clew.notify import NotifyConfig
from clew.plans.head import PipelineHead, StageHead
from clew.runs.states import MOVES, State

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs/reference.md"
SOURCE = ROOT / "src/clew"
UNLINKED = ("README.md", "performance.md")
"""The list of the pages, and one that `make bench` writes."""

STATES = {
    State.CREATED: "the directory is there, and nobody has asked for an attempt",
    State.QUEUED: "somebody has asked for an attempt",
    State.STARTING: "the worker's process is there",
    State.RUNNING: "the worker works",
    State.PAUSED: "it waits; of a pipeline: for an answer",
    State.COMPLETED: "the result is there",
    State.STOPPED: "it was asked to stop, and saved; can be resumed",
    State.FAILED: "its own error ended it; can be resumed",
    State.INTERRUPTED: "a signal, a kill or a crash ended it; can be resumed",
    State.UNKNOWN: "said by an observer on another machine when the lease has run out; never written",
}
KINDS = {
    "artifact": "an output was published",
    "attempt": "an attempt has begun, in this environment",
    "changed": "what the run does otherwise since this attempt: keys of the config, what they were, what is set",
    "checkpoint": "the state was saved",
    "checkpoint_bad": "a checkpoint does not verify and was passed over",
    "checkpoint_fetched": "no checkpoint here could be used, and the newest was fetched from the mirror",
    "command": "somebody asked for something, and what became of it",
    "failure": "something failed, and the run went on or ended",
    "generation": "an answer of an evaluation",
    "health": "how the training is doing",
    "horizon": "how far the run goes",
    "checkpoint_failed": "a checkpoint that was being written while the training went on could not be",
    "disk_full": "a checkpoint did not fit on the disk, and the run waits for space",
    "layout": "in how many processes the attempt runs, and what was chosen for that when the run was resumed",
    "metric": "numbers of a step",
    "digest": "hashes of weights and optimizer, by which runs are compared",
    "progress": "how far something long is, such as an inspection",
    "settings": "what can be set while it runs, and the config key that each stands over",
    "switched": "the process goes on as a child of this run",
    "trouble": "loss or gradient are no longer finite, and what is done about it",
    "paused": "the run makes no further step until it is told to",
    "rank": "one of several processes has begun; stands in its own file, as its failure does",
    "restore": "the step from which this attempt goes on; later steps of earlier attempts do not count any more",
    "resumed": "a paused run goes on",
    "rollout": "an answer that was rewarded in training",
    "went_back": "the run was resumed at an earlier checkpoint; what it had done and been told later does not count",
    "sample": "an answer to a fixed prompt, shown on the way",
}
EVENTS = {
    "answer": "a question was answered",
    "completion": "the pipeline, or a single run, is over, in whatever state",
    "delivery": "what became of telling the webhook an event",
    "failure": "a stage, or a single run, has failed for good",
    "retry": "a stage has failed and is tried again",
    "waiting": "a stage has failed, and somebody is asked what is to become of it; or a run waits for space",
}
VARIABLES = {
    "CLEW_LOG": "how much is told: quiet, normal or verbose",
    "CLEW_LOG_FORMAT": "text or json, for what goes to stderr and into the logs of runs",
    "CLEW_SECRETS": "names of further environment variables whose values are secrets, with commas between them",
    "CLEW_STORE": "the URL of the store; without it a SQLite file in the workspace",
    "CLEW_WORKSPACE": "the folder of runs; without it the current folder",
}


def reference() -> str:
    """Return the page."""
    parts = [
        "# Reference\n\nWhat can be said, as the code has it. Written by `make reference`; an edit here is lost.",
        _command_line(),
        _schemas(),
        _section("Exit codes", _table(("code", "meaning"), _exit_codes())),
        _section("States", _table(("state", "meaning", "may become"), _states())),
        _section("Events of a journal", _table(("kind", "meaning", "fields beside `t`"), _journal())),
        _section("Events of a pipeline", _table(("event", "meaning"), _plan_events())),
        _section("Environment variables", _table(("name", "meaning"), _variables())),
        _section("Python", _table(("name", "meaning"), _names())),
    ]
    return with_next("reference.md", "\n\n".join(parts) + "\n")


def with_next(page: str, text: str) -> str:
    """Return a page whose last line leads to the one that follows it in ``docs/README.md``."""
    order = re.findall(r"^\d+\. \[(.+)\]\((.+)\)$", (ROOT / "docs/README.md").read_text(encoding="utf-8"), re.M)
    body = re.sub(r"\n*^Next: \[.*\]\(.*\)$", "", text, flags=re.M).rstrip("\n")
    pages = [path for _, path in order]
    if page not in pages:
        raise SystemExit(f"docs/README.md does not say where {page} stands in the reading order")
    index = pages.index(page) + 1
    return f"{body}\n\nNext: [{order[index][0]}]({order[index][1]})\n" if index < len(order) else f"{body}\n"


def _section(title: str, text: str, level: int = 2) -> str:
    return f"{'#' * level} {title}\n\n{text}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[_cell(cell) for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


# The command line.


def _command_line() -> str:
    text = [_section("The command line", f"Every verb takes\n\n{_general()}")]
    for verbs in VERBS.values():
        for verb, (module, summary) in verbs.items():
            parser = Parser(prog=f"clew {verb}", add_help=False)
            import_module(module).configure(parser, verb)
            text.append(_verb(verb, summary, parser._actions))
    return "\n\n".join(text)


def _general() -> str:
    """The options that the parser of every verb adds."""
    from clew.cli import parser

    made: list[Parser] = []
    parser.parse("jobs", "nothing", lambda one, verb: made.append(one), [], {})
    return _table(("argument", "meaning"), ((_option(action), _help(action)) for action in made[0]._actions))


def _verb(verb: str, summary: str, actions: list[argparse.Action]) -> str:
    words = [_word(action) for action in actions if not action.option_strings]
    title = f"### `{' '.join(['clew', verb, *words])}`"
    rows = [(_option(action), _help(action)) for action in actions]
    table = f"\n\n{_table(('argument', 'meaning'), rows)}" if rows else ""
    return f"{title}\n\n{summary[:1].upper()}{summary[1:]}.{table}"


def _word(action: argparse.Action) -> str:
    shown = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
    word = str(shown)
    if action.nargs in ("*", "?"):
        return f"[{word}]"
    return word


def _option(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_word(action)}`"
    takes = "" if action.nargs == 0 else f" {_word(action)}"
    return ", ".join(f"`{name}{takes}`" for name in action.option_strings)


def _help(action: argparse.Action) -> str:
    return (action.help or "") % vars(action)


# Schemas.


def _schemas() -> str:
    about = "A key in brackets is not hashed: it changes no result. `*` is a name or a number of your own."
    text = [_section("Configs", about), _section("Every job", _schema(JobConfig), 3)]
    everything = {"job": job_registry(), **registries()}
    for kind, registry in everything.items():
        for name in sorted(registry.builtin):
            text.append(_entry(kind, name, _config_of(registry.resolve(name))))
    text.append(_section("A pipeline's file, beside its `stages`", _schema(PipelineHead), 3))
    text.append(_section("A stage, beside its job's config", _schema(StageHead), 3))
    text.append(_section("`notify` in a workspace's `clew.yaml`", _schema(NotifyConfig), 3))
    return "\n\n".join(text)


def _entry(kind: str, name: str, cls: type) -> str:
    words = " ".join((cls.__doc__ or "").split())
    return _section(f"{kind.capitalize()} `{name}`", f"{words}\n\n{_schema(cls, JobConfig)}", 3)


def _config_of(found: Any) -> type:
    cls: type = found if is_config(found) else found.config
    assert fields_of(cls) is not None
    return cls


def _schema(cls: type, shown: type | None = None) -> str:
    """The keys of a class; those of the class above it were shown before."""
    known = fields_of(shown) if shown and issubclass(cls, shown) else {}
    rows = [_row(key) for key in describe(cls) if key.key.partition(".")[0] not in known]
    return _table(("key", "type", "default", "meaning"), rows) if rows else "It has no keys."


def _row(key: Any) -> tuple[str, str, str, str]:
    name = f"`{key.key}`" if key.hashed else f"[`{key.key}`]"
    default = "required" if key.required else "" if key.section else f"`{json.dumps(key.default, ensure_ascii=False)}`"
    return name, f"{key.type} {key.constraint}".strip(), default, key.doc


# The rest.


def _meaning(table: Mapping[str, str], name: str) -> str:
    if name not in table:
        raise SystemExit(f"scripts/write_reference.py: say in its tables what {name!r} means")
    return table[name]


def _exit_codes() -> Iterator[tuple[str, str]]:
    yield "0", "done"
    yield str(ClewError.exit_code), "a run did not complete, or something broke"
    yield str(UserError.exit_code), "the request cannot be carried out as it was made"
    yield "130", "Ctrl-C"
    yield "141", "whoever read the output has left"


def _states() -> Iterator[tuple[str, str, str]]:
    for state in State:
        moves = sorted(MOVES.get(state, ()), key=list(State).index)
        yield f"`{state.value}`", STATES[state], ", ".join(f"`{move.value}`" for move in moves)


def _journal() -> Iterator[tuple[str, str, str]]:
    fields = journal_kinds()
    for kind in sorted({*fields, *KINDS}):
        yield f"`{kind}`", _meaning(KINDS, kind), ", ".join(f"`{name}`" for name in sorted(fields.get(kind, ())))


def journal_kinds() -> dict[str, set[str]]:
    """Return what the source writes into journals: kind to the fields that are named there."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if kind := _written(node):
                assert isinstance(node, ast.Call)
                found[kind] |= {keyword.arg for keyword in node.keywords if keyword.arg}
    found["metric"] |= {"step", "values"}
    return dict(found)


def _written(node: ast.AST) -> str:
    """The kind, if a node is ``journal.write("kind", ...)`` or ``session.event("kind", ...)``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
        return ""
    owner = ast.unparse(node.func.value)
    is_write = node.func.attr == "write" and owner.endswith("journal")
    is_event = node.func.attr == "event" and owner.endswith(("session", "boundary"))
    kind = node.args[0]
    return str(kind.value) if (is_write or is_event) and isinstance(kind, ast.Constant) else ""


def _plan_events() -> Iterator[tuple[str, str]]:
    for event in sorted(plan_events() | set(EVENTS)):
        yield f"`{event}`", _meaning(EVENTS, event)


def plan_events() -> set[str]:
    """Return the events that the source tells."""
    told = re.compile(r"""(?:_tell|\.tell)\(\s*"(\w+)\"""")
    return {kind for path in SOURCE.rglob("*.py") for kind in told.findall(path.read_text(encoding="utf-8"))} | {
        "delivery"
    }


def _variables() -> Iterator[tuple[str, str]]:
    for name in sorted(environment_variables() | set(VARIABLES)):
        yield f"`{name}`", _meaning(VARIABLES, name)


def environment_variables() -> set[str]:
    """Return the variables of our own that the source names."""
    name = re.compile(r'"(CLEW_[A-Z_]*[A-Z])"')
    return {found for path in SOURCE.rglob("*.py") for found in name.findall(path.read_text(encoding="utf-8"))}


def _names() -> Iterator[tuple[str, str]]:
    for name in clew.__all__:
        found = getattr(clew, name)
        own = inspect.isclass(found) or inspect.isfunction(found)
        about = (inspect.getdoc(found) or "").split("\n\n")[0] if own else _meaning(ALIASES, name)
        yield f"`clew.{name}`", about


ALIASES = {
    "InputPath": "The type of a path that is read: relative to the file that says it, hashed by its content.",
    "NOT_HASHED": "`Annotated[T, clew.NOT_HASHED]`: the field changes no result and does not enter the hash.",
    "__version__": "The version.",
}


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
    for file in PATH.parent.glob("*.md"):
        if file.name not in UNLINKED:
            file.write_text(with_next(file.name, file.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PATH}")
