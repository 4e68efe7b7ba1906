"""The native loop against a hand-written PyTorch loop of the same model, and against Hugging Face's ``Trainer``."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from common import Figure, alternate
from torch.nn import functional

from clew.data.packing import Windows, pack
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import as_huggingface
from clew.models.tokenizers import ByteTokenizer, encode_all, vocab_size
from clew.tasks.arithmetic import ArithmeticTask
from clew.train.config import TrainingConfig
from clew.train.loop import Trainer

BATCH, SEQ_LEN, STEPS, LR = 32, 64, 20, 1e-3


def main() -> None:
    """Print both ratios of tokens a second."""
    torch.set_num_threads(1)
    tokenizer = ByteTokenizer().build([])
    documents = ArithmeticTask(max_operand=99).documents("train")
    tokens = pack(
        encode_all(tokenizer, documents), eos=tokenizer.eos_token_id, vocab_size=vocab_size(tokenizer), max_tokens=None
    )
    samples = Windows(tokens, SEQ_LEN)

    def model() -> Decoder:
        torch.manual_seed(0)
        return Decoder(ModelConfig(depth=2), vocab_size(tokenizer), SEQ_LEN)

    native, by_hand, hugging_face = alternate(
        7, _native(model(), samples), _by_hand(model(), samples), _hugging_face(model(), tokenizer, samples)
    )
    Figure("native loop, against a hand-written PyTorch loop", by_hand / native, "x", 1.0, at_least=True).print()
    Figure("native loop, against Hugging Face's Trainer", hugging_face / native, "x", 1.1, at_least=True).print()


def _native(model: Decoder, samples: Windows):
    trainer = Trainer(model, samples, TrainingConfig(batch_size=BATCH, lr=LR), lr=LR, total_steps=10**6, seed=0)

    def run() -> None:
        for _ in range(STEPS):
            trainer.step()
        trainer.measure()

    return run


def _by_hand(model: Decoder, samples: Windows):
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    data = samples.batch(np.arange(len(samples)))
    inputs, targets = torch.as_tensor(data.inputs), torch.as_tensor(data.targets)

    def run() -> None:
        for _ in range(STEPS):
            rows = torch.randint(len(inputs), (BATCH,))
            logits = model(inputs[rows])
            loss = functional.cross_entropy(logits.flatten(0, 1), targets[rows].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        loss.item()

    return run


def _hugging_face(decoder: Decoder, tokenizer, samples: Windows):
    import datasets
    import transformers

    data = samples.batch(np.arange(len(samples)))
    rows = datasets.Dataset.from_dict(
        {"input_ids": torch.as_tensor(data.inputs).tolist(), "labels": torch.as_tensor(data.inputs).tolist()}
    )
    model = as_huggingface(decoder, tokenizer)
    folder = tempfile.mkdtemp()

    def run() -> None:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=STEPS,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()

    return run


if __name__ == "__main__":
    main()
