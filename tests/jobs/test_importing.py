"""Models in the Hugging Face layout: out of a run, into a run, and out again, bit by bit the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from clew.checkpoints import CheckpointStore
from clew.cli.main import main
from clew.errors import UserError
from clew.jobs import create_job_run, load_job
from clew.jobs.importing import import_model
from clew.models.config import ModelConfig
from clew.models.decoder import Decoder
from clew.models.exchange import as_huggingface, load_huggingface, save_huggingface
from clew.models.loading import load_model, load_tokenizer
from clew.models.source import resolve
from clew.models.tokenizers import ByteTokenizer
from clew.runs import State, Workspace
from clew.runs.files import file_digest
from clew.targets import LocalTarget
from clew.targets.watching import Silent, follow

RELEASE = Path(__file__).parents[1] / "fixtures" / "runs" / "0.1.0"
VOCAB, CONTEXT = 258, 64


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEW_WORKSPACE", str(tmp_path))
    shutil.copytree(RELEASE, tmp_path / "runs" / "kept")
    return Workspace(tmp_path)


def decoder(**sizes) -> Decoder:
    torch.manual_seed(0)
    return Decoder(ModelConfig(**{"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, **sizes}), VOCAB, CONTEXT)


@pytest.fixture
def folder(tmp_path):
    """A model that nobody here has trained, in several files."""
    as_huggingface(decoder(), tokenizer := ByteTokenizer().build([])).save_pretrained(
        tmp_path / "hub", max_shard_size="30KB"
    )
    tokenizer.save_pretrained(tmp_path / "hub")
    assert len(list((tmp_path / "hub").glob("*.safetensors"))) > 3
    return tmp_path / "hub"


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def clew(*words: object) -> int:
    return main(["checkpoints", *map(str, words)])


@pytest.mark.parametrize("more", [[], ["--shard-size", "1kB"]])
def test_out_and_in_and_out_again_is_the_same_bit_by_bit(workspace, tmp_path, more):
    first, second = tmp_path / "first", tmp_path / "second"
    assert clew("export", "kept", "8", first, "--hf", *more) == 0
    assert clew("import", first, "--as", "base") == 0
    assert clew("export", "base", "0", second, "--hf") == 0
    assert contents(first) == contents(second)
    assert (len(list(first.glob("*.safetensors"))) > 1) == bool(more)
    whole = contents(workspace.runs / "kept" / "checkpoints" / "step-00000008" / "model")
    assert clew("export", "base", "last", tmp_path / "whole", "--hf", "--shard-size", "1GB") == 0
    assert contents(tmp_path / "whole") == whole


def test_shards_do_not_depend_on_what_they_were_before(workspace, folder, tmp_path):
    assert clew("import", folder, "--as", "base") == 0
    assert clew("export", "base", "0", tmp_path / "small", "--hf", "--shard-size", "20kB") == 0
    assert clew("import", tmp_path / "small", "--as", "other") == 0
    for name in ("base", "other"):
        assert clew("export", name, "0", tmp_path / f"{name}-large", "--hf", "--shard-size", "40 KB") == 0
    assert contents(tmp_path / "base-large") == contents(tmp_path / "other-large")
    again = load_huggingface(tmp_path / "base-large")
    for name, weight in decoder().state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_transformers_loads_what_is_exported_and_computes_the_same(workspace, tmp_path):
    for name, more in {"one": [], "many": ["--shard-size", "3kB"]}.items():
        assert clew("export", "kept", "8", tmp_path / name, "--hf", *more) == 0
    tokens = torch.randint(0, 258, (2, 16))
    with torch.no_grad():
        ours = load_huggingface(workspace.runs / "kept" / "checkpoints" / "step-00000008" / "model")(tokens)
        one, many = (AutoModelForCausalLM.from_pretrained(tmp_path / name)(tokens).logits for name in ("one", "many"))
    assert torch.equal(one, many)
    assert (one - ours).abs().max() < 1e-5


def test_an_imported_model_is_a_run_that_others_begin_with(workspace, folder, capsys):
    assert clew("import", folder, "--as", "base") == 0
    out = capsys.readouterr().out
    assert out.startswith("base: a model of ")
    assert "start=run:base model.depth=2 model.width=32" in out
    run = workspace.find_run("base")
    assert (run.state, run.result.status, run.result.artifacts.keys()) == (State.COMPLETED, "completed", {"model"})
    (saved,) = CheckpointStore(run.checkpoints).all()
    assert (saved.step, saved.problem()) == (0, "")
    tokens = torch.randint(0, VOCAB, (2, 16))
    expected = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
    for reference in ("run:base", "run:base@0", "run:base@last"):
        source = resolve(reference, workspace.runs)
        assert torch.equal(load_model(source)(tokens).logits, expected)
        assert load_tokenizer(source)("12+3=")["input_ids"] == list(b"12+3=")
    assert main(["show", "base"]) == 0
    assert main(["resume", "base"]) == 0
    assert "has completed already" in capsys.readouterr().out
    assert clew("import", folder, "--as", "base") == 2
    assert "a run named 'base' exists already" in capsys.readouterr().err


def test_only_what_loads_without_running_anything_is_copied(workspace, folder):
    for name in ("training_args.bin", "modeling_llama.py", "other.safetensors", "optimizer.pt"):
        (folder / name).write_bytes(b"x")
    import_model(folder, workspace, "base")
    copied = {path.name for path in (workspace.runs / "base" / "artifacts" / "model").iterdir()}
    assert copied == {path.name for path in folder.iterdir()} - {
        "training_args.bin", "modeling_llama.py", "other.safetensors", "optimizer.pt",
    }  # fmt: skip


def edited(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def weights(folder: Path, change) -> None:
    """Put other weights in the place of those in some files."""
    found = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file(change(found), folder / "model.safetensors", {"format": "pt"})


def cut(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-4])


def lose(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[1].unlink()


def pickled(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")


NORM, HEAD, EMBEDDING = "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"
BROKEN = {
    "no folder": (shutil.rmtree, "there is no such folder"),
    "nothing": (lambda folder: [path.unlink() for path in folder.iterdir()], "no exported checkpoint, and no model"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be used: "),
    "odd sizes": (lambda folder: edited(folder, num_attention_heads=3), "config.json cannot be used: "),
    "no family": (lambda folder: edited(folder, model_type=None), "reads 'llama' models, and this is None"),
    "other family": (lambda folder: edited(folder, model_type="mistral"), "and this is 'mistral'"),
    "biases": (lambda folder: edited(folder, attention_bias=True), "does not support this model's attention_bias"),
    "few bits": (
        lambda folder: edited(folder, quantization_config={"quant_method": "fp8"}),
        "does not support this model's quantization_config",
    ),
    "a shard is cut": (cut, "model-00002-of-"),
    "a shard is lost": (lose, "the weights are not there: model-00002-of-"),
    "no index": (lambda folder: (folder / "model.safetensors.index.json").unlink(), "the weights are not there"),
    "a pickle": (pickled, "its weights are a pickle (pytorch_model.bin)"),
    "another size": (lambda folder: edited(folder, intermediate_size=96), "and not [96, 32]"),
    "more layers": (
        lambda folder: edited(folder, num_hidden_layers=3),
        "the weights do not hold model.layers.2.",
    ),
    "fewer layers": (
        lambda folder: edited(folder, num_hidden_layers=1),
        "the weights hold model.layers.1.input_layernorm.weight, of which config.json says nothing",
    ),
    "integers": (
        lambda folder: weights(folder, lambda found: {**found, NORM: found[NORM].to(torch.int8)}),
        "model.norm.weight is stored as I8",
    ),
    "a head beside a tied one": (
        lambda folder: weights(folder, lambda found: {**found, HEAD: found[EMBEDDING] + 1}),
        "config.json says that lm_head.weight and model.embed_tokens.weight are one tensor, and they differ",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "there is no tokenizer beside the weights"),
    "an adapter": (
        lambda folder: [shutil.rmtree(folder), folder.mkdir(), (folder / "adapter_config.json").write_text("{}")],
        "it is an adapter",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_folder_is_named_and_nothing_is_left_behind(workspace, folder, name, capsys):
    damage, said = BROKEN[name]
    damage(folder)
    before = sorted(path.name for path in workspace.runs.iterdir())
    assert clew("import", folder, "--as", "base") == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in workspace.runs.iterdir()) == before


def test_a_model_of_another_family_is_foreign(workspace, tmp_path, capsys):
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)).save_pretrained(tmp_path / "gpt2")
    assert clew("import", tmp_path / "gpt2", "--as", "base") == 2
    assert "reads 'llama' models, and this is 'gpt2'" in capsys.readouterr().err


def test_what_old_versions_of_transformers_have_saved_besides_is_no_damage(workspace, folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    weights(folder, lambda found: {**found, name: torch.ones(4), HEAD: found[EMBEDDING].clone()})
    import_model(folder, workspace, "base")
    found = load_huggingface(workspace.runs / "base" / "artifacts" / "model")
    assert torch.equal(found.embed.weight, decoder().embed.weight)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard-size", "5GB"], "--shard-size goes with --hf"),
        (["--hf", "--shard-size", "many"], "'many' is no number of bytes"),
        (["--hf", "--shard-size", "0"], "'0' is no number of bytes"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(workspace, tmp_path, words, said, capsys):
    assert clew("export", "kept", "8", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_not_cut_into_files(tmp_path):
    from clew.checkpoints.transfer import export_model

    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="an adapter is one file"):
        export_model(tmp_path / "adapter", tmp_path / "out", 1000)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_checkpoint_of_several_ranks_is_exported_like_any_other(workspace, tmp_path):
    settings = {
        "job": "pretrain",
        "name": "pair",
        "task": {"type": "arithmetic", "max_operand": 30},
        "model": {"depth": 1},
        "data": {"seq_len": 16},
        "training": {"steps": 2, "batch_size": 4},
        "checkpoint": {"every": 2},
        "runtime": {"device": "cpu", "threads": 1, "ranks": 2},
        "mesh": {"preset": "fsdp"},
    }
    run = create_job_run(workspace, load_job(settings))
    assert follow(LocalTarget().launch(run), Silent()) is State.COMPLETED, run.result.failure
    assert (run.checkpoints / "step-00000002" / "trainer-1.safetensors").is_file()
    assert clew("export", "pair", "2", tmp_path / "out", "--hf", "--shard-size", "100kB") == 0
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    saved, exported = load_huggingface(run.artifacts / "model"), load_huggingface(tmp_path / "out")
    for name, weight in saved.state_dict().items():
        assert torch.equal(exported.state_dict()[name], weight), name
    assert clew("import", tmp_path / "out", "--as", "base") == 0


LIMITED = """
import resource, sys
from clew.cli.main import main

