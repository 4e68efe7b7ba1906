"""One call from a file to a config whose every value knows where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clew.config.dump import dump
from clew.config.hydrate import hydrate
from clew.config.layers import environment_layer, file_layers, mapping_layers, override_layer, preset_layer, word_of
from clew.config.leaf import plain_value
from clew.config.merge import merge_all
from clew.config.origins import Origins
from clew.config.plugins import Registry
from clew.config.schema import is_config
from clew.config.tree import Origin, Section, Tree, plain, tree_of, without
from clew.errors import ConfigError

Source = Path | Mapping[str, Any] | Tree
Root = type | Callable[[Mapping[str, Any]], type]


@dataclass(frozen=True)
class Loaded:
    """A config and its history.

    Args:
        value: The typed config.
        origins: Dotted key to where its value came from.
        tree: What was merged, without defaults; reserved keys are still in it.
        plain: What :func:`clew.config.to_yaml` writes: every leaf, reloads to ``value``.
    """

    value: Any
    origins: Origins
    tree: Tree
    plain: dict[str, Any]


def load_tree(
    source: Source,
    *,
    overrides: Sequence[str] = (),
    environment: Path | None = None,
    job: str | None = None,
) -> Tree:
    """Merge all layers except presets and defaults.

    Args:
        source: A file, its content as a mapping, or layers that are merged already.
        overrides: ``a.b=value`` from the command line.
        environment: The workspace file; nothing, or a missing file, when there is none.
        job: Whose environment applies; nothing means what the source says under ``job``.

    Raises:
        ConfigError: A layer cannot be read, with its place.
    """
    return merge_all(_stack(source, overrides, environment, job))


def _stack(source: Source, overrides: Sequence[str], environment: Path | None, job: str | None) -> list[Tree]:
    """The layers, the lowest first."""
    if isinstance(source, Section):
        said = [source]
    else:
        said = file_layers(source) if isinstance(source, Path) else mapping_layers(_checked(source))
    spoken = override_layer(overrides)
    above = [] if spoken is None else [spoken]
    around = None
    if environment is not None and environment.is_file():
        around = environment_layer(environment, job or word_of(merge_all([*said, *above]), "job"))
    return [*said, *([] if around is None else [around]), *above]


def load(
    source: Source,
    *,
    root: Root,
    registries: Mapping[str, Registry] | None = None,
    overrides: Sequence[str] = (),
    environment: Path | None = None,
    job: str | None = None,
    reserved: tuple[str, ...] = ("extends", "preset"),
) -> Loaded:
    """Load a config through all its layers.

    Args:
        source: A file, its content as a mapping, or layers that are merged already.
        root: The config class, or what picks it from the merged plain values.
        registries: Kind to registry, for plug-ins.
        overrides: ``a.b=value`` from the command line.
        environment: The workspace file whose ``environment: {<job>: ...}`` lies over the file.
        job: Whose environment applies; nothing means what the source says under ``job``.
        reserved: Top-level keys that are not the class's.

    Raises:
        ConfigError: With all problems, each with its place.
    """
    layers = _stack(source, overrides, environment, job)
    tree = merge_all(layers)
    cls = root if isinstance(root, type) else _pick(root, tree)
    preset = preset_layer(cls, tree) if "preset" in reserved else None
    # Laid under the layers one by one: `a: null` in one of them must also cut off what the preset says.
    tree = tree if preset is None else merge_all([preset, *layers])
    value, origins = hydrate(without(tree, reserved), cls, registries or {})
    return Loaded(value, origins, tree, dump(value, registries))


def _pick(root: Callable[[Mapping[str, Any]], type], tree: Tree) -> type:
    try:
        return root(plain(tree))
    except ConfigError as error:
        if error.where:
            raise
        raise ConfigError(error.what, where=tree.origin.where, hint=error.hint) from error


def _checked(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Plain values of a mapping made in Python.

    Raises:
        TypeError: A config stands in it, of which nobody could say which class it was.
    """
    return {str(key): _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if is_config(type(value)):
        raise TypeError(
            f"a {type(value).__name__} stands in a mapping of plain values; write the whole config with dump()"
        )
    if isinstance(value, Mapping):
        return _checked(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else plain_value(value)


def section_of(values: Mapping[str, Any], origin: Origin) -> Tree:
    """A layer of plain values that were said in one place, to be merged by hand (a steering command, a fork)."""
    tree = tree_of(_checked(values), origin)
    assert isinstance(tree, Section)
    return tree
