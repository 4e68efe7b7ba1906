"""``clew``: finds the verb, hands over to its module, and turns errors into lines and exit codes.

Only the table below is read for ``clew --help``; a verb's module, and whatever it needs, is imported when it is used.
"""

from __future__ import annotations

import os
import sys

VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Start": {
        "jobs": ("clew.cli.catalogue", "what can be run"),
        "tasks": ("clew.cli.catalogue", "what it can be run on"),
        "data": ("clew.cli.data", "say what is wrong with a file of data"),
        "tokenize": ("clew.cli.tokenize", "make token files of texts, which trainings read without loading them"),
        "config": ("clew.cli.configs", "write a new config, or show a resolved one"),
        "check": ("clew.cli.configs", "say what is wrong with a config, before anything runs"),
        "explain": ("clew.cli.configs", "say where a value comes from and what it means"),
        "run": ("clew.cli.run", "run a job or a pipeline"),
    },
    "Look": {
        "ls": ("clew.cli.listing", "list runs and pipelines"),
        "show": ("clew.cli.show", "all about one run or pipeline"),
        "watch": ("clew.cli.watch", "look at a run while it goes on, and steer it with keys"),
        "logs": ("clew.cli.logs", "what a run has printed"),
        "health": ("clew.cli.health", "how a training is doing, and what to do about it"),
        "inspect": ("clew.cli.inspection", "look at every sample: losses, tokens, embeddings, clusters"),
        "samples": ("clew.cli.samples", "the texts that a run knows best or worst, and the map of its data"),
        "graph": ("clew.cli.graph", "draw the stages of a pipeline"),
        "mesh": ("clew.cli.mesh", "what a mesh of devices would make of a config's model"),
        "diff": ("clew.cli.diff", "two runs, configs or pipelines side by side"),
        "verify": ("clew.cli.verify", "say whether two runs are the same, step by step"),
        "replay": ("clew.cli.verify", "carry a run out once more, with its commands, and compare"),
        "report": ("clew.cli.reporting", "write a report of a run or a pipeline"),
        "query": ("clew.cli.query", "ask the store of all runs in SQL"),
        "export": ("clew.cli.export", "write a run's numbers and texts as CSV, JSON or Parquet"),
        "track": ("clew.cli.track", "hand a run on to TensorBoard, W&B or MLflow"),
        "store": ("clew.cli.store", "bring the store up to date, or make it again from the runs"),
    },
    "Steer": {
        "pause": ("clew.cli.steer", "make no further step, and stay ready to go on"),
        "step": ("clew.cli.steer", "make some steps, and pause again"),
        "resume": ("clew.cli.resume", "go on where it was left"),
        "set": ("clew.cli.steer", "change the learning rate and other numbers of a live run"),
        "evaluate": ("clew.cli.steer", "measure the model as it is"),
        "select": ("clew.cli.steer", "train on a part of the data from the next batch on"),
        "reset": ("clew.cli.steer", "take the weights of an earlier checkpoint, and go on"),
        "fork": ("clew.cli.fork", "a child run that goes on from here, or from an earlier step"),
        "merge": ("clew.cli.merge", "one model of several, as a run of its own or into a live one"),
        "checkpoint": ("clew.cli.steer", "save now"),
        "note": ("clew.cli.steer", "write something into the journal of a live run"),
        "stop": ("clew.cli.steer", "save and stop, to go on later"),
        "abort": ("clew.cli.steer", "end at once, without saving"),
        "answer": ("clew.cli.answer", "say what is to become of a stage that has failed and waits"),
    },
    "Recover": {
        "checkpoints": ("clew.cli.checkpoints", "list, verify, compare, delete, export or restore a run's checkpoints"),
        "recover": ("clew.cli.recover", "go on with everything that was interrupted"),
        "gc": ("clew.cli.gc", "delete what crashed processes have left behind"),
    },
    "Share": {
        "push": ("clew.cli.share", "send a run to the Hub or another place"),
        "pull": ("clew.cli.share", "fetch a run, or a model, from there"),
    },
}

