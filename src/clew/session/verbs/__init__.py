"""What can be asked of a live run. A new verb is a file in this folder and its name in the line below."""

from clew.session.verbs.base import Boundary, Verb
from clew.session.verbs.changing import SET
from clew.session.verbs.ending import ABORT, STOP
from clew.session.verbs.keeping import CHECKPOINT, NOTE
from clew.session.verbs.pausing import PAUSE, RESUME, STEP

VERBS = {verb.name: verb for verb in (PAUSE, RESUME, STEP, STOP, ABORT, CHECKPOINT, SET, NOTE)}

__all__ = ["VERBS", "Boundary", "Verb"]
