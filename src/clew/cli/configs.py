"""``clew config``, ``clew check``, ``clew explain``: configs before anything runs."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew import api
from clew.cli.finding import workspace_of
from clew.cli.schemas import schema_of
from clew.config import explain, template, to_yaml
from clew.errors import ConfigError, UserError, did_you_mean
from clew.followers import followers_of
from clew.jobs import LoadedJob, load_job, resolve_job
from clew.jobs.loading import load_run, registries
from clew.plans import Pipeline
from clew.plans.head import HEAD_KEYS, STAGE_KEYS, load_head, load_stage_head
from clew.plans.references import resolve_references, sample_value
from clew.runs import Workspace
from clew.sources import resolved

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments of a verb."""
    if verb == "config":
        parser.add_argument(
            "action",
            choices=("new", "show", "schema"),
            help="write a commented config, print a resolved one, or print a JSON schema for editors",
        )
        parser.add_argument(
            "what",
            metavar="JOB|FILE",
            help="new: a job (see clew jobs); show: a config file; schema: a job, a config file, pipeline or result",
        )
        parser.add_argument("-o", "--output", metavar="FILE", help="new, schema: write there instead of printing")
        parser.add_argument(
            "--from", dest="below", default="", metavar="RUN|FILE", help="show: lay the config of a run or a file below"
        )
        parser.add_argument("--preset", metavar="NAME", help="new: start from a preset of the job")
    else:
        also = ", or a run" if verb == "explain" else ""
        parser.add_argument(
            "what", metavar="FILE|RUN" if also else "FILE", help=f"the config of a job or a pipeline{also}"
        )
    if verb == "check":
        parser.add_argument(
            "--show-labels", type=int, metavar="N", help="print N examples of an sft job, the trained tokens marked"
        )
    if verb == "explain":
        parser.add_argument("key", metavar="KEY", help="a key or a section, such as training.lr")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="values over those of the file")


def main(arguments: Namespace) -> int:
    """Carry out one of the three verbs."""
    if arguments.verb == "config" and arguments.action == "new":
        return _new(arguments)
    if arguments.verb == "config" and arguments.action == "schema":
        return _schema(arguments)
    workspace = workspace_of(arguments)
    if arguments.verb == "explain" and not Path(arguments.what).exists() and _is_run(workspace, arguments.what):
        if arguments.overrides:
            raise UserError("a run has its values", where=arguments.what, hint="leave key=value out")
        print(explain(load_run(workspace.find_run(arguments.what)).loaded, arguments.key))
        return 0
    below = arguments.below if arguments.verb == "config" else ""
    work = api.read(arguments.what, arguments.overrides, workspace=workspace, below=below)
    if arguments.verb == "check":
        return _check(work, arguments)
    if arguments.verb == "explain":
        print(_explain(work, arguments.key))
    else:
        print(to_yaml(resolved(work)), end="")
    return 0


# new


def _new(arguments: Namespace) -> int:
    job = resolve_job(arguments.what)
    output = Path(arguments.output) if arguments.output else None
    head = {"job": _reference_from(arguments.what, output), **_preset(job.config, arguments.preset)}
    text = template(job.config, head=head, registries=registries())
    if output is None:
        print(text, end="")
        return 0
    _write(output, text, "x")
    print(f"{output}: written; fill in what is marked as required, then: clew check {output}")
    return 0


