"""Checkpoint, and note: keep something, and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clew.checkpoints.store import check_tag
from clew.errors import UserError
from clew.session.verbs.base import Boundary, Verb

LONGEST_NOTE = 10_000


def _checkpoint(boundary: Boundary, args: Mapping[str, Any]) -> None:
    tag = args.get("tag", "")
    if tag:
        check_tag(tag)
    boundary.save(tag)


def _note(boundary: Boundary, args: Mapping[str, Any]) -> None:
    text = args.get("text")
    if not isinstance(text, str) or not text.strip():
        raise UserError("a note is a text")
    if len(text) > LONGEST_NOTE:
        raise UserError(f"a note has at most {LONGEST_NOTE} characters, and this one {len(text)}")


CHECKPOINT = Verb("checkpoint", _checkpoint, frozenset({"tag"}))
NOTE = Verb("note", _note, frozenset({"text"}))
