"""One configuration story: layers, a typed tree, and where every value came from."""

from clew.config.describe import Described, describe
from clew.config.dump import (
    SAYS_CONTENT,
    changeable_keys,
    config_hash,
    content_digest,
    dump,
    input_digests,
    unhashed_keys,
)
from clew.config.explain import explain, field_at
from clew.config.hydrate import hydrate
from clew.config.json_schema import SchemaWriter, json_schema
from clew.config.layers import environment_layer, from_layer, override_layer
from clew.config.load import Loaded, load, load_tree, load_tree_with_presets, section_of
from clew.config.merge import merge
from clew.config.origins import Origins, Resolved, diff
from clew.config.plugins import Registry
from clew.config.scalars import to_yaml
from clew.config.schema import (
    ADDED,
    BETWEEN_ATTEMPTS,
    IN_WORDS,
    NOT_HASHED,
    InputPath,
    PathOrName,
    Plugin,
    Spelled,
    config,
    fields_of,
)
from clew.config.sweep import swept
from clew.config.template import template
from clew.config.tree import Origin, Tree, leaves, plain, replace_leaves, subtree

__all__ = [
    "ADDED",
    "BETWEEN_ATTEMPTS",
    "IN_WORDS",
    "NOT_HASHED",
    "SAYS_CONTENT",
    "Described",
    "InputPath",
    "Loaded",
    "Origin",
    "Origins",
    "PathOrName",
    "Plugin",
    "Registry",
    "Resolved",
    "SchemaWriter",
    "Spelled",
    "Tree",
    "changeable_keys",
    "config",
    "config_hash",
    "content_digest",
    "describe",
    "diff",
    "dump",
    "environment_layer",
    "explain",
    "field_at",
    "fields_of",
    "from_layer",
    "hydrate",
    "input_digests",
    "json_schema",
    "leaves",
    "load",
    "load_tree",
    "load_tree_with_presets",
    "merge",
    "override_layer",
    "plain",
    "replace_leaves",
    "section_of",
    "subtree",
    "swept",
    "template",
    "to_yaml",
    "unhashed_keys",
]
