"""The screen of ``clew watch``: what a run's directory says, drawn in a terminal.

What is read (:mod:`~clew.cli.screen.watched`) and how it is drawn are apart: a thread of its own reads, and hands over
one :class:`~clew.cli.screen.watched.Look` after the other, which nobody changes any more. So a slow disk never holds up
a key, and plain lines are written from the same looks.
"""
