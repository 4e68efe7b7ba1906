"""MLflow: a tracking server, or a database file of its own.

A point has the time that the journal gave it. MLflow's databases keep the same point (name, step, time, value) once,
however often it is sent, so a batch that is sent again after a crash changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from clew.config import config
from clew.errors import require
from clew.followers.base import Follower, FollowerConfig
from clew.followers.points import final_values, not_installed, parameters, values_of
from clew.runs import Event, JobResult, Run

_STATUS = {"completed": "FINISHED", "failed": "FAILED"}
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
_PARAMETERS_A_CALL = 100
_METRICS_A_CALL = 1000
_LONGEST_VALUE = 6000


@config
class MLflow(FollowerConfig):
    """An MLflow tracking server, or a database file."""

    tracking_uri: str = ""
    """Such as http://host:5000 or sqlite:////path/mlflow.db; empty means $MLFLOW_TRACKING_URI, else mlflow.db in the
    workspace. A server's user and password stand in $MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD."""
    experiment: str = "clew"
    """The experiment that the runs belong to; it is made when there is none."""

    # Our own tries come again and again: the library's would take minutes before the first error is seen.
    environment: ClassVar[Mapping[str, str]] = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    }

    def __post_init__(self) -> None:
        if urlsplit(self.tracking_uri).password:
            raise ValueError("tracking_uri: a password does not belong into a config; use $MLFLOW_TRACKING_PASSWORD")

    def open(self, run: Run, memory: Mapping[str, Any]) -> Follower:
        """Find the run in MLflow, or make it there."""
        default = f"sqlite:///{run.path.parent.parent / 'mlflow.db'}"
        uri = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        return _MLflowRun(run, uri, self.experiment, memory)

    def missing(self) -> str:
        """Say that MLflow is not installed."""
        return not_installed("mlflow")


class _MLflowRun(Follower):
    def __init__(self, run: Run, uri: str, experiment: str, memory: Mapping[str, Any]) -> None:
        super().__init__()
        self._run = run
        self._mlflow = require("mlflow", extra="track")
        self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        self._experiment = self._experiment_id(experiment)
        self._id = str(memory.get("id") or self._find() or self._make())
        self.memory["id"] = self._id
        self._client.update_run(self._id, status="RUNNING")
        page = f"{uri.rstrip('/')}/#/experiments/{self._experiment}/runs/{self._id}"
        self.place = page if uri.startswith("http") else uri

    def send(self, events: Sequence[Event]) -> None:
        """Log metrics."""
        self._log(
            self._mlflow.entities.Metric(_name(name), value, round(event["t"] * 1000), event["step"])
            for event in events
            for name, value in values_of(event).items()
        )

    def close(self, result: JobResult | None) -> None:
        """Log the final numbers and the status."""
        if result is None:
            return
        now = round(self._run.states.read().changed * 1000)
        values = final_values(self._run, result)
        self._log(self._mlflow.entities.Metric(_name(name), value, now, 0) for name, value in values.items())
        self._client.set_terminated(self._id, status=_STATUS.get(result.status, "KILLED"), end_time=now)

    def _log(self, metrics: Iterable[Any]) -> None:
        every = list(metrics)
        for first in range(0, len(every), _METRICS_A_CALL):
            self._client.log_batch(self._id, metrics=every[first : first + _METRICS_A_CALL])

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _find(self) -> str | None:
        """The run that a follower made which was killed before it could note its id."""
        found = self._client.search_runs([self._experiment], f"tags.`clew.uid` = '{self._run.info.uid}'", max_results=1)
        return found[0].info.run_id if found else None

    def _make(self) -> str:
        info = self._run.info
        tags = {"clew.uid": info.uid, "clew.job": info.job, "clew.folder": str(self._run.path)}
        made: str = self._client.create_run(
            self._experiment, start_time=round(info.created * 1000), tags=tags, run_name=info.id
        ).info.run_id
        said = [
            self._mlflow.entities.Param(_name(key), str(value)[:_LONGEST_VALUE])
            for key, value in parameters(self._run).items()
        ]
        for first in range(0, len(said), _PARAMETERS_A_CALL):
            self._client.log_batch(made, params=said[first : first + _PARAMETERS_A_CALL])
        return made


def _name(name: str) -> str:
    """A name that MLflow takes: ``pass@1`` becomes ``pass_1``."""
    return _NOT_IN_NAMES.sub("_", name)
