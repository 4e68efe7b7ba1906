"""TRL's ``GRPOTrainer``, watched: do the engine that generates and the trainer agree about the same tokens?

Policy optimisation assumes that completions come from the policy that is trained. Where the two disagree (another
engine, another precision, dropout, a sampling setting that came with the weights) it learns from samples of another
policy, and nothing shows it. So the log-probability of each sampled token is taken down while it is generated, and
compared with the one that the trainer computes for its loss anyway. That costs a log-sum-exp over the vocabulary for
each generated token, and no forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import trl
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from clew.errors import RunFailed

_COMPARED = "compared"


class ChosenLogProbs(LogitsProcessor):  # type: ignore[misc]
    """Takes down the log-probability of every token that ``generate`` chooses, and changes nothing.

    Only the newest logits are kept, [rows, vocabulary]; of earlier ones the chosen token's log-probability remains.
    What is taken is the model's distribution at the sampling temperature, after the processors that ``generate`` itself
    adds (such as a repetition penalty) and before top-p cuts it: the one that the trainer's log-probabilities mean.

    Args:
        temperature: Of the sampling.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._logits: Tensor | None = None
        self._columns: list[Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """See the logits of the next token, [rows, vocabulary], and the one that was chosen by those before."""
        self._settle(input_ids[:, -1])
        self._logits = scores
        return scores

    def finish(self, sequences: Tensor) -> None:
        """See the finished sequences, [rows, prompt and completion]: the last token was chosen after the last call."""
        self._settle(sequences[:, -1])
        self._logits = None

    def rows(self, lengths: Sequence[int]) -> list[list[float]] | None:
        """Return the log-probabilities of each row up to its length; None if nothing was generated through here."""
        if not self._columns:
            return None
        table = torch.stack(self._columns, dim=1).cpu()
        return [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]

    def _settle(self, chosen: Tensor) -> None:
        if self._logits is not None:
            scaled = self._logits / self._temperature
            self._columns.append(scaled.gather(1, chosen[:, None])[:, 0] - scaled.logsumexp(dim=1))


@contextmanager
def recorded(model: Any, recorder: ChosenLogProbs) -> Iterator[None]:
    """Let a recorder see what ``model.generate`` generates."""
    own, generate = vars(model).get("generate"), model.generate

    def recording(*args: Any, **options: Any) -> Any:
        sequences = generate(*args, logits_processor=LogitsProcessorList([recorder]), **options)
        recorder.finish(sequences)
        return sequences

    model.generate = recording
    try:
        yield
    finally:
        del model.generate
        if own is not None:
            model.generate = own


def compare(trained: Tensor, generated: Tensor, mask: Tensor) -> list[float]:
    """Compare the two log-probabilities of the same tokens.

    Args:
        trained: The trainer's, [B, T].
        generated: The engine's, [B, T]; NaN where it gave none.
        mask: [B, T], 1 for the tokens of completions.

    Returns:
        How many tokens there are; the sum and the largest of the differences, in nats; the sum, the smallest and the
        largest of the ratios of the probabilities. Empty when nothing can be compared.
    """
    known = mask.bool() & ~generated.isnan()
    if not bool(known.any()):
        return []
    difference = (trained - generated)[known].double()
    gap, ratio = difference.abs(), difference.exp()
    found: list[float] = torch.stack([gap.sum(), gap.max(), ratio.sum(), ratio.min(), ratio.max()]).tolist()
    return [float(gap.numel()), *found]


def summary(compared: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the metrics of several comparisons; empty when there is none."""
    if not compared:
        return {}
    count, gaps, largest, ratios, lowest, highest = zip(*compared, strict=True)
    return {
        "logprob_gap/mean": sum(gaps) / sum(count),
        # A NaN must be seen, and max() would lose it.
        "logprob_gap/max": math.nan if any(map(math.isnan, largest)) else max(largest),
        "ratio/mean": sum(ratios) / sum(count),
        "ratio/min": min(lowest),
        "ratio/max": max(highest),
    }


def check_gap(largest: float, bound: float, step: int) -> None:
    """Check a difference between the two log-probabilities of a token.

    Raises:
        RunFailed: If it is above the bound, or is no number.
    """
    if not largest <= bound:
        raise RunFailed(
            f"the engine that generates and the trainer disagree: their log-probabilities of the same token differ "
            f"by {largest:.3g} nats, more than training.max_logprob_gap={bound:g}",
            where=f"step {step}",
            hint="likely causes: dropout (lora.dropout), a low precision or quantised weights, a generating engine "
            "with other weights than the trainer's, or a repetition penalty that came with the model",
        )


class PolicyTrainer(trl.GRPOTrainer):  # type: ignore[misc]
    """``GRPOTrainer`` that compares the generating engine with itself, and takes the rewards' weights step by step.

    Args:
        weights: ``weights(step, total)`` returns the weights of the reward functions in a step, from 1 to total.
        max_logprob_gap: The largest difference that is let pass, in nats; None lets all pass.
        options: For ``GRPOTrainer``.
    """

    def __init__(
        self, *, weights: Callable[[int, int], list[float]], max_logprob_gap: float | None, **options: Any
    ) -> None:
        self._weights = weights
        self._max_gap = max_logprob_gap
        self._trained = torch.empty(0)
        super().__init__(**options)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the comparison to what is logged."""
        # Kept among TRL's metrics of the training, which a checkpoint holds, and taken out before TRL averages them.
        compared = self._metrics["train"].pop(_COMPARED, [])
        super().log(logs | summary(compared), start_time)

    def _calculate_rewards(self, *args: Any, **options: Any) -> Any:
        weights = self._weights(self.state.global_step + 1, self.state.max_steps)
        self.reward_weights = torch.tensor(weights, dtype=torch.float32)
        return super()._calculate_rewards(*args, **options)

    def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
        recorder = ChosenLogProbs(self.temperature)
        # Generated in the precision of the training: in bfloat16 that takes four fifths of the gap away.
        with self.accelerator.autocast(), recorded(self.accelerator.unwrap_model(self.model_wrapped), recorder):
            completions, log_probs = super()._generate_single_turn(*args, **options)
        # vLLM gives its own.
        return completions, recorder.rows([len(one) for one in completions]) if log_probs is None else log_probs

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **options)
        self._trained = found[0].detach()
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)  # the last log-probabilities that it asks for are the policy's
        generated = inputs.get("sampling_per_token_logps")
        if generated is None and self._max_gap is not None:
            raise RunFailed(
                "the engine that generates gives no log-probabilities, which training.max_logprob_gap needs",
                hint="set training.max_logprob_gap=null",
            )
        if generated is not None and (found := compare(self._trained, generated, inputs["completion_mask"])):
            self._metrics["train"][_COMPARED].append(found)
            if self._max_gap is not None:
                check_gap(found[2], self._max_gap, self.state.global_step + 1)
        return loss
