"""Looking at samples must not change the training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the global random generators of Python and numpy as they were when the body ends.

    Some libraries draw from them when they are first imported: Rich does, and scikit-learn imports it.
    """
    python, arrays = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
