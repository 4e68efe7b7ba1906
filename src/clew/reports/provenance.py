"""With what and from what: environments, artifacts with their hashes, and the hashes of config and code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clew.reports.document import Block, Column, Mono, Note, Section, Table, Text
from clew.reports.formats import MISSING, number, size
from clew.reports.stages import Stage, heading
from clew.runs import JobResult

_SHOWN_HASH = 16


def environment_section(stages: Sequence[Stage]) -> Section:
    """Show versions and hardware, one column for each different environment."""
    groups: dict[str, tuple[dict[str, str], list[str]]] = {}
    for stage in stages:
        if stage.environment:
            # Data differs from stage to stage where versions do not: it has a table of its own.
            flat = _flat({key: value for key, value in stage.environment.items() if key != "data"})
            groups.setdefault(json.dumps(flat, sort_keys=True), (flat, []))[1].append(stage.name)
    if not groups:
        return Section("Environment", [Note("No environment is known: no worker has started.")])
    environments = list(groups.values())
    titles: list[Text] = ["version"] if len(environments) == 1 else [_names(names) for _, names in environments]
    keys = dict.fromkeys(key for flat, _ in environments for key in flat)
    rows: list[list[Text]] = [[key, *(flat.get(key, MISSING) for flat, _ in environments)] for key in keys]
    return Section("Environment", [Table([Column("what"), *map(Column, titles)], rows)])


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in environment.items():
        if isinstance(value, Mapping):
            flat |= {str(name): str(item) for name, item in value.items()}
        elif value is not None:
            flat[str(key)] = str(value)
    return flat


def _names(names: Sequence[str]) -> Mono:
    return Mono(", ".join(names))


def artifacts_section(stages: Sequence[Stage], *, of: str) -> Section:
    """Show what was published, and the hashes of what it was made with."""
    rows: list[list[Text]] = [
        [Mono(stage.name), Mono(f"{stage.run.id}/{item.path}"), size(item.bytes), Mono(item.sha256)]
        for stage in stages
        if stage.run and stage.result
        for item in stage.result.artifacts.values()
    ]
    columns = [Column(heading(of)), Column("artifact"), Column("size", numeric=True), Column("SHA-256")]
    published: Block = Table(columns, rows) if rows else Note("No artifact was published.")
    return Section("Artifacts", [published, *_hashes(stages, of), *_circumstances(stages, of)])


def _hashes(stages: Sequence[Stage], of: str) -> list[Block]:
    rows: list[list[Text]] = [
        [Mono(stage.name), Mono(stage.info.id), _short(stage.info.config_hash), _short(stage.info.code_hash)]
        for stage in stages
        if stage.info
    ]
    columns = [Column(heading(of)), Column("run id"), Column("config hash"), Column("code hash")]
    return [Table(columns, rows)] if rows else []


def _circumstances(stages: Sequence[Stage], of: str) -> list[Block]:
    """What is known of some runs only: data that was read, copies elsewhere, trackers, machine, energy."""
    rows: list[list[Text]] = [
        [Mono(stage.name), what, value] for stage in stages if stage.result for what, value in _set(stage.result)
    ]
    return [Table([Column(heading(of)), Column("what"), Column("value")], rows)] if rows else []


def _set(result: JobResult) -> Iterator[tuple[Text, Text]]:
    data = result.environment.get("data")
    for key, digest in data.items() if isinstance(data, Mapping) else ():
        yield ["data of ", Mono(str(key))], _short(str(digest))
    if result.remote is not None:
        at = f" at {result.remote.revision}" if result.remote.revision else ""
        yield "pushed to", Mono(f"{result.remote.url}{at}")
    for name, url in result.trackers.items():
        yield ["tracked by ", Mono(name)], Mono(url)
    if result.instance is not None:
        yield "machine", Mono(result.instance)
    if result.preempted is not None:
        yield "machine taken away", "yes" if result.preempted else "no"
    if result.energy is not None:
        kind = "estimated by" if result.energy.estimated else "metered by"
        yield "energy", [f"{number(result.energy.joules)} J, {kind} ", Mono(result.energy.meter)]


def _short(digest: str) -> Text:
    return Mono(digest[:_SHOWN_HASH]) if digest else MISSING
