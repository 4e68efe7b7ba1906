"""The part of a job's config that says where its runs are sent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clew.config import Spelled, config
from clew.errors import UserError
from clew.remote.hub import HubLocation

Part = Literal["artifacts", "checkpoints", "run"]
PART_NAMES: tuple[Part, ...] = ("artifacts", "checkpoints", "run")


@config
class PushConfig:
    """Where to send a run while it goes on and when it ends; it cannot fail or delay the run."""

    to: Annotated[str, Spelled(r"^[A-Za-z][A-Za-z0-9+.:-]*://.+$", "like SCHEME://PLACE")]
    """hf://OWNER/REPO, s3://BUCKET/PATH, file:///PATH or another URL of fsspec; {run} in it becomes the run's name."""
    what: Annotated[list[Part], Field(min_length=1)] = Field(default_factory=lambda: list(PART_NAMES))
    """The run's outputs, its newest and best checkpoint, and its own files; it can be resumed with the last two."""
    when: Literal["checkpoint", "end"] = "checkpoint"
    """After each checkpoint and at the end, or at the end only."""
    revision: str = ""
    """The branch of a repository; empty is main."""
    public: bool = False
    """Whether everybody may see a repository that is made for it; without it, only you and your organisation."""
    base: str = ""
    """What a pushed adapter is to name as its base, such as owner/name; empty takes what it was trained on."""

    def __post_init__(self) -> None:
        if not self.to.startswith("hf://"):
            if self.revision or self.public:
                raise ValueError("revision and public are for repositories, which begin with hf://")
            return
        try:
            HubLocation.of(self.to.replace("{run}", "run"), revision=self.revision)
        except UserError as error:
            raise ValueError(f"to: {error.one_line()}") from None
