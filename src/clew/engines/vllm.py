"""Generation with vLLM, in this process.

It has an environment of its own on most machines, because it pins other versions of PyTorch and Transformers than
training does; see docs/jobs.md. It plans memory by itself, so a batch here is only as much as a job does between
two boundaries.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clew.engines.base import Batch, Completion, Engine, EngineOptions, GenerationConfig, row_seed
from clew.engines.completions import completion_of, encode_prompts, end_tokens
from clew.errors import MissingLibrary, UserError
from clew.models.source import ModelSource
from clew.tasks import Prompt

REQUESTS = 256
"""Prompts in one batch; vLLM takes from them as many at once as its memory holds."""
# The ranks that vLLM has kernels for (`vllm.config.lora.MaxLoRARanks`).
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def load_engine(source: ModelSource, options: EngineOptions) -> VllmEngine:
    """Load a folder or a hub id, with its LoRA adapter if it has one.

    Raises:
        UserError: If vLLM is not installed, or the model is one that it is not given here.
    """
    require_vllm("engine=vllm")
    if options.quantize != "none" or source.gguf_file:
        what = f"quantize={options.quantize}" if options.quantize != "none" else "a .gguf file"
        raise UserError(f"the engine vllm is not used with {what}", hint="set engine=transformers")
    # One process: what it prints and how it fails stay with the run. Both are read when vLLM is imported.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; read on a CPU only
    import vllm

    from clew.models.loading import load_tokenizer

    tokenizer = load_tokenizer(source)
    llm = vllm.LLM(
        model=source.base,
        tokenizer=str(source.tokenizer_folder or source.base),
        dtype=options.dtype,
        seed=options.seed % 2**32,
        load_format="safetensors",  # no pickle
        generation_config="vllm",  # nothing that came with the weights leaks in
        enforce_eager=options.device == "cpu",  # compiling takes a minute there, and gains little
        **_lora_options(source.adapter),
    )
    return VllmEngine(llm, tokenizer, adapter=source.adapter, seed=options.seed)


def require_vllm(what_for: str) -> None:
    """Check that vLLM is installed, without importing it.

    Raises:
        MissingLibrary: If it is not.
    """
    if find_spec("vllm") is None:
        raise MissingLibrary(
            f"{what_for} needs the library 'vllm', which is not installed",
            hint="install it as docs/jobs.md says, or use transformers",
        )


class VllmEngine(Engine):
    """Continuous batching: requests join and leave a running batch one by one. A process has one such engine at a time.

    Args:
        llm: A ``vllm.LLM``.
        tokenizer: Its tokenizer.
        adapter: A folder with a LoRA adapter that is loaded at the first request.
        seed: Seed of sampling.
    """

    def __init__(self, llm: Any, tokenizer: Any, *, adapter: Path | None = None, seed: int = 0) -> None:
        self.llm = llm
        self.tokenizer = tokenizer
        self.adapter = adapter
        self.seed = seed
        model = llm.llm_engine.model_config
        self._context = int(model.max_model_len)
        self._ends = end_tokens(tokenizer, model.try_get_generation_config().get("eos_token_id"))

    def plan(self, prompts: Sequence[Prompt], settings: GenerationConfig) -> list[Batch]:
        """Return batches of :data:`REQUESTS` prompts, in their order; see :meth:`Engine.plan`."""
        ids = encode_prompts(prompts, settings, self.tokenizer, self._context)
        starts = range(0, len(ids), REQUESTS)
        groups = [range(start, min(start + REQUESTS, len(ids))) for start in starts]
        return [Batch(tuple(group), tuple(ids[index] for index in group)) for group in groups]

    def complete(self, batch: Batch, settings: GenerationConfig) -> list[Completion]:
        """Return the completions of one batch, in its order."""
        from vllm.lora.request import LoRARequest

        outputs = self.llm.generate(
            [{"prompt_token_ids": list(row)} for row in batch.prompts],
            [self._sampling(settings, index) for index in batch.indices],
            use_tqdm=False,
            lora_request=LoRARequest("adapter", 1, str(self.adapter)) if self.adapter else None,
        )
        return [
            completion_of(list(output.outputs[0].token_ids), len(row), settings, self.tokenizer, self._ends)
            for row, output in zip(batch.prompts, outputs, strict=True)
        ]

    def _sampling(self, settings: GenerationConfig, index: int) -> Any:
        import vllm

        return vllm.SamplingParams(
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p if settings.temperature else 1.0,
            seed=row_seed(self.seed, index),
            stop=list(settings.stop),
            stop_token_ids=sorted(self._ends),
        )


def _lora_options(adapter: Path | None) -> dict[str, Any]:
    if adapter is None:
        return {}
    rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    if rank > _RANKS[-1]:
        raise UserError(
            f"the engine vllm takes adapters up to rank {_RANKS[-1]}, not {rank}", hint="set engine=transformers"
        )
    return {"enable_lora": True, "max_lora_rank": next(one for one in _RANKS if one >= rank)}
