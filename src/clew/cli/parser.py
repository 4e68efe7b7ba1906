"""The parser of a verb: argparse, whose complaints are errors like all others."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from clew import __version__
from clew.errors import UserError, did_you_mean

Configure = Callable[["Parser", str], None]


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError with a word on where help is."""
        raise UserError(message, where=self.prog.removeprefix("clew "), hint=f"{self.prog} --help shows what there is")

    def take(self, words: list[str]) -> argparse.Namespace:
        """Parse words in which options and other arguments may be mixed.

        Raises:
            UserError: For words that fit nowhere; with the nearest option.
        """
        found, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            option = unknown[0].partition("=")[0]
            hint = did_you_mean(option, [name for name in self._option_string_actions if name.startswith("--")])
            raise UserError(f"unexpected argument {unknown[0]!r}", where=self.prog.removeprefix("clew "), hint=hint)
        return found


def parse(
    verb: str, summary: str, configure: Configure, words: list[str], options: Mapping[str, str]
) -> argparse.Namespace:
    """Parse what follows a verb.

    Args:
        verb: The verb; it is ``verb`` in the result.
        summary: What it does, in a line.
        configure: Adds the verb's own arguments to the parser.
        words: What follows the verb.
        options: The global options that stood before it.
    """
    parser = Parser(prog=f"clew {verb}", description=summary[:1].upper() + summary[1:] + ".", allow_abbrev=False)
    configure(parser, verb)
    general = parser.add_argument_group("general")
    general.add_argument(
        "--workspace", metavar="DIR", help="the folder of runs (default: $CLEW_WORKSPACE, or the current folder)"
    )
    level = general.add_mutually_exclusive_group()
    level.add_argument(
        "-q", "--quiet", dest="level", action="store_const", const="quiet", help="only results, warnings and errors"
    )
    level.add_argument(
        "-v", "--verbose", dest="level", action="store_const", const="verbose", help="tell more (default: $CLEW_LOG)"
    )
    general.add_argument(
        "--log-format",
        choices=("text", "json"),
        help="of what goes to stderr and into the logs of runs (default: $CLEW_LOG_FORMAT, or text)",
    )
    general.add_argument("--debug", action="store_true", help="show the traceback of an error")
    general.add_argument("--version", action="version", version=f"clew {__version__}")
    before: dict[str, Any] = {
        "workspace": options.get("--workspace"),
        "level": options.get("--level"),
        "log_format": options.get("--log-format"),
        "verb": verb,
    }
    parser.set_defaults(**before)
    return parser.take(words)
