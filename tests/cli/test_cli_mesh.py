"""``clew mesh``: the plan of a mesh, as people and programs read it."""

from __future__ import annotations

import json

import pytest

from clew.cli.main import main

CONFIG = """\
job: pretrain
task: {type: arithmetic}
model: {depth: 4, tied: false}
training: {batch_size: 24, micro_batch_size: 3}
"""

GOLDEN = """\
mesh        data=1 x fsdp=4 x tensor=2 (8 devices), preset fsdp+tp
parameters  3,083,520
step        24 samples of 128 tokens: on each device 2 passes of 3

parameter                            shape      axes         at rest                  in compute    on a device
embed.weight                         258 x 256  vocab embed  vocab/tensor embed/fsdp  vocab/tensor  33.0 kB
layers.*.attention_norm.weight   x4  256        embed        embed/fsdp               whole         1.0 kB
layers.*.attention.query.weight  x4  256 x 256  heads embed  heads/tensor embed/fsdp  heads/tensor  131.1 kB
layers.*.attention.key.weight    x4  128 x 256  kv embed     kv/tensor embed/fsdp     kv/tensor     65.5 kB
layers.*.attention.value.weight  x4  128 x 256  kv embed     kv/tensor embed/fsdp     kv/tensor     65.5 kB
layers.*.attention.out.weight    x4  256 x 256  embed heads  embed/fsdp heads/tensor  heads/tensor  131.1 kB
layers.*.mlp_norm.weight         x4  256        embed        embed/fsdp               whole         1.0 kB
layers.*.mlp.gate.weight         x4  704 x 256  mlp embed    mlp/tensor embed/fsdp    mlp/tensor    360.4 kB
layers.*.mlp.up.weight           x4  704 x 256  mlp embed    mlp/tensor embed/fsdp    mlp/tensor    360.4 kB
layers.*.mlp.down.weight         x4  256 x 704  embed mlp    embed/fsdp mlp/tensor    mlp/tensor    360.4 kB
norm.weight                          256        embed        embed/fsdp               whole         256 B
head.weight                          258 x 256  vocab embed  vocab/tensor embed/fsdp  vocab/tensor  33.0 kB

activation  shape           axes              in compute               on a device
tokens      12 x 128        batch seq         batch/fsdp               3.1 kB
stream      12 x 128 x 256  batch seq embed   batch/fsdp               393.2 kB
query       12 x 128 x 256  batch seq heads   batch/fsdp heads/tensor  196.6 kB
key         12 x 128 x 128  batch seq kv      batch/fsdp kv/tensor     98.3 kB
value       12 x 128 x 128  batch seq kv      batch/fsdp kv/tensor     98.3 kB
mixed       12 x 128 x 256  batch seq heads   batch/fsdp heads/tensor  196.6 kB
gated       12 x 128 x 704  batch seq mlp     batch/fsdp mlp/tensor    540.7 kB
logits      12 x 128 x 258  batch seq logits  batch/fsdp               396.3 kB

memory                  on a device
weights                 1.5 MB
gradients               1.5 MB
optimizer (adamw)       3.1 MB
gathered weights        4.7 MB
activations (estimate)  19.7 MB
together                30.5 MB

collective      over      of                           a step  bytes     sent by a device
all-gather      fsdp=4    weights                      18      24.2 MB   18.1 MB
reduce-scatter  fsdp=4    gradients                    10      12.3 MB   9.3 MB
all-reduce      tensor=2  outputs, forward             18      7.1 MB    7.1 MB
all-gather      tensor=2  logits                       2       792.6 kB  396.3 kB
all-reduce      tensor=2  inputs' gradients, backward  18      7.1 MB    7.1 MB
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(CONFIG)
    return "train.yaml"


def test_a_plan_is_told_in_tables(config, capsys):
    assert main(["mesh", config, "--devices", "8", "mesh.preset=fsdp+tp"]) == 0
    assert capsys.readouterr().out == GOLDEN


def test_programs_read_it_as_json(config, capsys):
    assert main(["mesh", config, "--devices", "1024", "mesh.preset=hsdp", "mesh.data=-1", "mesh.fsdp=8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mesh"] == {"data": 128, "fsdp": 8, "tensor": 1}
    assert found["bytes_per_device"]["weights"] == 4 * found["num_parameters"] // 8
    assert {one["op"] for one in found["collectives"]} == {"all-gather", "reduce-scatter", "all-reduce"}
    assert "leaves 1000 of data x fsdp = 1024 slices empty" in found["warnings"][0]


def test_a_stream_that_is_split_is_gathered_and_scattered_where_it_was_added_up(config, capsys):
    found = {}
    for preset in ("fsdp+tp", "fsdp+tp+sp"):
        assert main(["mesh", config, "--devices", "8", f"mesh.preset={preset}", "--json"]) == 0
        found[preset] = json.loads(capsys.readouterr().out)
    whole, parts = ({one["name"]: one for one in plan["activations"]} for plan in found.values())
    assert (parts["stream"]["compute"], parts["logits"]["compute"]) == (
        [["data", "fsdp"], ["tensor"], []],
        [["data", "fsdp"], [], ["tensor"]],
    )
    assert all(whole[name]["bytes_per_device"] == 2 * parts[name]["bytes_per_device"] for name in ("stream", "logits"))
    assert all(whole[name] == parts[name] for name in whole if name not in ("stream", "logits"))
    summed, moved = (
        {(one["op"], one["what"]): one for one in plan["collectives"] if one["axis"] == "tensor"}
        for plan in found.values()
    )
    sent = [sum(one["sent_per_device"] for one in ones.values()) for ones in (summed, moved)]
    assert {op for op, _ in moved} == {"all-gather", "reduce-scatter", "all-reduce"}
    assert [what for op, what in moved if op == "all-reduce"] == ["sums of the loss", "gradients of norms"]
    assert sent[1] < sent[0]
    estimates = [plan["bytes_per_device"]["activations"] for plan in found.values()]
    assert estimates[1] < estimates[0]


def test_values_of_the_config_count(config, capsys):
    words = ["mesh", config, "--devices", "1", "--json", "model.depth=2", "training.optimizer.type=muon"]
    assert main([*words, "tokenizer.type=bpe", "tokenizer.vocab_size=1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"][0]["shape"] == [1000, 128]
    assert found["bytes_per_device"]["optimizer"] < 2 * found["bytes_per_device"]["weights"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", "0"], "there are no 0 devices"),
        (["--devices", "3", "mesh.preset=hsdp"], "mesh: the mesh data=2 x fsdp=-1 does not fill 3 devices"),
        (["--devices", "2", "mesh.preset=fspd"], "did you mean 'fsdp'?"),
        (["--devices", "2", "mesh.prest=fsdp"], "did you mean 'preset'?"),
        (
            ["--devices", "8", "mesh.preset=tp"],
            "mesh.compute.heads: layers.0.attention.query.weight [256, 256]: the 4 heads of 'heads' do not divide by "
            "tensor=8",
        ),
        (
            ["--devices", "2", "mesh.preset=tp+sp", "data.seq_len=127"],
            "mesh.compute.seq: the 127 positions of a sample do not divide by tensor=2",
        ),
        (
            ["--devices", "2", "mesh.preset=tp", "mesh.compute.seq=context"],
            "mesh.compute.seq: 'seq' cannot be split over 'context': PyTorch's context parallel has no attention",
        ),
        (
            ["--devices", "2", "mesh.preset=tp+sp", "mesh.at_rest.mlp=null", "mesh.compute.mlp=null"],
            "mesh.compute.seq: 'seq' is split over 'tensor', but layers.0.mlp.gate.weight not along 'mlp'",
        ),
        (
            ["--devices", "2", "mesh.preset=tp", "mesh.compute.mlp=tensr"],
            "mesh.compute.mlp: the mesh has no axis 'tensr' for 'mlp', which layers.0.mlp.gate.weight has\n"
            "  did you mean 'tensor'?",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(config, words, said, capsys):
    assert main(["mesh", config, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_job_without_a_model_of_known_shape_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eval.yaml").write_text("job: eval\nmodel: nowhere\ntask: {type: arithmetic}\n")
    assert main(["mesh", "eval.yaml", "--devices", "2"]) == 2
    assert "says nothing of a model's shape" in capsys.readouterr().err


@pytest.mark.slow  # imports transformers
def test_the_model_of_a_fine_tuning_is_planned_by_its_names(tmp_path, monkeypatch, capsys):
    from clew.models.config import ModelConfig
    from clew.models.decoder import Decoder
    from clew.models.exchange import save_huggingface
    from clew.models.tokenizers import ByteTokenizer, vocab_size

    monkeypatch.chdir(tmp_path)
    tokenizer = ByteTokenizer().build([])
    save_huggingface(Decoder(ModelConfig(depth=2), vocab_size(tokenizer), 64), tokenizer, tmp_path / "model")
    (tmp_path / "sft.yaml").write_text("job: sft\nmodel: ./model\ntask: {type: arithmetic}\n")
    assert main(["mesh", "sft.yaml", "--devices", "4", "mesh.preset=fsdp+tp", "--json"]) == 0
    placed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["parameters"]}
    query = placed["model.layers.0.self_attn.q_proj.weight"]
    assert (query["axes"], query["at_rest"], query["compute"]) == (
        ["heads", "embed"],
        [["tensor"], ["fsdp"]],
        [["tensor"], []],
    )
