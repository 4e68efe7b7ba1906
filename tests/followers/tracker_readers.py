"""What trackers hold, read with their own readers; all as (name, step, value)."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from followed_runs import Point

from clew.followers.mlflow import MLflow
from clew.followers.tensorboard import TensorBoard
from clew.followers.wandb import WandB
from clew.runs import Run


class TensorBoardReader:
    """TensorBoard's own accumulator, which leaves out what a restart took back."""

    config = TensorBoard()
    keeps_what_was_superseded = False

    def points(self, run: Run) -> list[Point]:
        accumulator = self._accumulator(run)
        tags = [tag for tag in accumulator.Tags()["scalars"] if not tag.startswith(("final/", "count/"))]
        return sorted((tag, event.step, event.value) for tag in tags for event in accumulator.Scalars(tag))

    def final(self, run: Run) -> dict[str, float]:
        accumulator = self._accumulator(run)
        tags = [tag for tag in accumulator.Tags()["scalars"] if tag.startswith(("final/", "count/"))]
        return {tag: event.value for tag in tags for event in accumulator.Scalars(tag)}

    def config_text(self, run: Run) -> str:
        tensor = self._accumulator(run).Tensors("config/text_summary")[0].tensor_proto
        return str(tensor.string_val[0].decode())

    def _accumulator(self, run: Run) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            accumulator = EventAccumulator(str(run.path / "following" / "tensorboard"), {"scalars": 0})
            accumulator.Reload()
        return accumulator


class MLflowReader:
    """MLflow's own client, on the database in the workspace."""

    config = MLflow()
    keeps_what_was_superseded = True

    def points(self, run: Run) -> list[Point]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client, found = self._run(run)
            names = [name for name in found.data.metrics if not name.startswith(("final/", "count/"))]
            history = [(name, item) for name in names for item in client.get_metric_history(found.info.run_id, name)]
        return sorted((name.replace("pass_1", "pass@1"), item.step, item.value) for name, item in history)

    def final(self, run: Run) -> dict[str, float]:
        metrics = self._run(run)[1].data.metrics
        return {name: value for name, value in metrics.items() if name.startswith(("final/", "count/"))}

    def config_text(self, run: Run) -> str:
        return str(self._run(run)[1].data.params)

    def status(self, run: Run) -> str:
        return str(self._run(run)[1].info.status)

    def _run(self, run: Run) -> tuple[Any, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=f"sqlite:///{run.path.parent.parent / 'mlflow.db'}")
            experiment = client.get_experiment_by_name("clew")
            (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run.id}'")
        return client, found


class WandBReader:
    """The file of an offline run. Its format (a log of protocol buffers in LevelDB's framing, after a header of seven
    bytes) is that of ``wandb/sdk/internal/datastore.py`` in wandb 0.18; newer versions read it in a program."""

    config = WandB(mode="offline")
    keeps_what_was_superseded = False

    def points(self, run: Run) -> list[Point]:
        found = []
        for row in self._rows(run, "history", "item"):
            step = row.pop("step")
            found += [(name, step, value) for name, value in row.items() if not name.startswith("_")]
        return sorted(point for point in found if point[0] != "attempt")

    def final(self, run: Run) -> dict[str, float]:
        merged = {name: value for row in self._rows(run, "summary", "update") for name, value in row.items()}
        return {name: value for name, value in merged.items() if name.startswith(("final/", "count/"))}

    def config_text(self, run: Run) -> str:
        (first, *_) = (record for record in _records(self._file(run)) if record.WhichOneof("record_type") == "run")
        return str({item.key: json.loads(item.value_json) for item in first.run.config.update})

    def _rows(self, run: Run, kind: str, field: str) -> Iterator[dict[str, Any]]:
        for record in _records(self._file(run)):
            if record.WhichOneof("record_type") == kind:
                items = getattr(getattr(record, kind), field)
                yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

    def _file(self, run: Run) -> Path:
        (found,) = (run.path / "following" / "wandb" / "clew" / "wandb").glob("offline-run-*/*.wandb")
        return found


def _records(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wandb.proto.wandb_internal_pb2 import Record

    data, position, part = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += 7 + length
        part += data[position - length : position]
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(part)
            part = b""
