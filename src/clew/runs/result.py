"""What came of a run: the content of ``result.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clew.errors import cause
from clew.logs.redaction import Redactor
from clew.runs.damage import readable
from clew.runs.files import read_json, write_json
from clew.runs.journal import spell_non_finite

LOG_TAIL_LINES = 50


@dataclass(frozen=True)
class Artifact:
    """A published output of a run."""

    path: str
    """Relative to the run directory."""
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Failure:
    """Why a run ended without completing."""

    kind: str
    """Name of the exception, or ``killed``."""
    reason: str
    log_tail: list[str] = field(default_factory=list)
    """The last lines of the attempt's log."""
    signal: str | None = None
    """The signal that ended the worker, such as ``SIGKILL``; None when it was none."""
    out_of_memory: bool | None = None
    """Whether memory ran out; None when nobody can tell."""
    lasting: bool = False
    """Whether it ends so again until what it is about is mended: a config, data or a model that cannot be used."""

    @property
    def cause(self) -> str:
        """Why it ended, as people are told; see :func:`clew.errors.cause`."""
        return cause(self.kind, self.reason)


@dataclass(frozen=True)
class Remote:
    """Where a run's artifacts were pushed to."""

    url: str
    """Such as ``hf://me/adapter`` or ``s3://bucket/runs/sft-1``."""
    repo: str | None = None
    """The repository, where it is one."""
    revision: str | None = None
    """The commit of that repository which holds the artifacts."""


@dataclass(frozen=True)
class Energy:
    """What a run was metered to have used."""

    joules: float
    meter: str
    """What read it, such as ``nvml`` or ``rapl``."""
    estimated: bool = False
    """Whether the meter computes from assumptions instead of reading a counter."""


@dataclass(frozen=True)
class JobResult:
    """The outcome of a run."""

    run: str
    job: str
    status: str
    seconds: float
    """Wall time of all attempts."""
    attempts: int
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of some metrics: ``{low, high, method, ...}``, at 95 %."""
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions, hardware, the state of the git repository in which the worker was started, and data fingerprints."""
    target: str = "local"
    instance: str | None = None
    """What the target calls the machine or the allocation; None where it has no name for it."""
    preempted: bool | None = None
    """Whether the last attempt ended because its machine was taken away; None when nobody can tell."""
    energy: Energy | None = None
    """None when nothing was metered: that is not the same as 0 joules."""
    remote: Remote | None = None
    """Where the artifacts were pushed to; None when they were not, or not yet."""
    trackers: dict[str, str] = field(default_factory=dict)
    """Names of the trackers that follow the run, and where each one shows it."""
    directory: str = ""
    """The run directory, where it was written."""

    def save(self, run_folder: Path) -> None:
        """Write ``result.json``; why it failed is told without secrets."""
        value = asdict(self)
        if self.failure:
            value["failure"] = Redactor.of().tree(value["failure"])
        write_json(run_folder / "result.json", spell_non_finite(value))

    @classmethod
    def load(cls, run_folder: Path) -> JobResult | None:
        """Read ``result.json``; None when there is none yet.

        Raises:
            DamagedRun: If it holds no result.
        """
        path = run_folder / "result.json"
        with readable(path):
            return cls._read(path) if path.exists() else None

    @classmethod
    def _read(cls, path: Path) -> JobResult:
        value = read_json(path)
        artifacts = {name: Artifact(**item) for name, item in value["artifacts"].items()}
        failure = Failure(**value["failure"]) if value["failure"] else None
        metrics = {name: float(number) for name, number in value["metrics"].items()}
        energy = Energy(**value["energy"]) if value.get("energy") else None
        remote = Remote(**value["remote"]) if value.get("remote") else None
        read = {"metrics": metrics, "artifacts": artifacts, "failure": failure, "energy": energy, "remote": remote}
        return cls(**{**value, **read})


def result_schema() -> dict[str, Any]:
    """Return the JSON schema by which every ``result.json`` validates; ``clew config schema result`` prints it."""
    schema: dict[str, Any] = read_json(Path(__file__).with_name("result.schema.json"))
    return schema


def log_tail(path: Path, lines: int = LOG_TAIL_LINES) -> list[str]:
    """Return the last lines of a log file, reading at most its last 64 KiB."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 65536))
            return stream.read().decode("utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
