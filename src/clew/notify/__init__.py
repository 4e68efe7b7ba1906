"""Telling people and programs that something has failed, waits for an answer, or is over."""

from clew.notify.config import EVENTS, NotifyConfig, WebhookConfig, notify_layer, read_notify, workspace_notify
from clew.notify.notifier import Notifier, open_notifier
from clew.notify.watching import TellingWatcher
from clew.notify.webhook import SIGNATURE, sign

__all__ = [
    "EVENTS",
    "SIGNATURE",
    "Notifier",
    "NotifyConfig",
    "TellingWatcher",
    "WebhookConfig",
    "notify_layer",
    "open_notifier",
    "read_notify",
    "sign",
    "workspace_notify",
]
