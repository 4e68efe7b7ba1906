"""Sharding: which part of a model each device of a mesh holds, said in a config before anything is started.

A model declares what each dimension of its parameters means (its logical axes), a table maps logical axes to axes of
the mesh, and PyTorch does the rest. Torch is imported by the modules that compute (`devices`, `parallel`), never by the
configs and plans.
"""

from clew.sharding.config import MeshConfig
from clew.sharding.rules import MESH_AXES, Rules

__all__ = ["MESH_AXES", "MeshConfig", "Rules"]
