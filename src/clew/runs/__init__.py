"""Runs as directories: identity, states, journal, inbox, results. Imports nothing heavier than the standard library."""

from clew.runs.inbox import Command, Inbox
from clew.runs.journal import Event, JournalTail, JournalWriter, read_events
from clew.runs.result import Artifact, Energy, Failure, JobResult, Remote, result_schema
from clew.runs.run import Run, RunExists, RunInfo, create_run
from clew.runs.states import ACTIVE, FINAL, RESUMABLE, Fenced, IllegalMove, Owner, RunState, State, StateFile
from clew.runs.workspace import Workspace

__all__ = [
    "ACTIVE",
    "FINAL",
    "RESUMABLE",
    "Artifact",
    "Command",
    "Energy",
    "Event",
    "Failure",
    "Fenced",
    "IllegalMove",
    "Inbox",
    "JobResult",
    "JournalTail",
    "JournalWriter",
    "Owner",
    "Remote",
    "Run",
    "RunExists",
    "RunInfo",
    "RunState",
    "State",
    "StateFile",
    "Workspace",
    "create_run",
    "read_events",
    "result_schema",
]
