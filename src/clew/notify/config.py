"""The section ``notify`` of a pipeline file and of the workspace's ``clew.yaml``."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from clew.config import config, load
from clew.config.source import read_file
from clew.config.tree import Node, Section, plain
from clew.errors import ConfigError

Event = Literal["failure", "waiting", "completion"]
EVENTS: tuple[Event, ...] = ("failure", "waiting", "completion")


@config
class WebhookConfig:
    """An HTTP address that gets a POST request with a JSON object for each event."""

    url: str = ""
    """Where to; http or https. Say url_env instead when the address itself is a secret."""
    url_env: str = ""
    """Name of the environment variable that holds the address."""
    secret_env: str = ""
    """Name of the environment variable that holds the key of the signature; empty sends none."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """For one request."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """Requests for one event, the first one included."""
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """Before the second of them; each wait is twice as long as the one before, and at most a minute."""

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.url_env):
            raise ValueError("url and url_env: say one of them")
        if self.url:
            check_url(self.url)


@config
class NotifyConfig:
    """Who is told what."""

    events: list[Event] = Field(default_factory=lambda: list(EVENTS))
    """What is told."""
    file: str = ""
    """A file in the workspace that gets a line of JSON for each event; empty writes none."""
    webhook: WebhookConfig | None = None
    """Who is told over HTTP."""
    linger_seconds: Annotated[float, Field(ge=0, le=60)] = 3.0
    """How long the end of a pipeline waits for requests that are still under way."""

    def __post_init__(self) -> None:
        path = PurePath(self.file)
        if self.file and (path.is_absolute() or ".." in path.parts):
            raise ValueError(f"file: {self.file!r} leads out of the workspace")


def check_url(url: str) -> None:
    """Refuse what is no address of a web server: the library would also open files.

    Raises:
        ValueError: With the reason; the address is not repeated, because it may hold a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("url: an address starts with http:// or https:// and names a host")
    if parts.username or parts.password:
        raise ValueError("url: a password does not belong into a config; put the whole address into url_env")


def read_notify(node: Node | None) -> NotifyConfig:
    """Read the section; nothing tells nobody.

    Raises:
        ConfigError: With all problems and their places.
    """
    if node is None or plain(node) is None:
        return NotifyConfig()
    if not isinstance(node, Section):
        raise ConfigError("'notify' must be a section", where=node.origin.where, hint="such as notify: {file: x.jsonl}")
    value: NotifyConfig = load(node, root=NotifyConfig, reserved=()).value
    return value


def workspace_notify(environment: Path | None) -> NotifyConfig:
    """Return what a workspace's ``clew.yaml`` says, for what has no file of its own to say it in.

    Raises:
        ConfigError: With all problems and their places.
    """
    layer = notify_layer(environment) if environment is not None and environment.is_file() else None
    return read_notify(layer.items["notify"] if layer is not None else None)


def notify_layer(environment: Path) -> Section | None:
    """Return what a workspace's ``clew.yaml`` says under ``notify``, as a layer of a pipeline; None for nothing.

    Raises:
        ConfigError: If the file cannot be read.
    """
    tree = read_file(environment, "environment")
    node = tree.items.get("notify")
    return None if node is None else Section({"notify": node}, tree.origin)
