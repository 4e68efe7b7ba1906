"""``clew checkpoints``: the checkpoints of a run, and what can be done with them beside it."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clew.checkpoints import Checkpoint, CheckpointStore
from clew.checkpoints.store import folder_of
from clew.cli.finding import find_run, workspace_of
from clew.cli.text import age, number, parse_size, print_table, size
from clew.errors import UserError, did_you_mean
from clew.runs import Run, Workspace
from clew.runs.states import OWNED

if TYPE_CHECKING:
    from clew.cli.parser import Parser

_SHOWN = 20
_MODEL = ("config.json", "model*.safetensors", "pytorch_model*.bin")
"""What a model's folder has at least one of."""
_FORMS = {
    "list": "RUN",
    "verify": "RUN [STEP ...]",
    "prune": "RUN [--keep-last N] [--keep-every N] [--yes]",
    "export": "RUN STEP FOLDER [--hf [--shard-size SIZE]]",
    "import": "FOLDER --as RUN",
    "restore": "RUN [--from URL]",
    "diff": "RUN STEP STEP",
}


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    forms = "; ".join(f"{action} {form}" for action, form in _FORMS.items())
    parser.add_argument("words", metavar="[ACTION] RUN ...", nargs="+", help=f"a run lists its checkpoints; or {forms}")
    parser.add_argument("--verify", action="store_true", help="read every file, and say what is wrong")
    parser.add_argument(
        "--keep-last", type=int, metavar="N", help="with prune: how many of the newest stay (default: 2)"
    )
    parser.add_argument("--keep-every", type=int, metavar="N", help="with prune: multiples of this stay")
    parser.add_argument("--yes", action="store_true", help="with prune: do it; without, it is only said")
    parser.add_argument("--hf", action="store_true", help="with export: only the model, as other programs load it")
    parser.add_argument(
        "--shard-size",
        metavar="SIZE",
        help="with --hf: weights in files of at most so many bytes, such as 5GB or 500MB",
    )
    parser.add_argument("--as", dest="as_run", metavar="RUN", help="with import: the name of the new run")
    parser.add_argument("--from", dest="source", metavar="URL", help="with restore: where the copies are")


def main(arguments: Namespace) -> int:
    """Carry out one action; a name alone lists that run's checkpoints."""
    action, *words = arguments.words
    if not words and action not in _FORMS:
        action, words = "list", [action]
    if action not in _FORMS:
        raise UserError(f"{action!r} is nothing to do", where="checkpoints", hint=did_you_mean(action, _FORMS))
    least, most = {"verify": (1, 99), "export": (3, 3), "diff": (3, 3)}.get(action, (1, 1))
    if not least <= len(words) <= most:
        raise UserError(
            f"{action} takes other words", where="checkpoints", hint=f"clew checkpoints {action} {_FORMS[action]}"
        )
    workspace = workspace_of(arguments)
    if action == "import":
        return _import(Path(words[0]), workspace, arguments.as_run)
    run = find_run(workspace, words[0], purpose="has no checkpoints of its own")
    match action:
        case "list":
            return _list(run, verify=arguments.verify)
        case "verify":
            return _verify(run, words[1:])
        case "prune":
            return _prune(run, arguments)
        case "export":
            return _export(run, words[1], Path(words[2]), hf=arguments.hf, shard_size=arguments.shard_size)
        case "restore":
            return _restore(run, arguments.source)
    return _diff(run, words[1], words[2])


def _list(run: Run, *, verify: bool) -> int:
    store = CheckpointStore(run.checkpoints)
    tags = _names(store)
    found = store.all()
    if not found:
        print(f"{run.id} has saved no checkpoints")
        return 0
    problems = {one.step: one.problem() for one in found} if verify else {}
    columns = ("step", "attempt", "size", "metric", "age", "tags", *(["state"] if verify else []))
    print_table(columns, (_row(one, tags.get(one.step, []), problems) for one in reversed(found)))
    return 1 if any(problems.values()) else 0


def _names(store: CheckpointStore) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for tag, step in store.tags().items():
        names.setdefault(step, []).append(tag)
    if (best := store.rated_best()) is not None:
        names.setdefault(best, []).append("best")
    return names


def _row(checkpoint: Checkpoint, names: list[str], problems: dict[int, str]) -> tuple[str, ...]:
    state = [problems[checkpoint.step] or "good"] if problems else []
    try:
        found = checkpoint.manifest
    except (OSError, ValueError):
        return (str(checkpoint.step), "?", "?", "", "", ", ".join(names), *(state or []))
    metric = "" if found.metric is None else number(found.metric)
    passed = age(time.time() - found.saved)
    return (str(found.step), str(found.attempt), size(found.bytes), metric, passed, ", ".join(names), *state)


def _verify(run: Run, steps: list[str]) -> int:
    store = CheckpointStore(run.checkpoints)
    found = [_find(run, store, word) for word in steps] if steps else store.all()[::-1]
    good = []
    for checkpoint in found:
        problem = checkpoint.problem()
        good += [] if problem else [checkpoint.step]
        print(f"{run.id} step {checkpoint.step}: {problem or 'good'}")
    if not found:
        print(f"{run.id} has saved no checkpoints")
    if len(good) == len(found):
        return 0
    if not steps:
        none = f"none of them can be used; clew checkpoints restore {run.id} fetches copies from a mirror"
        print(f"the newest good one is that of step {max(good)}" if good else none)
    return 1


