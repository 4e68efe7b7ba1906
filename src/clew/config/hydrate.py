"""From a merged tree to a typed config, with every problem found on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pydantic

from clew.config.choose import choose_class, choose_plugin
from clew.config.describe import known_keys
from clew.config.dump import dump
from clew.config.leaf import absolute_value, allows_none, is_finite, plain_value, type_text, validate
from clew.config.merge import as_items, is_index_section, merge_items
from clew.config.origins import Origins, Resolved
from clew.config.plugins import Registry
from clew.config.problems import Problems, show, suggest_key
from clew.config.schema import (
    FieldSpec,
    LeafShape,
    ListShape,
    MappingShape,
    OptionalShape,
    PluginShape,
    SectionShape,
    Shape,
    fields_of,
    is_config,
)
from clew.config.tree import Items, Leaf, Node, Origin, Section, Shadow, Tree, children, join, leaves, tree_of
from clew.errors import ClewError, ConfigError, did_you_mean

_BROKEN: Final = object()
"""Stands for a value that could not be made; the problem is noted already."""
_NOTHING: Final = object()
"""Stands for `no default`."""


def hydrate(tree: Tree, cls: type, registries: Mapping[str, Registry], *, prefix: str = "") -> tuple[Any, Origins]:
    """Make a config of a merged tree.

    Args:
        tree: Only keys of the class; reserved keys are taken out before.
        cls: The config class.
        registries: Kind to registry, for plug-ins.
        prefix: Stands before the keys in errors, such as ``stages.sft``.

    Returns:
        The config, and the origin of each of its leaves.

    Raises:
        ConfigError: With all problems, each with its place.
    """
    if not is_config(cls):
        raise TypeError(f"{cls.__name__} is not decorated with @config")
    work = _Hydration(cls, registries, prefix)
    value = work.build(cls, tree, "", None, cls.__name__)
    work.problems.raise_if_any()
    return value, Origins(work.entries)


class _Hydration:
    """One pass over a tree and a schema together; holds what is found on the way."""

    def __init__(self, root: type, registries: Mapping[str, Registry], prefix: str) -> None:
        self.root = root
        self.registries = registries
        self.prefix = prefix
        self.problems = Problems()
        self.entries: dict[str, Resolved] = {}

    def build(self, cls: type, section: Section, key: str, given: Any, owner: str, *, plugin: bool = False) -> Any:
        """Make an instance of a config class.

        Args:
            cls: The class.
            section: What was said.
            key: The dotted key of the section.
            given: An instance of the class that supplies its defaults, or nothing.
            owner: The class whose default ``given`` is.
            plugin: Whether ``type`` has been read as the name of the class.
        """
        fields = fields_of(cls)
        self._note_unknown(section, (*fields, "type") if plugin else tuple(fields), key)
        values = {}
        for spec in fields.values():
            values[spec.name] = self._field(cls, spec, section, key, given, owner)
        if any(value is _BROKEN for value in values.values()):
            return _BROKEN
        return self._construct(cls, {n: v for n, v in values.items() if v is not _NOTHING}, section, key)

    def _note_unknown(self, section: Section, known: tuple[str, ...], key: str) -> None:
        for name, node in section.items.items():
            if name not in known:
                full = join(key, name)
                siblings = [join(key, other) for other in known]
                hint = suggest_key(full, siblings, known_keys(self.root))
                self.problems.add(f"unknown key {self._name(full)}", node.origin.where, hint)

    def _field(self, cls: type, spec: FieldSpec, section: Section, key: str, given: Any, owner: str) -> Any:
        """The value of one field; ``_NOTHING`` when the class fills in its own default."""
        full = join(key, spec.name)
        own = _NOTHING if spec.required else spec.default()
        default = own if given is None else getattr(given, spec.name)
        source = owner if given is not None and default != own else cls.__name__
        node = section.items.get(spec.name)
        unset: tuple[Shadow, ...] = ()
        if isinstance(node, Leaf) and node.value is None and not _takes_none(spec.shape):
            unset, node = ((None, node.origin), *node.shadowed), None
        if node is None and default is _NOTHING:
            return self._missing(spec, section, full)
        base = None if default is _NOTHING else Origin("default", source)
        if node is None and (default is None or isinstance(spec.shape, LeafShape) or not is_config(type(default))):
            assert base is not None
            self._record_default(full, default, base, unset)
            return _NOTHING if given is None else default
        node = Section({}, section.origin) if node is None else self._over_default(node, default, base, full)
        return _BROKEN if node is None else self._value(spec.shape, node, full, default, source)

    def _missing(self, spec: FieldSpec, section: Section, key: str) -> Any:
        if isinstance(spec.shape, SectionShape) and len(spec.shape.classes) == 1:
            empty = Section({}, section.origin)
            return self.build(spec.shape.classes[0], empty, key, None, spec.shape.classes[0].__name__)
        if isinstance(spec.shape, SectionShape | PluginShape):
            return self._value(spec.shape, Section({}, section.origin), key, _NOTHING, "")
        hint = spec.doc.partition("\n")[0]
        self.problems.add(f"{self._name(key)} is required ({self._type(spec.shape)})", section.origin.where, hint)
        return _BROKEN

    def _over_default(self, node: Node, default: Any, base: Origin | None, key: str) -> Node | None:
        """Lay ``betas.0=0.8`` over a list that only the class says."""
        if base is None or not isinstance(node, Section) or not is_index_section(node):
            return node
        if not isinstance(default, list | tuple):
            return node
        below = as_items(tree_of(self._plain(default), base))
        assert below is not None
        try:
            return merge_items(below, node, key)
        except ConfigError as error:
            self.problems.add(error.what, error.where, error.hint)
            return None

    def _value(self, shape: Shape, node: Node, key: str, default: Any, owner: str) -> Any:
        if isinstance(shape, LeafShape):
            return self._leaf(shape, node, key, default, owner)
        if isinstance(shape, OptionalShape):
            if isinstance(node, Leaf) and node.value is None:
                self._record(key, node, None, default, owner)
                return None
            return self._value(shape.inner, node, key, default, owner)
        if isinstance(shape, ListShape | MappingShape):
            return self._container(shape, node, key)
        return self._section(shape, node, key, default, owner)

    def _leaf(self, shape: LeafShape, node: Node, key: str, default: Any, owner: str) -> Any:
        raw = absolute_value(shape.annotation, node)
        if not is_finite(raw):
            what = f"{self._name(key)} must be {self._type(shape)}, not {show(raw)}"
            self.problems.add(what, node.origin.where, "a number is finite")
            return _BROKEN
        try:
            value = validate(shape.annotation, raw)
        except pydantic.ValidationError as error:
            self._note_invalid(shape, node, raw, key, error)
            return _BROKEN
        self._record(key, node, plain_value(value), default, owner)
        return value

    def _note_invalid(self, shape: LeafShape, node: Node, raw: Any, key: str, error: pydantic.ValidationError) -> None:
        rules = [found for found in error.errors() if found["type"] in ("value_error", "assertion_error")]
        if rules:
            self.problems.add(f"{self._name(key)}: {rules[0]['ctx']['error']}", node.origin.where)
            return
        what = f"{self._name(key)} must be {self._type(shape)}, not {show(raw)}"
        self.problems.add(what, node.origin.where, _advice(shape, raw))

    def _record_default(self, key: str, default: Any, base: Origin, unset: tuple[Shadow, ...]) -> None:
        if isinstance(default, Mapping | list | tuple) and any(map(is_config, _types_in(default))):
            for name, leaf in leaves(tree_of(self._plain(default), base)):
                self.entries[join(key, name)] = Resolved(leaf.value, base, unset)
        else:
            self.entries[key] = Resolved(plain_value(default), base, unset)

    def _plain(self, value: Any) -> Any:
        """A default as plain values, with the configs in it."""
        if is_config(type(value)):
            return dump(value, self.registries)
        if isinstance(value, Mapping):
            return {str(key): self._plain(item) for key, item in value.items()}
        return [self._plain(item) for item in value] if isinstance(value, list | tuple) else plain_value(value)

    def _record(self, key: str, node: Node, value: Any, default: Any, owner: str) -> None:
        below = () if default is _NOTHING else ((self._plain(default), Origin("default", owner)),)
        if isinstance(node, Leaf):
            self.entries[key] = Resolved(value, node.origin, (*node.shadowed, *below))
            return
        spoken = dict(leaves(node))
        if not spoken:
            self.entries[key] = Resolved(value, node.origin, below)
        for name, leaf in spoken.items():
            self.entries[join(key, name)] = Resolved(_at(value, name), leaf.origin, leaf.shadowed)

    def _container(self, shape: ListShape | MappingShape, node: Node, key: str) -> Any:
        listed = as_items(node) if isinstance(shape, ListShape) else node
        if not isinstance(listed, Items if isinstance(shape, ListShape) else Section):
            what = f"{self._name(key)} must be {self._type(shape)}, not {show(_short(node))}"
            self.problems.add(what, node.origin.where)
            return _BROKEN
        assert isinstance(listed, Items | Section)
        if not children(listed):
            self.entries[key] = Resolved([] if isinstance(shape, ListShape) else {}, node.origin)
        made = {name: self._value(shape.item, item, join(key, name), _NOTHING, "") for name, item in children(listed)}
        if any(value is _BROKEN for value in made.values()):
            return _BROKEN
        return shape.container(made.values()) if isinstance(shape, ListShape) else made

    def _section(self, shape: SectionShape | PluginShape, node: Node, key: str, default: Any, owner: str) -> Any:
        if isinstance(shape, PluginShape) and shape.word and isinstance(node, Leaf) and isinstance(node.value, str):
            node = Section({"type": node}, node.origin)
        if not isinstance(node, Section):
            hint = f"write {key}.type: {node.value}" if isinstance(node, Leaf) and isinstance(node.value, str) else ""
            hint = hint if isinstance(shape, PluginShape) or len(shape.classes) > 1 else ""
            self.problems.add(f"{self._name(key)} must be a section, not {show(_short(node))}", node.origin.where, hint)
            return _BROKEN
        given = None if default is _NOTHING else default
        if isinstance(shape, PluginShape):
            return self._plugin(shape, node, key, given, owner)
        cls = choose_class(shape, node, self._name(key), given, self.problems)
        if cls is None:
            return _BROKEN
        kept = given if type(given) is cls else None
        return self.build(cls, node, key, kept, owner if kept is not None else cls.__name__)

    def _plugin(self, shape: PluginShape, node: Section, key: str, given: Any, owner: str) -> Any:
        registry = self.registries.get(shape.kind, Registry(shape.kind, {}))
        cls = choose_plugin(shape, registry, node, self._name(key), given, self.problems)
        if cls is None:
            return _BROKEN
        said = node.items.get("type")
        try:
            name = registry.name_of(cls)
        except ConfigError as error:
            self.problems.add(error.what, node.origin.where, error.hint)
            return _BROKEN
        source = said if isinstance(said, Leaf) else Leaf(name, Origin("default", owner))
        self.entries[join(key, "type")] = Resolved(name, source.origin, source.shadowed)
        kept = given if type(given) is cls else None
        return self.build(cls, node, key, kept, owner if kept is not None else cls.__name__, plugin=True)

    def _construct(self, cls: type, values: dict[str, Any], section: Section, key: str) -> Any:
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            for found in error.errors():
                reason = found.get("ctx", {}).get("error", found["msg"])
                name = str(found["loc"][0]) if found["loc"] else ""
                place = section.items.get(name, section).origin.where
                full = join(key, name)
                self.problems.add(f"{self._name(full)}: {reason}" if full else str(reason), place)
        except ClewError as error:
            self.problems.add(error.what, error.where or section.origin.where, error.hint)
        return _BROKEN

    def _name(self, key: str) -> str:
        return repr(join(self.prefix, key))

    def _type(self, shape: Shape) -> str:
        if isinstance(shape, LeafShape):
            return str(type_text(shape.annotation))
        return "a list of sections" if isinstance(shape, ListShape) else "a mapping of sections"


def _takes_none(shape: Shape) -> bool:
    return isinstance(shape, OptionalShape) or (isinstance(shape, LeafShape) and allows_none(shape.annotation))


def _types_in(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> list[type]:
    return [type(item) for item in (value.values() if isinstance(value, Mapping) else value)]


def _at(value: Any, key: str) -> Any:
    """What stands at a dotted key inside plain values; a key of a mapping may hold dots itself."""
    if not key:
        return value
    if isinstance(value, list):
        index, _, rest = key.partition(".")
        return _at(value[int(index)], rest)
    name = max((name for name in value if key == name or key.startswith(f"{name}.")), key=len)
    return _at(value[name], key[len(name) + 1 :])


def _short(node: Node) -> Any:
    return node.value if isinstance(node, Leaf) else "..." if isinstance(node, Items) else dict.fromkeys(node.items)


def _advice(shape: LeafShape, value: Any) -> str:
    text = type_text(shape.annotation)
    if isinstance(value, str) and text.choices:
        return did_you_mean(value, [str(choice) for choice in text.choices])
    if isinstance(value, float) and value.is_integer() and text.name.startswith("int"):
        return f"write {int(value)}"
    if isinstance(value, str) and value.lower() in ("yes", "no", "on", "off") and text.name.startswith("bool"):
        return "write true or false"
    return ""
