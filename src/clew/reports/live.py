"""What was done to runs while they went on: where they come from, the commands with their outcome, and their health."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from clew.health.text import render
from clew.reports.document import Block, Code, Column, Mono, Note, Paragraph, Section, Strong, Table, Text
from clew.reports.facts import Checkup, Intervention
from clew.reports.formats import MISSING, clip, number
from clew.reports.stages import Stage
from clew.runs import RunInfo

_MOST_TEXT = 200
_COMMANDS, _HEALTH = "What was done while it ran", "Health"


def live_sections(stages: Sequence[Stage], *, of: str) -> list[Section]:
    """Return the sections on what was done and on the health, where there is something: most runs are left alone."""
    sections = (commands_section(stages, of=of), health_section(stages, of=of))
    return [section for section in sections if not _is_empty(section)]


def commands_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show where each run comes from, and what was asked of it with what came of it."""
    return _by_stage(_COMMANDS, stages, _commands, nothing=f"Nobody asked anything of this {of} while it ran.")


def health_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show how each training was doing: the newest report, and the verdicts before it."""
    return _by_stage(_HEALTH, stages, _health, nothing=f"The health of this {of} was not looked at.")


def _is_empty(section: Section) -> bool:
    return all(isinstance(block, Note) for block in section.blocks)


def _by_stage(
    title: str, stages: Sequence[Stage], tell: Callable[[Stage], Iterator[Block]], *, nothing: str
) -> Section:
    found = [(stage, blocks) for stage in stages if (blocks := list(tell(stage)))]
    if not found:
        return Section(title, [Note(nothing)])
    if len(stages) == 1:
        return Section(title, found[0][1])
    return Section(title, [Section(Mono(stage.name), blocks) for stage, blocks in found])


def _commands(stage: Stage) -> Iterator[Block]:
    yield from _lineage(stage.info)
    done = stage.facts.interventions
    if not done:
        return
    columns = [
        Column("step", numeric=True),
        Column("command"),
        Column("with"),
        Column("by"),
        Column("outcome"),
        Column("result"),
    ]
    yield Table(columns, [_row(one) for one in done])
    if stage.facts.num_interventions > len(done):
        yield Note(f"These are the first {len(done)} of {stage.facts.num_interventions:,} commands.")


def _lineage(info: RunInfo | None) -> Iterator[Block]:
    """Say what a run was made from."""
    if info is None:
        return
    if info.parent is not None and info.fork_step is not None:
        changes = ", ".join(f"{key} = {_json(value)}" for key, value in info.changes.items())
        text: list[Any] = ["It is a fork of ", Mono(info.parent), f" at step {info.fork_step:,}"]
        yield Paragraph([*text, " with ", Mono(changes), "."] if changes else [*text, ", with nothing changed."])
    if info.replay_of is not None:
        yield Paragraph(["It does ", Mono(info.replay_of), " once more."])


def _row(one: Intervention) -> list[Text]:
    return [
        number(one.step),
        Mono(one.verb),
        Mono(_words(one.args)) if one.args else MISSING,
        one.issuer or MISSING,
        clip(one.outcome, _MOST_TEXT),
        Mono(clip(_words(one.result), _MOST_TEXT)) if one.result else MISSING,
    ]


def _words(values: Mapping[str, Any]) -> str:
    return clip(" ".join(f"{name}={_json(value)}" for name, value in values.items()), _MOST_TEXT)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _health(stage: Stage) -> Iterator[Block]:
    checkups = list(stage.facts.checkups)
    if not checkups:
        return
    newest = checkups[-1]
    yield Paragraph([f"At step {newest.step:,} its health was ", Strong(newest.word), "."])
    if len(checkups) > 1:
        columns = [Column("step", numeric=True), Column("verdict"), Column("because")]
        yield Table(columns, [_checkup(one) for one in checkups])
    if stage.facts.health is not None:
        yield Code(render(stage.facts.health, stage.name))


def _checkup(one: Checkup) -> list[Text]:
    return [number(one.step), one.word, "\n".join(one.texts) or MISSING]
