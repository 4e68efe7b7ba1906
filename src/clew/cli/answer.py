"""``clew answer``: say what is to become of a stage that has failed and waits."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from clew.cli.finding import find, workspace_of
from clew.errors import UserError, did_you_mean
from clew.plans import CHOICES, Plan
from clew.runs.states import why_not_live

if TYPE_CHECKING:
    from clew.cli.parser import Parser


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="PIPELINE", help="one that waits (clew show says what it asks)")
    parser.add_argument("stage", metavar="STAGE", help="the stage that has failed")
    meanings = "; ".join(f"{choice}: {meaning}" for choice, meaning in CHOICES.items())
    parser.add_argument("choice", metavar="|".join(CHOICES), help=meanings)


def main(arguments: Namespace) -> int:
    """Put the answer into the pipeline's inbox."""
    plan = find(workspace_of(arguments), arguments.name)
    if not isinstance(plan, Plan):
        raise UserError("a run asks nothing; only pipelines do", where=arguments.name)
    if arguments.choice not in CHOICES:
        raise UserError(f"{arguments.choice!r} is no answer", hint=did_you_mean(arguments.choice, CHOICES))
    questions = plan.questions()
    if arguments.stage not in questions:
        known = plan.pipeline.stages if (plan.path / "tree.json").is_file() else {}
        if arguments.stage not in known:
            hint = did_you_mean(arguments.stage, known)
            raise UserError(f"there is no stage {arguments.stage!r}", where=plan.id, hint=hint)
        hint = f"it asks about: {', '.join(questions)}" if questions else f"clew show {plan.id} shows how it stands"
        raise UserError(f"nothing is asked about the stage {arguments.stage!r}", where=plan.id, hint=hint)
    question = questions[arguments.stage]
    plan.inbox.send("answer", stage=question.stage, question=question.id, choice=arguments.choice)
    print(f"{plan.id}: {question.stage}: {arguments.choice} ({CHOICES[arguments.choice]})")
    if why_not_live(plan.state):
        print(f"  nobody carries the pipeline out just now; clew resume {plan.id} takes the answer")
    return 0
