from __future__ import annotations

import subprocess
import sys

import pytest

from clew.engines import EngineOptions, check_engine, engine_registry, load_engine
from clew.errors import UserError
from clew.models.source import ModelSource

SOURCE = ModelSource(base="owner/name")


def own_engine(source, options):
    """An engine that somebody's package offers; a name like this file's stands for it, too."""
    return source, options


def test_engines_are_found_by_name_or_by_place():
    assert engine_registry().names() == ["transformers", "vllm"]
    for name in ("auto", "transformers", "vllm"):
        check_engine(name)
    options = EngineOptions(seed=3)
    assert load_engine(f"{__name__}:own_engine", SOURCE, options) == (SOURCE, options)


def test_an_unknown_engine_is_an_error_with_the_nearest_name():
    with pytest.raises(UserError) as caught:
        check_engine("vlm")
    assert str(caught.value) == "unknown engine 'vlm'\n  did you mean 'vllm'?"


@pytest.mark.parametrize(
    ("options", "installed", "chosen"),
    [
        (EngineOptions(device="cuda"), True, "vllm"),
        (EngineOptions(device="cuda"), False, "transformers"),
        (EngineOptions(device="cuda", quantize="nf4"), True, "transformers"),
        (EngineOptions(device="cpu"), True, "transformers"),
    ],
)
def test_auto_is_vllm_only_where_it_runs_well(options, installed, chosen, monkeypatch):
    from clew.engines import registry

    monkeypatch.setattr(registry, "find_spec", lambda name: object() if installed and name == "vllm" else None)
    monkeypatch.setattr(registry, "BUILTIN", {name: f"{__name__}:{name}_stands_in" for name in registry.BUILTIN})
    assert load_engine("auto", SOURCE, options) == chosen


def vllm_stands_in(source, options):
    return "vllm"


def transformers_stands_in(source, options):
    return "transformers"


def test_vllm_says_what_is_missing_and_what_it_is_not_used_for(monkeypatch):
    from clew.engines import vllm

    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        load_engine("vllm", SOURCE, EngineOptions())
    assert str(caught.value) == (
        "engine=vllm needs the library 'vllm', which is not installed\n"
        "  install it as docs/jobs.md says, or use transformers"
    )
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    for source, options, what in (
        (SOURCE, EngineOptions(quantize="nf4"), "quantize=nf4"),
        (ModelSource(base="/x", gguf_file="m.gguf"), EngineOptions(), "a .gguf file"),
    ):
        with pytest.raises(UserError) as caught:
            load_engine("vllm", source, options)
        assert str(caught.value) == f"the engine vllm is not used with {what}\n  set engine=transformers"


def test_the_names_are_known_without_torch():
    code = "import sys, clew.engines; clew.engines.check_engine('vllm'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
