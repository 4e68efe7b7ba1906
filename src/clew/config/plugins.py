"""Names for classes: what ships, what installed packages offer, and what stands in the user's own file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from clew.errors import ConfigError, did_you_mean

_FILE_MODULE = "clew_file_"
_DIGEST = "__clew_digest__"


@dataclass(frozen=True)
class Registry:
    """Classes of one kind by name.

    Args:
        kind: What is registered, such as ``"task"``; it appears in errors.
        builtin: Name to ``module:attribute`` of what ships.
        entry_point_group: Where other packages add theirs, such as ``"clew.tasks"``; empty for nowhere.
    """

    kind: str
    builtin: Mapping[str, str]
    entry_point_group: str = ""

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted({*self.builtin, *self._offered()})

    def resolve(self, ref: str, base_dir: Path | None = None) -> Any:
        """Find what a reference names.

        Args:
            ref: A registered name, ``package.module:Class``, or ``path/file.py:Class``.
            base_dir: The folder that a relative file is relative to; nothing means the current one.

        Raises:
            ConfigError: The name is unknown, the file or the attribute is missing, or importing it failed.
        """
        target = self.reference(ref)
        if not target:
            raise ConfigError(f"unknown {self.kind} {ref!r}", hint=self._advice(ref))
        return load_object(target, base_dir)

    def reference(self, ref: str) -> str:
        """``module:attribute`` of a registered name; other references as they are; empty when unknown."""
        if ":" in ref:
            return ref
        return {**self._offered(), **self.builtin}.get(ref, "")

    def name_of(self, cls: type) -> str:
        """The shortest reference that resolves to ``cls``: its registered name where it has one."""
        target = reference_of(cls)
        return next((name for name in self.names() if self.reference(name) == target), target)

    def _offered(self) -> dict[str, str]:
        if not self.entry_point_group:
            return {}
        return {point.name: str(point.value) for point in entry_points(group=self.entry_point_group)}

    def _advice(self, ref: str) -> str:
        if ref.endswith(".py") or "/" in ref:
            return f"name the class in the file: {ref}:ClassName"
        if "." in ref:
            return f"write {':'.join(ref.rsplit('.', 1))!r} for a class in a module"
        return did_you_mean(ref, self.names())


def load_object(target: str, base_dir: Path | None = None) -> Any:
    """Import ``module:attribute`` or ``path/file.py:attribute``.

    Raises:
        ConfigError: The file or the attribute is missing, or importing failed; the cause stands in one line.
    """
    place, _, name = target.rpartition(":")
    module = _import_file(absolute(place, base_dir)) if place.endswith(".py") else _import_module(place)
    found: Any = module
    for part in name.split("."):
        # Not getattr(..., None): the attribute may be None, and an error of a module's __getattr__ must be seen.
        try:
            found = getattr(found, part)
        except AttributeError:
            public = [known for known in vars(found) if not known.startswith("_")]
            raise ConfigError(f"{place} has no {name!r}", hint=did_you_mean(part, public)) from None
    return found


def absolute(path: str, base_dir: Path | None) -> Path:
    """An absolute form of a path that is relative to ``base_dir`` (nothing: the current folder)."""
    # Links are kept: a path called `latest` should stay `latest`.
    return Path(os.path.normpath((base_dir or Path.cwd()).absolute() / Path(path).expanduser()))


def reference_of(cls: Any) -> str:
    """A reference from which any process on this machine finds a class or function again.

    Raises:
        ConfigError: The class was made inside a function, where no reference reaches it.
    """
    if "<locals>" in cls.__qualname__:
        raise ConfigError(
            f"{cls.__qualname__} is defined inside a function, so no config can name it",
            hint="define the class at the top level of its file",
        )
    place = cls.__module__
    file = getattr(sys.modules.get(place), "__file__", None)
    if file is not None and (place == "__main__" or is_file_module(place)):
        place = str(Path(file).resolve())
    return f"{place}:{cls.__qualname__}"


def identity_of(cls: type) -> str:
    """What a class is, wherever it stands: its module, or the content of its file as it was imported, and its name."""
    place, _, name = reference_of(cls).rpartition(":")
    if place.endswith(".py"):
        module = sys.modules[cls.__module__]
        place = vars(module).get(_DIGEST) or hashlib.sha256(Path(place).read_bytes()).hexdigest()
    return f"{place}:{name}"


def is_file_module(name: str) -> bool:
    """Whether a module was imported from a user's file rather than by its name."""
    return name.startswith(_FILE_MODULE)


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(f"cannot import {name}: {_one_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name made of its place and content, so that an edited file is imported anew."""
    if not path.is_file():
        raise ConfigError(f"the file {path} does not exist")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"{_FILE_MODULE}{path.stem}_{hashlib.sha256(f'{path}:{content}'.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, _DIGEST, content)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"cannot import {path}: {_one_line(error)}") from error
    return module


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
