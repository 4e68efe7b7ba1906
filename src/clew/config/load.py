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
    below: Tree | None = None,
) -> Tree:
    """Merge all layers except presets and defaults.

    Args:
        source: A file, its content as a mapping, or layers that are merged already.
        overrides: ``a.b=value`` from the command line.
        environment: The workspace file; nothing, or a missing file, when there is none.
        job: Whose environment applies; nothing means what the source says under ``job``.
        below: What :func:`from_layer` made of another config.

    Raises:
        ConfigError: A layer cannot be read, with its place.
    """
    return merge_all([*_lowest(below), *_stack(source, overrides, environment, job, below)])


def _lowest(below: Tree | None) -> list[Tree]:
    return [] if below is None else [below]


def _stack(
    source: Source, overrides: Sequence[str], environment: Path | None, job: str | None, below: Tree | None
) -> list[Tree]:
    """The layers above ``below``, the lowest first."""
    if isinstance(source, Section):
        said = [source]
    else:
        said = file_layers(source) if isinstance(source, Path) else mapping_layers(_checked(source))
    spoken = override_layer(overrides)
    above = [] if spoken is None else [spoken]
    around = None
    if environment is not None and environment.is_file():
        around = environment_layer(environment, job or word_of(merge_all([*_lowest(below), *said, *above]), "job"))
    return [*said, *([] if around is None else [around]), *above]


def load(
    source: Source,
    *,
    root: Root,
    registries: Mapping[str, Registry] | None = None,
    overrides: Sequence[str] = (),
    environment: Path | None = None,
    job: str | None = None,
    below: Tree | None = None,
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
        below: What :func:`from_layer` made of another config; it lies between the defaults and the preset.
        reserved: Top-level keys that are not the class's.

    Raises:
        ConfigError: With all problems, each with its place.
    """
    layers = _stack(source, overrides, environment, job, below)
    cls = root if isinstance(root, type) else _pick(root, merge_all([*_lowest(below), *layers]))
    tree = _with_presets(cls, layers, below, reserved)
    value, origins = hydrate(without(tree, reserved), cls, registries or {})
    return Loaded(value, origins, tree, dump(value, registries))


def load_tree_with_presets(
    source: Source, cls: type, *, overrides: Sequence[str] = (), environment: Path | None = None, below: Tree | None
) -> Tree:
    """Merge all layers except defaults; the key ``preset`` is gone, since it has been followed.

    Args:
        source: A file, its content as a mapping, or layers that are merged already.
        cls: The class that has the presets.
        overrides: ``a.b=value`` from the command line.
        environment: The workspace file.
        below: What :func:`from_layer` made of another config.
    """
    layers = _stack(source, overrides, environment, None, below)
    return without(_with_presets(cls, layers, below, ("preset",)), ("preset",))


def _with_presets(cls: type, layers: list[Tree], below: Tree | None, reserved: tuple[str, ...]) -> Tree:
    lower, upper = (_preset(cls, layer, reserved) for layer in (below, merge_all(layers)))
    # Laid under the layers one by one: `a: null` in one of them must also cut off what the preset says.
    return merge_all([*lower, *_lowest(below), *upper, *layers])


def _preset(cls: type, tree: Tree | None, reserved: tuple[str, ...]) -> list[Tree]:
    """The preset that a layer asks for, if it may."""
    preset = preset_layer(cls, tree) if tree is not None and "preset" in reserved else None
    return [] if preset is None else [preset]


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
