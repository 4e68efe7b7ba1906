"""``clew merge``: one model of several, as a run of its own or into a live one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clew.cli.finding import find_run, workspace_of
from clew.cli.merge_sources import live_source, model_of, task_of
from clew.errors import UserError
from clew.runs.ids import check_spelling
from clew.session.live import LiveRun, When

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.merging.methods import MergeMethod
    from clew.runs import Workspace

_OWN_OPTIONS = {"models": "name them before the options", "weights": "--weights", "base": "--base", "name": "--new"}
"""Keys of the job that have an option here."""


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN[@STEP]",
        help="what is merged: runs with a step, a tag, best or last; folders and hub ids for a new run; and '.', the "
        "live run's own weights. Then key=value: options of the method, or other keys of the job merge",
    )
    parser.add_argument("--method", default="average", metavar="NAME", help="average, linear, swa, fisher, slerp, ...")
    parser.add_argument("--weights", default="", metavar="A,B,...", help="one for each; 1 unless said otherwise")
    parser.add_argument("--base", default="", metavar="RUN[@STEP]", help="what all came from, for methods that ask")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--new", default="", metavar="NAME", help="make a run of this name (the default is a fresh one)")
    where.add_argument("--into", default="", metavar="RUN", help="change the weights of this live run")
    parser.add_argument("--task", default="", metavar="NAME", help="of a new run: whose data fisher is estimated on")
    parser.add_argument("--detach", action="store_true", help="of a new run: return as soon as it runs")
    parser.add_argument("--optimizer", choices=("reset", "keep"), help="of a live run: what becomes of its state")
    parser.add_argument("--at", type=int, metavar="STEP", help="of a live run: after this step, not at the next one")
    parser.add_argument("--wait", action="store_true", help="of a live run: return when the outcome is known")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="wait so long at the most")


def main(arguments: Namespace) -> int:
    """Make a run that merges, or ask a live one to take other weights in."""
    workspace = workspace_of(arguments)
    sources = [word for word in arguments.words if "=" not in word]
    values = [word for word in arguments.words if "=" in word]
    weights = _weights(arguments.weights)
    if arguments.into:
        return _into(arguments, workspace, sources, values, weights)
    return _new(arguments, workspace, sources, values, weights)


def _new(
    arguments: Namespace, workspace: Workspace, sources: Sequence[str], values: Sequence[str], weights: list[float]
) -> int:
    """Make the run, and wait for its end like ``clew run``."""
    from clew import api
    from clew.cli.run import submit
    from clew.jobs import LoadedJob

    for name in ("optimizer", "at"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name} is for a live run", hint="name it: --into RUN")
    check_spelling(arguments.new, "--new")
    method, said = _method(arguments.method, sources, [word for word in values if not _is_of_job(word)])
    config: dict[str, Any] = {"job": "merge", "method": said}
    if not method.adds_models:
        config["models"] = [model_of(workspace, word) for word in sources]
    config |= {"weights": weights} if weights else {}
    config |= {"base": model_of(workspace, arguments.base)} if arguments.base else {}
    if task := arguments.task or (_asks_a_task(method) and task_of(workspace, sources)):
        config["task"] = {"type": task} if isinstance(task, str) else task
    overrides = [word for word in values if _is_of_job(word)]
    work = api.read(config, overrides, workspace=workspace, name=arguments.new)
    assert isinstance(work, LoadedJob), "its config names a job"
    return submit(work, workspace, detach=arguments.detach)


def _into(
    arguments: Namespace, workspace: Workspace, sources: Sequence[str], values: Sequence[str], weights: list[float]
) -> int:
    """Send the command; everything that can be known to be wrong is said before that."""
    if arguments.task or arguments.detach:
        what = "--task" if arguments.task else "--detach"
        raise UserError(f"{what} is for a new run", hint="a live run uses its own data, and goes on by itself")
    run = find_run(workspace, arguments.into, purpose="has no weights of its own")
    seed = [word for word in values if word.startswith("seed=")]
    if odd := [word for word in values if _is_of_job(word) and word not in seed]:
        raise UserError(f"{odd[0]} is for a new run", hint="a live run takes the method and its options")
    method, said = _method(arguments.method, sources, [word for word in values if word not in seed])
    named = [live_source(workspace, run, word) for word in sources]
    if method.adds_models:
        named, said = [one.removeprefix("run:") for one in method.references(workspace.runs)], {"type": said["type"]}
    _check(method, named, weights, arguments.base)
    args = {"sources": named, "method": said, "optimizer": arguments.optimizer or "reset", **_plain(seed)}
    args |= {"weights": weights} if weights else {}
    args |= {"base": live_source(workspace, run, arguments.base)} if arguments.base else {}
    wait: bool | float = arguments.wait if arguments.deadline is None else arguments.deadline
    sent = LiveRun(run).send("merge", args, When(arguments.at), wait)
    if sent.step is None:
        print(f"{run.id}: asked to merge; it goes on with the merged weights from its next step\n  command {sent.id}")
        return 0
    print(f"{run.id}: merge applied at step {sent.step}")
    _tell(sent.result)
    return 0


def _check(method: MergeMethod, sources: Sequence[str], weights: Sequence[float], base: str) -> None:
    if len(sources) < 2:
        hint = "the live run's own weights are '.': name them"
        raise UserError(f"a merge needs at least two models, not {len(sources)}", hint=hint)
    if weights and len(weights) != len(sources):
        raise UserError(f"--weights: {len(weights)} weights for {len(sources)} models")
    method.check(weights or [1.0] * len(sources))
    if base and not method.uses_base:
        raise UserError("this method uses no base", hint="leave --base out")


def _method(name: str, sources: Sequence[str], values: Sequence[str]) -> tuple[MergeMethod, dict[str, Any]]:
    """Read the method; of a run alone, swa takes the checkpoints."""
    from clew.merging.asked import method_of

    whole = name == "swa" and len(sources) == 1 and "@" not in sources[0]
    trajectory = {"trajectory": f"run:{sources[0].removeprefix('run:')}"} if whole else {}
    return method_of({"type": name, **trajectory, **_plain(values)})


def _asks_a_task(method: MergeMethod) -> bool:
    from clew.merging.methods.fisher import Fisher

    return isinstance(method, Fisher)


def _plain(values: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` as the command line of ``clew run`` does."""
    from clew.config import override_layer, plain

    layer = override_layer([word.removeprefix("method.") for word in values])
    return {} if layer is None else dict(plain(layer))


def _is_of_job(word: str) -> bool:
    """Whether a ``key=value`` is one of the job merge rather than an option of the method."""
    from clew.config import fields_of
    from clew.jobs.merge import MergeConfig

    key = word.partition("=")[0].partition(".")[0]
    if key in _OWN_OPTIONS:
        raise UserError(f"{key} has a place of its own on this command line", hint=_OWN_OPTIONS[key])
    return key != "method" and key in fields_of(MergeConfig)


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"--weights must be numbers with commas between them, not {text!r}") from None


def _tell(found: Mapping[str, Any]) -> None:
    """Say what the run has said about what it did."""
    print("  " + ", ".join(f"{one['source']} × {one['share']:.3g}" for one in found["shares"]))
    change = found["change"]
    of = f", {change['relative']:.2%} of their own" if "relative" in change else ""
    print(f"  {found['tensors']} tensors, moved by {change['norm']:.3g}{of}; optimizer {found['optimizer']}")
