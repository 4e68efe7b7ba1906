"""Sessions: a live run seen from inside its worker."""

from clew.session.session import Session
from clew.session.settings import Setting
from clew.session.surface import CheckpointConfig, LiveConfig, Outcome, RunStopped, Surface

__all__ = ["CheckpointConfig", "LiveConfig", "Outcome", "RunStopped", "Session", "Setting", "Surface"]
