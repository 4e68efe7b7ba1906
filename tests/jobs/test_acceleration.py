"""What needs CUDA is refused clearly where there is none, and is called as its source says.

Unsloth cannot be imported without a GPU. Its double here has the signatures of version 2026.10.9, so that an argument
that it does not take would show; what it does with them is not tested.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

from clew.errors import UserError
from clew.jobs.acceleration import accelerate, load_trainable
from clew.jobs.grpo import SamplingConfig, _generator
from clew.jobs.tuning import LoraConfig, TuningConfig
from clew.models.source import ModelSource

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def said(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def test_unsloth_that_is_asked_for_must_be_there():
    assert said(accelerate, "unsloth", CPU) == (
        "accelerator=unsloth needs CUDA, and this run is on cpu\n  set accelerator=none, or auto"
    )
    assert said(accelerate, "unsloth", CUDA) == (
        "accelerator=unsloth needs the library 'unsloth', which is not installed\n"
        "  install it as docs/jobs.md says, or set accelerator=none"
    )


def test_unsloth_that_is_not_there_is_not_used_otherwise():
    assert [accelerate(choice, device) for choice in ("none", "auto") for device in (CPU, CUDA)] == [False] * 4


def test_completions_are_drawn_by_vllm_only_where_it_runs():
    assert _generator(SamplingConfig(), CPU) == {}
    asked = SamplingConfig(engine="vllm")
    assert said(_generator, asked, CPU) == (
        "sampling.engine=vllm needs CUDA, and this run is on cpu\n  set sampling.engine=transformers"
    )
    assert said(_generator, asked, CUDA) == (
        "sampling.engine=vllm needs the library 'vllm', which is not installed\n"
        "  install it as docs/jobs.md says, or use transformers"
    )


class FastLanguageModel:
    """The arguments that ours are a part of, and whatever was passed."""

    calls: list[dict]

    @staticmethod
    def from_pretrained(model_name="x", max_seq_length=2048, dtype=None, load_in_4bit=True, load_in_8bit=False,
                        full_finetuning=False, use_gradient_checkpointing="unsloth", use_exact_model_name=False,
                        random_state=3407):  # fmt: skip
        FastLanguageModel.calls = [locals().copy()]
        return SimpleNamespace(config=SimpleNamespace()), None

    @staticmethod
    def get_peft_model(model, r=16, target_modules=("q_proj",), lora_alpha=16, lora_dropout=0.0, bias="none",
                       use_gradient_checkpointing="unsloth", random_state=3407):  # fmt: skip
        FastLanguageModel.calls.append(locals().copy())
        return model


@pytest.fixture
def unsloth(monkeypatch):
    module = ModuleType("unsloth")
    module.__spec__ = SimpleNamespace()
    module.FastLanguageModel = FastLanguageModel
    monkeypatch.setitem(sys.modules, "unsloth", module)


def load(source, **options):
    chosen = {"lora": LoraConfig(rank=4), "quantize": "nf4", "training": TuningConfig(), "seed": 3, **options}
    return load_trainable(source, CUDA, unsloth=True, **chosen)


def test_unsloth_loads_the_very_model_and_puts_the_adapter_on_it(unsloth, tmp_path):
    LlamaConfig(max_position_embeddings=77).save_pretrained(tmp_path)
    source = ModelSource(base=str(tmp_path))
    assert accelerate("auto", CUDA) and accelerate("unsloth", CUDA) and not accelerate("none", CUDA)
    model, adapter = load(source)
    loaded, adapted = FastLanguageModel.calls
    assert adapter is None
    assert model.config._name_or_path == str(tmp_path)
    assert (loaded["max_seq_length"], loaded["load_in_4bit"], loaded["use_exact_model_name"]) == (77, True, True)
    assert (adapted["r"], adapted["lora_alpha"], adapted["random_state"]) == (4, 32.0, 3)
    load(source, lora=None, quantize="none")
    (loaded,) = FastLanguageModel.calls
    assert (loaded["full_finetuning"], loaded["load_in_4bit"], loaded["load_in_8bit"]) == (True, False, False)
    assert said(lambda: load(source, quantize="fp4")).startswith("Unsloth does not go on from quantize=fp4 here")
    assert "an adapter" in said(lambda: load(ModelSource(base=str(tmp_path), adapter=tmp_path)))
