"""Locations elsewhere: what a run made is sent to the Hugging Face Hub or to any fsspec URL, and fetched from there."""

from clew.remote.config import PART_NAMES, Part, PushConfig
from clew.remote.errors import Conflict, RemoteError
from clew.remote.location import Head, Location, is_url, open_location
from clew.remote.manifest import Entry, Manifest

__all__ = [
    "PART_NAMES",
    "Conflict",
    "Entry",
    "Head",
    "Location",
    "Manifest",
    "Part",
    "PushConfig",
    "RemoteError",
    "is_url",
    "open_location",
]