def _find(run: Run, store: CheckpointStore, word: str) -> Checkpoint:
    """Return a checkpoint by its step or tag, whether it verifies or not."""
    step = store.tags().get(word, int(word) if word.isdigit() else -1)
    found = next((one for one in store.all() if one.step == step), None)
    if found is None:
        there = [str(one.step) for one in store.all()[::-1]]
        hint = f"there {'are' if len(there) > 1 else 'is'} {', '.join(there) or 'none'}"
        raise UserError(f"there is no checkpoint {word!r}", where=run.id, hint=hint)
    return found


def _prune(run: Run, arguments: Namespace) -> int:
    if run.state in OWNED:
        raise UserError("this run is alive, and looks after its checkpoints itself", where=run.id)
    keep_last = 2 if arguments.keep_last is None else arguments.keep_last
    if keep_last < 1 or (arguments.keep_every or 1) < 1:
        raise UserError("at least one is kept", where="checkpoints prune")
    store = CheckpointStore(run.checkpoints)
    gone = store.spare(keep_last, keep_every=arguments.keep_every)
    if not gone:
        print(f"{run.id}: nothing to delete")
        return 0
    room = sum(_bytes(run.checkpoints / folder_of(step)) for step in gone)
    steps = f"{'step' if len(gone) == 1 else 'steps'} {', '.join(map(str, gone))}"
    if not arguments.yes:
        print(f"{run.id}: would delete {steps}, {size(room)}; --yes does it")
        return 0
    store.prune(keep_last, keep_every=arguments.keep_every)
    print(f"{run.id}: deleted {steps}, {size(room)}")
    return 0


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _export(run: Run, which: str, target: Path, *, hf: bool, shard_size: str | None) -> int:
    from clew.checkpoints.transfer import export_checkpoint, export_model
    from clew.models.source import checkpoint_model
    from clew.session.sources import find_checkpoint

    if shard_size is not None and not hf:
        raise UserError("--shard-size goes with --hf", hint="a checkpoint is exported as it is")
    shard_bytes = None if shard_size is None else parse_size(shard_size, "--shard-size")
    checkpoint = find_checkpoint(run, which)
    if hf:
        export_model(checkpoint_model(checkpoint), target, shard_bytes)
    else:
        export_checkpoint(run, checkpoint, target)
    print(f"{run.id} step {checkpoint.step}: {target} ({size(_bytes(target))})")
    return 0


def _import(folder: Path, workspace: Workspace, name: str | None) -> int:
    from clew.checkpoints.transfer import import_checkpoint, is_exported

    if not name or "/" in name or name.startswith("."):
        raise UserError("an imported checkpoint needs the name of a run", hint="say --as RUN")
    if (workspace.plans / name).exists():
        raise UserError(f"a pipeline named {name!r} exists already", hint="choose another --as")
    if not is_exported(folder) and any(any(folder.glob(mark)) for mark in _MODEL):
        return _import_model(folder, workspace, name)
    run = import_checkpoint(folder, workspace.runs, name)
    step = CheckpointStore(run.checkpoints).all()[0].step
    print(f"{run.id}: made from step {step}; clew resume {run.id} goes on from there")
    return 0


def _import_model(folder: Path, workspace: Workspace, name: str) -> int:
    if (workspace.runs / name).exists():
        raise UserError(f"a run named {name!r} exists already", hint="choose another --as")
    from clew.jobs.importing import import_model
    from clew.jobs.starting import sizes_of

    made = import_model(folder, workspace, name)
    sizes = " ".join(f"model.{key}={value}" for key, value in sizes_of(made.found.config).items())
    print(f"{name}: a model of {made.found.num_parameters:,} parameters ({size(_bytes(made.run.artifacts))})")
    print(f"  model=run:{name} tunes, evaluates or merges it; its checkpoint is {name}@0")
    print(f"  pretrain begins with its weights by start=run:{name} {sizes}")
    return 0


def _restore(run: Run, url: str | None) -> int:
    from clew.remote.mirror import mirror_of, restore

    place = url or mirror_of(run)
    if not place:
        raise UserError("nothing says where its copies are", where=run.id, hint="say --from URL, or checkpoint.mirror")
    if run.state in OWNED:
        raise UserError("this run is alive, and looks after its checkpoints itself", where=run.id)
    done = restore(run, place)
    if not done.steps:
        print(f"{run.id}: nothing of what {place} has is missing or damaged here")
        return 0
    steps = ", ".join(map(str, done.steps))
    print(f"{run.id}: restored {steps} from {place}; {size(done.fetched)} of {size(done.bytes)} fetched")
    return 0


def _diff(run: Run, one: str, other: str) -> int:
    from clew.checkpoints.compare import compare_checkpoints
    from clew.session.sources import find_checkpoint

    first, second = find_checkpoint(run, one), find_checkpoint(run, other)
    found = compare_checkpoints(first.path, second.path)
    print(
        f"{run.id}, step {first.step} against step {second.step}: "
        f"{len(found.differences)} tensors differ, {found.same} are the same"
    )
    worst = sorted(found.differences, key=lambda one: (bool(one.what), one.relative), reverse=True)[:_SHOWN]
    if worst:
        print_table(
            ("tensor", "largest", "relative", "values"),
            (
                (one.name, one.what, "", "")
                if one.what
                else (one.name, number(one.largest), number(one.relative), f"{one.values}/{one.size}")
                for one in worst
            ),
        )
    if len(found.differences) > _SHOWN:
        print(f"and {len(found.differences) - _SHOWN} more, which differ less")
    return 1 if found.differences else 0
