"""What can be asked of a live run. A new verb is a file in this folder and its name in the lines below."""

from clew.session.verbs.base import Boundary, Verb
from clew.session.verbs.changing import SET
from clew.session.verbs.ending import ABORT, STOP
from clew.session.verbs.forking import FORK
from clew.session.verbs.health import HEALTH
from clew.session.verbs.inspecting import INSPECT
from clew.session.verbs.judging import EVALUATE
from clew.session.verbs.keeping import CHECKPOINT, NOTE
from clew.session.verbs.merging import MERGE
from clew.session.verbs.pausing import PAUSE, RESUME, STEP
from clew.session.verbs.resetting import RESET
from clew.session.verbs.selecting import SELECT

_ALL = (PAUSE, RESUME, STEP, STOP, ABORT, CHECKPOINT, EVALUATE, SET, RESET, SELECT, INSPECT, FORK, MERGE, HEALTH, NOTE)
VERBS = {verb.name: verb for verb in _ALL}

__all__ = ["VERBS", "Boundary", "Verb"]
