"""From run directories to the store: exactly once, in whatever pieces, whoever is killed in between.

The rows of a piece and the positions up to which the files have been read are committed together. So a piece is in the
store or it is read again, and nobody has to know which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, func, select

from clew.errors import UserError
from clew.runs import Run, Workspace
from clew.runs.files import write_atomically
from clew.runs.ids import ulid
from clew.runs.journal import journal_files
from clew.runs.states import OWNED, State
from clew.store import documents, schema
from clew.store.database import Store, insert
from clew.store.errors import StoreDamaged, StoreError
from clew.store.journals import JournalReader
from clew.store.tables import CONTENT, metadata, offsets, owner, runs
from clew.store.values import clean

PIECE_BYTES = 8 << 20
RUNS_AT_ONCE = 50
"""Bytes of journal and number of runs in one transaction, which bound memory and how long others wait."""

_UNSETTLED = frozenset({*(state.value for state in OWNED), State.UNKNOWN.value})
Known = dict[str, tuple[int, int]]


@dataclass
class Progress:
    """What an ingest has done."""

    names: set[str] = field(default_factory=set)
    """Runs of which there was something new."""
    bytes: int = 0
    """Bytes of journals that were read."""

    @property
    def runs(self) -> int:
        """How many runs had something new."""
        return len(self.names)

    def add(self, other: Progress) -> None:
        """Add what else was done."""
        self.names |= other.names
        self.bytes += other.bytes


@dataclass(frozen=True)
class Status:
    """How a store stands to its workspace."""

    rows: dict[str, int]
    behind: list[str]
    """Runs of which there is something new."""
    gone: list[str]
    """Runs in the store whose directories are no more."""


def sync(store: Store, workspace: Workspace, only: Iterable[Run] | None = None) -> Progress:
    """Take in what is new, and make the store if there is none.

    Args:
        store: Where to.
        workspace: Where from.
        only: Just these runs; None means all.

    Raises:
        StoreError: If the store cannot be written; runs are not touched by that.
    """
    total = Progress()
    with store.guarded():
        store.prepare()
        with store.writing() as connection:
            claim(connection, store, workspace)
        with store.reading() as connection:
            known, unsettled = _known(connection), _unsettled(connection)
        waiting = deque(
            run
            for run in (_runs(workspace) if only is None else only)
            if run.id in unsettled or is_behind(run, known.get(run.id, {}))
        )
        while waiting:
            with store.writing() as connection:
                done = _pull_some(connection, waiting)
            total.add(done)
    return total


def rebuild(store: Store, workspace: Workspace, *, take_over: bool = False) -> Progress:
    """Make the store again from the directories, in one transaction: readers see the old content or the new.

    Args:
        store: What to make; a SQLite file that cannot be read is moved aside.
        workspace: Where from.
        take_over: Replace the index of another workspace.

    Raises:
        StoreError: If it belongs to another workspace, is newer than this program, or cannot be written.
    """
    _replace_unreadable(store)
    total = Progress()
    with store.guarded():
        store.make_folder()
        with store.writing() as connection:
            _empty(connection, store, workspace, take_over)
            for run in _runs(workspace):
                waiting = deque([run])
                while waiting:
                    total.add(_pull_some(connection, waiting))
    return total


def status(store: Store, workspace: Workspace) -> Status:
    """Say what the store holds and what it lacks."""
    here = {run.id: run for run in _runs(workspace)}
    with store.reading() as connection:
        known = _known(connection)
        stored = set(connection.execute(select(runs.c.run)).scalars())
        rows = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in CONTENT
        }
    behind = [name for name, run in here.items() if is_behind(run, known.get(name, {}))]
    return Status(rows, behind, sorted(stored - set(here)))


def holds(store: Store, run: str) -> bool:
    """Say whether there is a store that has a run of that name."""
    if not store.exists:
        return False
    with store.reading() as connection:
        return connection.execute(select(runs.c.run).where(runs.c.run == run)).first() is not None


def pull(connection: Connection, run: Run, budget: int) -> tuple[Progress, bool]:
    """Take in one piece of what is new in a run, within the connection's transaction.

    Returns:
        What was done, and whether there may be more.
    """
    stamps = documents.stamps(run)
    known = _known_of(connection, run.id)
    if _was_replaced(connection, run, known):
        forget(connection, run.id)
        known = {}
    changed = documents.update(connection, run)
    positions = {name: position for name, (position, _) in known.items() if not documents.is_document(name)}
    read, more = JournalReader(connection, run.id, positions).read(run.path / "journal", budget)
    now = {**stamps, **{name: (position, 0) for name, position in positions.items()}}
    if now != known:
        connection.execute(delete(offsets).where(offsets.c.run == run.id))
        insert(connection, offsets, [(run.id, name, *values) for name, values in sorted(now.items())])
    return Progress({run.id} if changed or read else set(), read), more


def forget(connection: Connection, run: str) -> None:
    """Remove a run."""
    for table in (*CONTENT, offsets):
        connection.execute(delete(table).where(table.c.run == run))


def is_behind(run: Run, known: Known) -> bool:
    """Say whether a run's files are other than they were when they were taken in. A torn last line counts as new."""
    try:
        stamps = documents.stamps(run)
        sizes = {path.name: path.stat().st_size for path, _, _ in journal_files(run.path / "journal")}
    except FileNotFoundError:
        return False
    taken = {name: values for name, values in known.items() if documents.is_document(name)}
    positions = {name: values[0] for name, values in known.items() if not documents.is_document(name)}
    return stamps != taken or sizes != positions