small, large, limit, *words = sys.argv[1:]
def call(what):
    return main(["checkpoints", *(word.replace("MODEL", what) for word in words)])
assert call(small) == 0  # what is allocated once
fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("VmData"))
taken = int(fields["VmData"].split()[0]) * 1024
if int(limit):
    resource.setrlimit(resource.RLIMIT_DATA, (taken + int(limit), taken + int(limit)))
else:
    from safetensors.torch import load_file
    resource.setrlimit(resource.RLIMIT_DATA, (taken + (1 << 25), taken + (1 << 25)))
    for tensor in load_file(sys.argv[-1]).values():
        kept = [*globals().get("kept", []), tensor.clone()]
sys.exit(call(large))
"""
ROOM = 24 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small model, and one of 110 MB whose largest tensor has 33 MB, in the workspace of a run each."""
    place = tmp_path_factory.mktemp("large")
    for name, sizes in {"small": {}, "large": {"depth": 3, "width": 1024, "heads": 8, "mlp_width": 4096}}.items():
        save_huggingface(decoder(**sizes), ByteTokenizer().build([]), _made(place / name))
    assert (place / "large" / "model.safetensors").stat().st_size > 4 * ROOM
    workspace = Workspace(place)
    for name in ("small", "large"):
        import_model(place / name, workspace, f"{name}-run")
    return place


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limit of a process's data")
@pytest.mark.parametrize(
    "words",
    [
        ["import", "{place}/MODEL", "--as", "again-MODEL"],
        ["export", "MODEL-run", "0", "{place}/out-MODEL", "--hf", "--shard-size", "20MB"],
        ["export", "MODEL-run", "0", "{place}/whole-MODEL", "--hf", "--shard-size", "1GB"],
        ["export", "MODEL-run", "0", "{place}/as-it-is-MODEL", "--hf"],
    ],
    ids=["import", "shards", "one file", "as it is"],
)
def test_a_model_that_has_no_room_in_memory_is_imported_and_exported(models, words):
    """Not one copy of it: less than its largest tensor has to do."""
    done = _limited(models, ROOM, [word.format(place=models) for word in words])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limit of a process's data")
def test_the_limit_is_felt(models):
    words = ["export", "MODEL-run", "0", f"{models}/felt-MODEL", "--hf"]
    script = LIMITED.replace("sys.argv[-1]", repr(str(models / "large" / "model.safetensors")))
    done = _limited(models, 0, words, script)
    assert "emory" in done.stderr and done.returncode != 0


def _limited(place: Path, limit: int, words: list[str], script: str = LIMITED) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, "small", "large", str(limit), *words]
    environment = {**os.environ, "CLEW_WORKSPACE": str(place), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
