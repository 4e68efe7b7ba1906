"""Which class the key ``type`` picks."""

from __future__ import annotations

from typing import Any

from clew.config.plugins import Registry
from clew.config.problems import Problems, show
from clew.config.schema import PluginShape, SectionShape, fields_of, is_config
from clew.config.tree import Leaf, Section, plain
from clew.errors import ConfigError, did_you_mean


def tags(shape: SectionShape) -> dict[str, type]:
    """What each class of a union is called in ``type``.

    Raises:
        TypeError: A class has no ``type: Literal["x"] = "x"``.
    """
    found = {}
    for cls in shape.classes:
        spec = fields_of(cls).get("type")
        if spec is None or spec.required:
            raise TypeError(f'{cls.__name__} stands in a union, so it needs `type: Literal["..."] = "..."`')
        found[str(spec.default())] = cls
    return found


def choose_class(shape: SectionShape, node: Section, name: str, given: Any, problems: Problems) -> type | None:
    """The class of a section; nothing, with the problem noted, when ``type`` does not name one."""
    if len(shape.classes) == 1:
        return shape.classes[0]
    known = tags(shape)
    said = node.items.get("type")
    if said is None or plain(said) is None:
        if type(given) in shape.classes:
            return type(given)
        problems.add(f"{name} needs the key 'type'", node.origin.where, f"one of: {', '.join(known)}")
        return None
    value = plain(said)
    if not isinstance(value, str) or value not in known:
        problems.add(f"unknown type {show(value)} of {name}", said.origin.where, did_you_mean(str(value), known))
        return None
    return known[value]


def choose_plugin(
    shape: PluginShape, registry: Registry, node: Section, name: str, given: Any, problems: Problems
) -> type | None:
    """The class that a plug-in's ``type`` refers to; nothing, with the problem noted, when there is none."""
    said = node.items.get("type")
    if said is None or plain(said) is None:
        if given is not None:
            return type(given)
        problems.add(f"{name} needs the key 'type'", node.origin.where, f"one of: {', '.join(registry.names())}")
        return None
    if not isinstance(said, Leaf) or not isinstance(said.value, str):
        problems.add(f"the type of {name} must be a word, not {show(plain(said))}", said.origin.where)
        return None
    try:
        found = registry.resolve(said.value, said.origin.base)
    except ConfigError as error:
        problems.add(error.what, said.origin.where, error.hint)
        return None
    return _checked(found, shape, said, problems)


def _checked(found: Any, shape: PluginShape, said: Leaf, problems: Problems) -> type | None:
    if not is_config(found):
        hint = "decorate the class with @config"
        problems.add(f"{said.value!r} is not a config class", said.origin.where, hint)
        return None
    if is_config(shape.base) and not issubclass(found, shape.base):
        hint = f"derive it from {shape.base.__name__}"
        problems.add(f"{said.value!r} is not a {shape.base.__name__}", said.origin.where, hint)
        return None
    made: type = found
    return made
