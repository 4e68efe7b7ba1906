"""What can be asked of a live run. A new verb is a file in this folder and its name in the lines below."""

from clew.session.verbs.base import Boundary, Verb
from clew.session.verbs.changing import SET
from clew.session.verbs.ending import ABORT, STOP
from clew.session.verbs.forking import FORK
from clew.session.verbs.judging import EVALUATE
from clew.session.verbs.keeping import CHECKPOINT, NOTE
from clew.session.verbs.pausing import PAUSE, RESUME, STEP
from clew.session.verbs.resetting import RESET

VERBS = {verb.name: verb for verb in (PAUSE, RESUME, STEP, STOP, ABORT, CHECKPOINT, EVALUATE, SET, RESET, FORK, NOTE)}

__all__ = ["VERBS", "Boundary", "Verb"]
