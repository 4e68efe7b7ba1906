from __future__ import annotations

import numpy as np
import pytest
import torch

from clew.checkpoints.rng import rng_state
from clew.data.packing import IGNORED, Windows
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.train.losses import mean_loss
from clew.train.scoring import WindowScorer, mean_hidden, token_scores

VOCAB, SEQ_LEN = 30, 8
CPU = torch.device("cpu")


def words(ids: list[int]) -> str:
    return "".join(f"<{token}>" for token in ids)


def scorer(length: int = 61, **options) -> WindowScorer:
    """61 tokens are 7 windows and a half."""
    torch.manual_seed(0)
    model = Decoder(ModelConfig(depth=1, width=16, heads=2), VOCAB, SEQ_LEN)
    samples = Windows(np.random.default_rng(0).integers(0, VOCAB, length).astype(np.uint16), SEQ_LEN)
    made = WindowScorer(model, samples, words, **{"batch_size": 4, "precision": torch.float32, **options})
    made.model, made.samples = model, samples
    return made


def everything(one: WindowScorer) -> np.ndarray:
    return np.arange(len(one), dtype=np.int64)


def test_the_losses_of_all_samples_have_the_mean_of_the_validation():
    one = scorer()
    ids = everything(one)
    losses, lengths = one.score(ids).loss, [fields["length"] for fields in one.fields(ids)]
    assert lengths == [8] * 7 + [4]
    expected = mean_loss(
        one.model, one.samples, num_samples=len(one), micro_batch_size=3, device=CPU, precision=torch.float32
    )
    assert np.average(losses, weights=lengths) == pytest.approx(expected, rel=1e-6)
    assert losses.dtype == np.float64


def test_losses_and_margins_are_those_of_log_probabilities():
    logits = torch.randn(3, 5, 7) * 4
    targets = torch.randint(0, 7, (3, 5))
    targets[1, 3:] = IGNORED
    loss, margin = token_scores(logits, targets)
    exact = logits.double().log_softmax(-1)
    for row, place in np.ndindex(3, 5):
        target = int(targets[row, place])
        if target == IGNORED:
            assert loss[row, place] == margin[row, place] == 0
            continue
        known = exact[row, place]
        wrong = torch.cat((known[:target], known[target + 1 :])).max()
        assert loss[row, place].item() == pytest.approx(-known[target].item(), rel=1e-5)
        assert margin[row, place].item() == pytest.approx((known[target] - wrong).item(), rel=1e-4, abs=1e-5)
    assert loss.dtype == margin.dtype == torch.float32


def test_a_margin_is_positive_exactly_where_the_right_token_is_the_likeliest():
    logits, targets = torch.randn(4, 6, 9), torch.randint(0, 9, (4, 6))
    assert torch.equal(token_scores(logits, targets)[1] > 0, logits.argmax(-1) == targets)


def test_an_embedding_is_the_mean_of_the_last_hidden_states_and_padding_has_no_part_in_it():
    one = scorer()
    embedding = one.score(everything(one)).embedding
    assert embedding.shape == (8, 16)
    assert embedding.dtype == np.float32
    batch = one.samples.batch(everything(one))
    with torch.no_grad():
        hidden = one.model.hidden(torch.from_numpy(batch.inputs))
    assert np.allclose(embedding[2], hidden[2].mean(0), atol=1e-6)
    assert np.allclose(embedding[7], hidden[7, :4].mean(0), atol=1e-6)
    assert torch.equal(mean_hidden(hidden[:1], torch.zeros(1, 8, dtype=torch.bool)), torch.zeros(1, 16))


def test_the_head_predicts_from_the_hidden_states():
    one, tokens = scorer(), torch.randint(0, VOCAB, (2, 5))
    assert torch.equal(one.model.head(one.model.hidden(tokens)), one.model(tokens))


def test_samples_are_scored_in_the_order_of_their_ids_whoever_is_in_the_batch():
    one = scorer()
    alone = np.concatenate([one.score(np.array([number])).loss for number in (5, 7, 0, 5)])
    assert one.score(np.array([5, 7, 0, 5])).loss == pytest.approx(alone, rel=1e-5)


def test_tokens_are_the_targets_and_those_of_all_samples_make_up_the_row():
    one = scorer()
    scores = one.score(everything(one), tokens=True)
    assert "".join(text for row in scores.tokens for text in row) == words(one.samples.tokens[1:].tolist())
    for row, losses, mean in zip(scores.tokens, scores.token_losses, scores.loss, strict=True):
        assert len(row) == len(losses)
        assert losses.dtype == np.float32
        assert losses.mean(dtype=np.float64) == pytest.approx(mean)
    assert not one.score(np.array([1])).tokens
    assert not one.score(np.array([1])).token_losses


def test_fields_are_number_text_and_length():
    one = scorer()
    row = one.samples.tokens
    first, last = one.fields(np.array([1, 7]))
    assert first == {"number": 1, "text": words(row[8:17].tolist()), "length": 8}
    assert last == {"number": 7, "text": words(row[56:61].tolist()), "length": 4}


def test_a_sample_without_targets_has_no_loss():
    one = scorer()
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[IGNORED] * 3, [1, 2, 3]])
    assert not token_scores(logits, targets)[0][0].any()
    one.samples = one._samples = AllIgnored(one.samples.tokens, SEQ_LEN)
    assert np.isnan(one.score(np.array([0])).loss).all()
    assert np.isnan(one.score(np.array([0])).margin).all()


class AllIgnored(Windows):
    """Nothing in it is learnt."""

    def batch(self, ids):
        batch = super().batch(ids)
        batch.targets[:] = IGNORED
        return batch


@pytest.mark.parametrize("training", [True, False])
def test_scoring_changes_nothing(training):
    one = scorer()
    one.model.train(training)
    one.model(torch.zeros(1, 2, dtype=torch.int64)).sum().backward()
    before, gradients = rng_state()["torch"], [parameter.grad.clone() for parameter in one.model.parameters()]
    one.score(everything(one), tokens=True)
    assert torch.equal(rng_state()["torch"], before)
    assert one.model.training is training
    for parameter, gradient in zip(one.model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_the_precision_of_the_training_is_that_of_the_scores():
    rough, exact = scorer(precision=torch.bfloat16), scorer()
    ours, theirs = rough.score(everything(rough)).loss, exact.score(everything(exact)).loss
    assert ours == pytest.approx(theirs, rel=0.02)
    assert not np.array_equal(ours, theirs)