GLOBAL_OPTIONS = """\
  --workspace DIR  the folder of runs (default: $CLEW_WORKSPACE, or the current folder)
  --quiet, -q      only the result, warnings and errors; --verbose, -v tells more
  --log-format F   text or json, for what goes to stderr and into the logs of runs
  --debug          show the traceback of an error
  --version        show the version
  --help           show this, or the help of a verb"""

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Carry out one command line.

    Args:
        argv: The words after ``clew``; None takes those of the process.

    Returns:
        0 on success, 1 when a run did not complete or something broke, 2 when the request cannot be carried out as it
        was made, 130 after Ctrl-C.
    """
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words
    try:
        code = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except SystemExit as ended:  # argparse, after --help
        return ended.code if isinstance(ended.code, int) else 1
    except Exception as error:
        if debug:
            from clew.logs.setup import redact_last_words

            redact_last_words()
            raise
        return _report(error)
    return code


def _dispatch(words: list[str]) -> int:
    options, verb, rest = _split(words)
    if "--version" in options:
        from clew import __version__

        print(f"clew {__version__}")
        return 0
    if not verb or "--help" in options:
        print(_help_screen())
        return 0
    _talk(options.get("--level"), options.get("--log-format"))
    table = {name: entry for group in VERBS.values() for name, entry in group.items()}
    if verb not in table:
        from clew.errors import UserError, did_you_mean

        raise UserError(f"there is no verb {verb!r}", hint=did_you_mean(verb, table))
    from importlib import import_module

    from clew.cli.parser import parse

    module, summary = table[verb]
    arguments = parse(verb, summary, import_module(module).configure, rest, options)
    _talk(arguments.level, arguments.log_format)
    return int(import_module(module).main(arguments))


def _talk(level: str | None, form: str | None) -> None:
    """Set up how this process talks, as far as it is known yet."""
    from clew.logs.settings import LogSettings
    from clew.logs.setup import configure_terminal

    configure_terminal(LogSettings.choose(level, form))


_FLAGS = {
    "-h": ("--help", ""),
    "-q": ("--level", "quiet"),
    "--quiet": ("--level", "quiet"),
    "-v": ("--level", "verbose"),
    "--verbose": ("--level", "verbose"),
    **{name: (name, "") for name in ("--debug", "--version", "--help")},
}
_VALUED = {"--workspace": "--workspace needs a folder", "--log-format": "--log-format needs text or json"}


def _split(words: list[str]) -> tuple[dict[str, str], str, list[str]]:
    """Take the global options that stand before the verb: ``(options, verb, what follows it)``."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).partition("=")
        if name in _FLAGS and not equals:
            key, value = _FLAGS[name]
            options[key] = value
        elif name in _VALUED and (equals or rest):
            options[name] = value if equals else rest.pop(0)
        else:
            raise _no_option(_VALUED.get(name, f"there is no option {name!r}"))
    if options.get("--log-format", "text") not in ("text", "json"):
        raise _no_option(_VALUED["--log-format"])
    return options, (rest or [""])[0], rest[1:]


def _no_option(what: str) -> Exception:
    from clew.errors import UserError

    return UserError(what, hint="clew --help shows what there is")


def _help_screen() -> str:
    lines = ["usage: clew [options] VERB ...", "", "One workbench for language-model runs."]
    for group, verbs in VERBS.items():
        lines += ["", f"{group}:", *(f"  {verb:<11} {summary}" for verb, (_, summary) in verbs.items())]
    return "\n".join([*lines, "", "Options, before or after the verb:", GLOBAL_OPTIONS])


def _report(error: Exception) -> int:
    """Tell an error to the person who sits there, and return the exit code."""
    from clew.errors import ClewError, UserError, missing_library
    from clew.logs.logger import Logger
    from clew.logs.settings import LogSettings
    from clew.logs.setup import configure_terminal, is_configured
    from clew.runs.disk import is_full

    if not is_configured():
        configure_terminal(LogSettings())  # what went wrong may be how it was to be set up
    log = Logger("clew.cli")
    error = missing_library(error) or error if not isinstance(error, ClewError) else error
    if not isinstance(error, ClewError) and is_full(error):
        hint = "make space and try again; what was saved is safe"
        error = UserError("the disk is full", where=str(getattr(error, "filename", None) or ""), hint=hint)
    if isinstance(error, ClewError):
        log.error(error)
        return error.exit_code
    text = " ".join(f"{type(error).__name__}: {error}".split())
    log.error(f"internal error: {text} (run again with --debug for the traceback)")
    return 1


if __name__ == "__main__":
    sys.exit(main())