def claim(connection: Connection, store: Store, workspace: Workspace, *, take_over: bool = False) -> None:
    """Make a store the index of a workspace, which has an identity of its own: its folder may move.

    Raises:
        StoreError: If it is the index of another one.
    """
    mine = _identity(workspace)
    theirs = connection.execute(select(owner.c.workspace)).scalar()
    if theirs is not None and theirs != mine and not take_over:
        raise StoreError(
            "the store is the index of another workspace",
            where=store.location.shown,
            hint="give this workspace a database or a schema of its own, or replace it: clew store rebuild --take-over",
        )
    if theirs != mine:
        connection.execute(delete(owner))
        insert(connection, owner, [(mine,)])


def _runs(workspace: Workspace) -> list[Run]:
    """The runs of a workspace, without folders of somebody's making whose names are no text."""
    return [run for run in workspace.list_runs() if run.id == clean(run.id)]


def _identity(workspace: Workspace) -> str:
    path = workspace.root / ".clew" / "workspace"
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, ulid() + "\n")
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"the workspace cannot be written: {error.strerror}", where=str(path.parent)) from error


def _pull_some(connection: Connection, waiting: deque[Run]) -> Progress:
    """Take in a piece of several runs and leave in the queue those of which there may be more."""
    total = Progress()
    for _ in range(min(len(waiting), RUNS_AT_ONCE)):
        try:
            with connection.begin_nested():
                done, more = pull(connection, waiting[0], PIECE_BYTES - total.bytes)
        except FileNotFoundError:  # the run is being deleted
            done, more = Progress(), False
        total.add(done)
        if more:
            break
        waiting.popleft()
    return total


def _replace_unreadable(store: Store) -> None:
    if store.location.dialect != "sqlite" or not store.exists:
        return
    try:
        with store.writing() as connection:
            schema.revision(connection)
    except StoreDamaged:
        with store.guarded(replacing=True):
            store.move_aside()


def _empty(connection: Connection, store: Store, workspace: Workspace, take_over: bool) -> None:
    if schema.revision(connection) is not None and not schema.is_whole(connection):
        schema.drop(connection)
    schema.upgrade(connection, store.location)
    claim(connection, store, workspace, take_over=take_over)
    for table in metadata.sorted_tables:
        if table is not owner:
            connection.execute(delete(table))


def _was_replaced(connection: Connection, run: Run, known: Known) -> bool:
    """Say whether this is another run of the same name, or a journal has lost what it had."""
    if not known:
        return False
    before = connection.execute(select(runs.c.uid).where(runs.c.run == run.id)).scalar()
    if before != documents.uid(run):
        return True
    sizes = {path.name: path.stat().st_size for path, _, _ in journal_files(run.path / "journal")}
    return any(
        sizes.get(name, -1) < position for name, (position, _) in known.items() if not documents.is_document(name)
    )


def _known(connection: Connection) -> dict[str, Known]:
    found: dict[str, Known] = {}
    for run, file, position, stamp in connection.execute(select(offsets)):
        found.setdefault(run, {})[file] = (position, stamp)
    return found


def _known_of(connection: Connection, run: str) -> Known:
    rows = connection.execute(select(offsets).where(offsets.c.run == run))
    return {file: (position, stamp) for _, file, position, stamp in rows}


def _unsettled(connection: Connection) -> set[str]:
    """Runs whose state can change without any file changing, because an observer's word on it depends on the hour."""
    return set(connection.execute(select(runs.c.run).where(runs.c.state.in_(_UNSETTLED))).scalars())
