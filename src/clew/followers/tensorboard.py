"""TensorBoard: an event file, written without TensorFlow or PyTorch.

The bytes depend on the journal alone. So after a crash the file is cut back to what was noted and the rest is written
again: the file is the same as without the crash, also for a TensorBoard that reads it meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from clew.config import config, to_yaml
from clew.errors import UserError, require
from clew.followers.base import Follower, FollowerConfig
from clew.followers.points import config_of, final_values, not_installed, values_of, went_back
from clew.runs import Event, JobResult, Run
from clew.runs.files import path_inside
from clew.runs.following import FOLDER


@config
class TensorBoard(FollowerConfig):
    """Event files for TensorBoard."""

    dir: str = ""
    """A folder in the workspace that gets a folder for each run; empty means following/tensorboard in the run's."""

    def __post_init__(self) -> None:
        path = PurePath(self.dir)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"dir: {self.dir!r} leads out of the workspace")

    def open(self, run: Run, memory: Mapping[str, Any]) -> Follower:
        """Open the event file at the place up to which it is known to be good."""
        workspace = run.path.parent.parent
        chosen = path_inside(workspace, self.dir) / run.id if self.dir else run.path / FOLDER / "tensorboard"
        return _EventFile(run, chosen, memory)

    def missing(self) -> str:
        """Say that TensorBoard is not installed."""
        return not_installed("tensorboard")


class _EventFile(Follower):
    def __init__(self, run: Run, folder: Path, memory: Mapping[str, Any]) -> None:
        super().__init__()
        self.place = str(folder)
        self._run = run
        require("tensorboard", extra="track")
        self._protos = require("tensorboard.compat.proto.event_pb2", extra="track")
        self._summaries = require("tensorboard.compat.proto.summary_pb2", extra="track")
        writer = require("tensorboard.summary.writer.record_writer", extra="track")
        folder.mkdir(parents=True, exist_ok=True)
        created = int(run.info.created)
        self._stream = _open_at(folder / f"events.out.tfevents.{created}.{run.id}", memory.get("bytes", 0), run.id)
        self._records = writer.RecordWriter(self._stream)
        self._step = int(memory.get("step", 0))
        if not memory:
            self._write(created, 0, file_version="brain.Event:2")
            self._write(created, 0, summary=self._text("config", f"```yaml\n{to_yaml(config_of(run))}```"))

    def send(self, events: Sequence[Event]) -> None:
        """Append metrics, and a mark where an attempt went back: TensorBoard leaves out what was beyond it."""
        for event in events:
            if went_back(event):
                self._step = event["step"]
                start = self._protos.SessionLog(status=self._protos.SessionLog.START)
                self._write(event["t"], self._step + 1, session_log=start)
            elif values := values_of(event):
                self._write(event["t"], event["step"], summary=self._scalars(values))
                self._step = max(self._step, event["step"])
        self._sync()

    def close(self, result: JobResult | None) -> None:
        """Append the final numbers."""
        if result is not None and (values := final_values(self._run, result)):
            last = self._run.states.read().changed
            self._write(last, self._step, summary=self._scalars(values))
            self._sync()
        self._stream.close()

    def _sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.memory.update(bytes=self._stream.tell(), step=self._step)

    def _write(self, time: float, step: int, **content: Any) -> None:
        event = self._protos.Event(wall_time=time, step=step, **content)
        self._records.write(event.SerializeToString(deterministic=True))

    def _scalars(self, values: Mapping[str, float]) -> Any:
        value = self._summaries.Summary.Value
        return self._summaries.Summary(value=[value(tag=name, simple_value=each) for name, each in values.items()])

    def _text(self, name: str, text: str) -> Any:
        """A summary for the plugin ``text`` (tensorboard/plugins/text/summary_v2.py): a tensor of one string."""
        tensors = require("tensorboard.compat.proto.tensor_pb2", extra="track")
        tensor = tensors.TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape={"dim": [{"size": 1}]})
        data = self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        metadata = self._summaries.SummaryMetadata(plugin_data=data)
        value = self._summaries.Summary.Value(tag=f"{name}/text_summary", metadata=metadata, tensor=tensor)
        return self._summaries.Summary(value=[value])


def _open_at(path: Path, size: int, run: str) -> Any:
    """Open a file for appending, cut back to ``size`` bytes."""
    there = path.stat().st_size if path.exists() else 0
    if there < size:
        raise UserError(
            f"{path.name} has lost something that was written before",
            where=str(path.parent),
            hint=f"clew track {run} --again writes it anew",
        )
    stream = path.open("r+b" if path.exists() else "w+b")
    stream.truncate(size)
    stream.seek(size)
    return stream