def _write(output: Path, text: str, mode: Literal["x", "w"]) -> None:
    try:
        with output.open(mode, encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UserError("the file exists already", where=str(output), hint="choose another name with -o") from None
    except OSError as error:
        raise UserError(f"cannot write the file: {error.strerror}", where=str(output)) from error


def _reference_from(reference: str, output: Path | None) -> str:
    """A job in a file is named relative to the config that names it."""
    place, _, name = reference.rpartition(":")
    if not place.endswith(".py") or Path(place).is_absolute():
        return reference
    return f"{os.path.relpath(place, output.parent if output else Path())}:{name}"


def _preset(cls: type, name: str | None) -> Mapping[str, Any]:
    """The values of a preset; they go into the file, since a file that says every key would hide the preset."""
    if name is None:
        return {}
    presets: Mapping[str, Mapping[str, Any]] = getattr(cls, "presets", {})
    if name not in presets:
        hint = did_you_mean(name, presets) or f"{cls.__name__} has no presets"
        raise UserError(f"unknown preset {name!r}", hint=hint)
    return presets[name]


# schema


def _schema(arguments: Namespace) -> int:
    """A schema is made anew whenever a job changes, so it may be written over."""
    text = json.dumps(schema_of(arguments.what), indent=2, ensure_ascii=False) + "\n"
    if arguments.output is None:
        print(text, end="")
        return 0
    _write(Path(arguments.output), text, "w")
    print(f"{arguments.output}: written; in a config: # yaml-language-server: $schema={arguments.output}")
    return 0


# check


def _check(work: api.Work, arguments: Namespace) -> int:
    loaded = api.check(work, workspace=workspace_of(arguments))
    if isinstance(work, LoadedJob):
        print(f"ok: {describe_job(work)}")
    else:
        print(f"ok: {describe_pipeline(work)}")
        for name, stage in work.stages.items():
            after = f"  after {', '.join(stage.needs)}" if stage.needs else ""
            print(f"  {name}: {describe_job(loaded[name])}{after}")
    for name, job in loaded.items():
        for tracker, follower in followers_of(job.config).items():
            if missing := follower.missing():
                print(f"note: {f'{name}: ' if name else ''}{tracker}: {missing}; a run goes on without it")
        if hub := _from_hub(job.plain.get("model")):
            print(f"note: {f'{name}: ' if name else ''}model: there is no folder {hub!r}; a hub will be asked for it")
    if arguments.show_labels is not None:
        from clew.cli.labels import show_labels

        show_labels(work, arguments.show_labels, workspace_of(arguments))
    return 0


def _from_hub(reference: Any) -> str:
    """A model that can be right, and is not here; empty for any other."""
    said = reference if isinstance(reference, str) else ""
    elsewhere = said.startswith(("run:", "${")) or "://" in said or Path(said).expanduser().exists()
    return "" if elsewhere else said


def describe_job(loaded: LoadedJob) -> str:
    """Say in a line what a loaded job is."""
    said = sum(entry.origin.layer != "default" for entry in loaded.loaded.origins.values())
    rest = len(loaded.loaded.origins) - said
    values = "value" if said == 1 else "values"
    return f"job {loaded.reference}, {said} {values} given, {rest} by default, config {loaded.config_hash[:12]}"


def describe_pipeline(pipeline: Pipeline) -> str:
    """Say in a line what a pipeline is."""
    num = len(pipeline.stages)
    return f"pipeline {pipeline.name}, {num} {'stage' if num == 1 else 'stages'}, {pipeline.max_parallel} at a time"


# explain


def _is_run(workspace: Workspace, name: str) -> bool:
    return bool(name) and (workspace.runs / name / "run.json").is_file()


def _explain(work: api.Work, key: str) -> str:
    if isinstance(work, LoadedJob):
        return explain(work.loaded, key)
    head, _, rest = key.partition(".")
    if head in HEAD_KEYS:
        return explain(load_head(work.tree), key)
    # A stage's name may hold dots itself.
    name = max((stage for stage in work.stages if f"{rest}.".startswith(f"{stage}.")), key=len, default="")
    inner = rest[len(name) + 1 :]
    if head != "stages" or not name:
        name = rest.partition(".")[0]
        hint = did_you_mean(name, work.stages) if head == "stages" and name else "such as stages.NAME.seed"
        raise ConfigError(f"there is no key {key!r}", where=f"pipeline {work.name}", hint=hint)
    if inner.partition(".")[0] in STAGE_KEYS:
        return explain(load_stage_head(work.tree, work.said(name)), inner)
    return explain(load_job(resolve_references(work.stages[name].tree, sample_value)).loaded, inner)
