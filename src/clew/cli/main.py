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
        "config": ("clew.cli.configs", "write a new config, or show a resolved one"),
        "check": ("clew.cli.configs", "say what is wrong with a config, before anything runs"),
        "explain": ("clew.cli.configs", "say where a value comes from and what it means"),
        "run": ("clew.cli.run", "run a job or a pipeline"),
    },
    "Look": {
        "ls": ("clew.cli.listing", "list runs and pipelines"),
        "show": ("clew.cli.show", "all about one run or pipeline"),
        "logs": ("clew.cli.logs", "what a run has printed"),
        "graph": ("clew.cli.graph", "draw the stages of a pipeline"),
        "diff": ("clew.cli.diff", "two runs, configs or pipelines side by side"),
        "report": ("clew.cli.reporting", "write a report of a run or a pipeline"),
        "query": ("clew.cli.query", "ask the store of all runs in SQL"),
        "export": ("clew.cli.export", "write a run's numbers and texts as CSV, JSON or Parquet"),
        "store": ("clew.cli.store", "bring the store up to date, or make it again from the runs"),
    },
    "Steer": {
        "stop": ("clew.cli.steer", "save and stop, to go on later"),
        "checkpoint": ("clew.cli.steer", "save now"),
        "resume": ("clew.cli.run", "go on where it was left"),
        "answer": ("clew.cli.answer", "say what is to become of a stage that has failed and waits"),
    },
}

GLOBAL_OPTIONS = """\
  --workspace DIR  the folder of runs (default: $CLEW_WORKSPACE, or the current folder)
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
    table = {name: entry for group in VERBS.values() for name, entry in group.items()}
    if verb not in table:
        from clew.errors import UserError, did_you_mean

        raise UserError(f"there is no verb {verb!r}", hint=did_you_mean(verb, table))
    from importlib import import_module

    from clew.cli.parser import parse

    module, summary = table[verb]
    return int(import_module(module).main(parse(verb, summary, import_module(module).configure, rest, options)))


def _split(words: list[str]) -> tuple[dict[str, str], str, list[str]]:
    """Take the global options that stand before the verb: ``(options, verb, what follows it)``."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).partition("=")
        name = "--help" if name == "-h" else name
        if name == "--workspace" and (equals or rest):
            options[name] = value if equals else rest.pop(0)
        elif name in ("--debug", "--version", "--help") and not equals:
            options[name] = ""
        else:
            from clew.errors import UserError

            what = "--workspace needs a folder" if name == "--workspace" else f"there is no option {name!r}"
            raise UserError(what, hint="clew --help shows what there is")
    return options, (rest or [""])[0], rest[1:]


def _help_screen() -> str:
    lines = ["usage: clew [options] VERB ...", "", "One workbench for language-model runs."]
    for group, verbs in VERBS.items():
        lines += ["", f"{group}:", *(f"  {verb:<11} {summary}" for verb, (_, summary) in verbs.items())]
    return "\n".join([*lines, "", "Options, before or after the verb:", GLOBAL_OPTIONS])


def _report(error: Exception) -> int:
    """Print an error for the person who sits there, and return the exit code."""
    from clew.errors import ClewError

    if isinstance(error, ClewError):
        print(f"clew: {error}", file=sys.stderr)
        return error.exit_code
    text = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"clew: internal error: {text} (run again with --debug for the traceback)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
