"""Weights & Biases, online or offline.

W&B keeps rows by a number that only rises; ours is the event's number in the journal, and the run's step is a column,
which the charts take for their x axis. Online, W&B says which row it had last, and we go on after it: nothing is lost
or doubled, whoever was killed. Offline nothing can be asked, so a new follower writes the run anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from clew.config import Spelled, config
from clew.errors import UserError, require
from clew.followers.base import Follower, FollowerConfig
from clew.followers.points import config_of, final_values, from_environment, not_installed, values_of
from clew.runs import Event, JobResult, Run
from clew.runs.following import FOLDER

_PROJECT = "made of letters, digits, blanks, '.', '_' and '-', the first no blank and no '.'"


@config
class WandB(FollowerConfig):
    """Weights & Biases."""

    project: Annotated[str, Spelled(r"^[A-Za-z0-9_-][A-Za-z0-9 ._-]*$", _PROJECT)] = "clew"
    """The project that the runs belong to."""
    entity: str = ""
    """The user or team that owns the project; empty means the key's default."""
    mode: Literal["online", "offline"] = "online"
    """Offline writes a folder of the run's directory, which `wandb sync FOLDER` uploads."""
    key_env: str = "WANDB_API_KEY"
    """Name of the environment variable that holds the API key; unset means what `wandb login` has stored."""

    replays: ClassVar[bool] = True
    environment: ClassVar[Mapping[str, str]] = {"WANDB_ERROR_REPORTING": "false"}

    def open(self, run: Run, memory: Mapping[str, Any]) -> Follower:
        """Begin the run in W&B, or go on with it."""
        return _WandBRun(run, self)

    def missing(self) -> str:
        """Say that W&B is not installed."""
        return not_installed("wandb")


class _WandBRun(Follower):
    def __init__(self, run: Run, settings: WandB) -> None:
        super().__init__()
        self._run = run
        wandb = require("wandb", extra="track")
        folder = run.path / FOLDER / "wandb" / settings.project
        folder.mkdir(parents=True, exist_ok=True)
        if settings.mode == "offline":
            for half in folder.glob("wandb/offline-run-*"):  # everything in it is told again
                shutil.rmtree(half, ignore_errors=True)
        try:
            self._wandb = wandb.init(
                project=settings.project,
                entity=settings.entity or None,
                id=run.info.uid.lower(),
                name=run.id,
                group=run.info.plan,
                job_type=run.info.job.rpartition(":")[2],
                notes=config_of(run).get("notes") or None,
                config=config_of(run),
                dir=str(folder),
                resume="allow" if settings.mode == "online" else None,
                settings=_quiet(wandb, settings),
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            hint = f"set {settings.key_env}, run 'wandb login', or say mode: offline"
            raise UserError(" ".join(str(error).split()), where="wandb", hint=hint) from error
        except Exception:
            wandb.teardown()  # its helper process holds on to the run that could not begin, and would refuse it
            raise
        self._wandb.define_metric("step", hidden=True)
        self._wandb.define_metric("*", step_metric="step")
        self._first = self._wandb.starting_step
        self.place = self._wandb.settings.sync_dir if settings.mode == "offline" else self._wandb.url or ""

    def send(self, events: Sequence[Event]) -> None:
        """Log a row for each event with metrics."""
        for event in events:
            if (values := values_of(event)) and event["number"] >= self._first:
                row = {**values, "step": event["step"], "attempt": event["attempt"]}
                self._wandb.log(row, step=event["number"], commit=True)

    def close(self, result: JobResult | None) -> None:
        """Set the summary and wait until everything is written."""
        if result is not None:
            self._wandb.summary.update({**final_values(self._run, result), "status": result.status})
        self._wandb.finish(exit_code=0 if result is None or result.status == "completed" else 1)


def _quiet(wandb: Any, settings: WandB) -> Any:
    """Settings under which W&B takes what it is told, and nothing else from this machine."""
    return wandb.Settings(
        mode=settings.mode,
        api_key=from_environment(settings.key_env) if settings.mode == "online" else None,
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        init_timeout=30,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
