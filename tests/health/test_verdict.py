"""From numbers to words: each sentence at its threshold, and not below it."""

from __future__ import annotations

import json

import pytest

from clew.health.text import render
from clew.health.verdict import AREAS, judged, verdict


def layer(**more):
    return {"weight": 10.0, "gradient": 0.5, "ratio": 1e-3, "updates": 100} | more


def numerics(**layers):
    return {
        "weight_norm": 12.0,
        "gradient_norm": 0.7,
        "gradient_from": "grad",
        "not_finite": {},
        "optimizer_state": True,
        "layers": layers,
    }


def throughput(**more):
    names = ("steps", "median_seconds", "p95_seconds", "data_share", "pause_share", "tokens_per_second", "gpu_idle")
    return dict.fromkeys(names) | more


def activations(kind, stuck, units=10):
    return {"layers": {"mlp": {"units": units, kind: stuck, "flat": 0.5}}}


def losses(*spikes, **more):
    base = {"count": 100, "newest": 2.0, "not_finite": 0, "lost": None, "recovered": True}
    return base | {"num_spikes": len(spikes), "spikes": list(spikes)} | more


SPIKE = {"step": 120, "value": 9.5, "usual": 2.0}

SAID = [
    ({"numerics": numerics(a=layer(ratio=0.099))}, "well", None),
    (
        {"numerics": numerics(a=layer(ratio=0.25), b=layer())},
        "look",
        "a step moves a by 0.25 of its size, where 0.001 is usual; lower lr, or warm it up",
    ),
    (
        {"numerics": numerics(a=layer(ratio=0.25), b=layer(ratio="inf"))},
        "bad",
        "a step moves b by inf of its size (2 layers are above 0.1), where 0.001 is usual; lower lr, or warm it up",
    ),
    ({"numerics": numerics(a=layer(ratio=0.9, updates=19))}, "well", None),
    (
        {"numerics": numerics(a=layer(ratio=0.9, updates=None))},
        "look",
        "a step moves a by 0.9 of its size, where 0.001 is usual; lower lr, or warm it up",
    ),
    (
        {"numerics": numerics(a=layer(), b=layer(gradient=0.0))},
        "look",
        "no gradient reaches b; is it used, and meant to be trained?",
    ),
    ({"numerics": numerics(a=layer(), b=layer(gradient=0.0, updates=1))}, "well", None),
    ({"losses": losses()}, "well", None),
    (
        {"losses": losses(SPIKE)},
        "look",
        "the loss jumped from 2 to 9.5 at step 120, and came back; look at that batch",
    ),
    (
        {"losses": losses(SPIKE, SPIKE, SPIKE | {"step": None})},
        "look",
        "the loss jumped from 2 to 9.5, one of 3 spikes, and came back; look at that batch",
    ),
    (
        {"losses": losses(SPIKE, recovered=False)},
        "bad",
        "the loss jumped from 2 to 9.5 at step 120 and has not come back; go back to a checkpoint from before, with a "
        "lower lr",
    ),
    (
        {"losses": losses(not_finite=3, lost={"step": 98})},
        "bad",
        "3 of 100 losses are not finite, the first at step 98; lower lr, or clip gradients",
    ),
    ({"activations": activations("dead", 3)}, "well", None),
    (
        {"activations": activations("dead", 4)},
        "look",
        "4 of 10 units of mlp are never active over a batch; lower lr, or warm it up",
    ),
    (
        {"activations": activations("saturated", 10)},
        "bad",
        "10 of 10 units of mlp are at an end over a whole batch; scale down what goes in, or lower lr",
    ),
    ({"throughput": throughput()}, "well", None),
    ({"throughput": throughput(data_share=0.19)}, "well", None),
    (
        {"throughput": throughput(data_share=0.34)},
        "look",
        "34% of a step is waiting for data; load it with more workers, or ahead of time",
    ),
    ({"throughput": throughput(median_seconds=0.001, p95_seconds=0.02)}, "well", None),
    (
        {"throughput": throughput(median_seconds=0.1, p95_seconds=0.4)},
        "look",
        "one step in twenty takes 0.4 s, where 0.1 s is usual; what else runs there?",
    ),
    (
        {"throughput": throughput(gpu_idle=0.6)},
        "look",
        "the GPU has nothing to do for 60% of the time; make batches larger, or compile",
    ),
    (
        {"throughput": throughput(num_gaps=2, gaps=[{"step": 40, "seconds": 412.0}, {"step": 9, "seconds": 300.0}])},
        "look",
        "no step came for 412 s after step 40, the longest of 2 such gaps; what happened then?",
    ),
    (
        {"determinism": {"nondeterministic": ["Upsample"]}},
        "well",
        "two runs may differ in the last bits: Upsample",
    ),
    ({"distribution": {"skew": 1.1, "slowest": 2, "data_share": [0.1, 0.1, 0.1]}}, "well", None),
    (
        {"distribution": {"skew": 1.5, "slowest": 2, "data_share": [None, 0.1, 0.1]}},
        "look",
        "rank 2 takes 1.5 times as long as the middle one; look at its machine",
    ),
    (
        {"distribution": {"skew": 1.0, "slowest": 0, "data_share": [0.1, 0.45, 0.1]}},
        "look",
        "rank 1 waits for data 45% of a step, and the others for it; look at its disk",
    ),
    (
        {"history": {"not_finite": {"grad_norm": 7}}},
        "bad",
        "grad_norm is not finite at step 7; go back to a checkpoint from before it, with a lower lr",
    ),
    (
        {"history": {"bad_checkpoints": 1}},
        "look",
        "a checkpoint did not verify and was passed over; look at the disk",
    ),
    ({"history": {"failed": "OSError: the disk is full"}}, "bad", "the last attempt failed: OSError: the disk is full"),
]


@pytest.mark.parametrize(("report", "word", "text"), SAID)
def test_each_finding_has_its_word_and_its_sentence(report, word, text):
    found, findings = verdict(json.loads(json.dumps(report)))
    assert (found, [finding.text for finding in findings]) == (word, [] if text is None else [text])


def test_an_empty_report_is_well():
    assert verdict({}) == ("well", [])


def test_the_worst_comes_first():
    report = {"losses": losses(SPIKE), "activations": activations("dead", 10), "throughput": throughput(data_share=0.5)}
    word, findings = verdict(report)
    assert (word, [finding.word for finding in findings]) == ("bad", ["bad", "look", "look"])


def test_many_layers_are_named_by_three():
    bad = {f"layers.{number}": {"weights": {"nan": 1, "inf": 0}} for number in range(5)}
    (finding,) = verdict({"numerics": numerics(a=layer()) | {"not_finite": bad}})[1]
    assert finding.text.startswith(
        "weights are not finite (5 NaN) in layers.0, layers.1, layers.2 and 2 more; put it back"
    )


WHOLE = {
    "step": 240,
    "numerics": numerics(
        **{
            "embed": layer(ratio=0.0042),
            "layers.0.attention": layer(ratio=None),
            "layers.0.mlp.gate": layer(weight=8.25, gradient="nan", ratio=0.31),
        }
    )
    | {"not_finite": {"layers.0.mlp.gate": {"gradients": {"nan": 1200, "inf": 2}}}, "gradient_norm": "nan"},
    "losses": losses(SPIKE),
    "activations": {
        "layers": {
            "layers.0.mlp": {"units": 384, "dead": 200, "flat": 0.61},
            "head.1": {"units": 16, "saturated": 1, "flat": 0.125},
        }
    },
    "throughput": throughput(
        steps=256,
        median_seconds=0.0123,
        p95_seconds=1.5,
        data_share=0.02,
        pause_share=None,
        tokens_per_second=20480.0,
        gpu_idle=0.25,
    ),
    "determinism": {
        "seed": 7,
        "data": {"sampler": "feistel"},
        "deterministic_algorithms": False,
        "cudnn_benchmark": False,
        "matmul_precision": "high",
        "threads": 1,
        "device": "cuda",
        "dtypes": ["bfloat16"],
        "nondeterministic": ["Upsample"],
    },
    "distribution": {
        "ranks": 2,
        "median_seconds": [0.0123, 0.02],
        "p95_seconds": [1.5, None],
        "data_share": [0.02, 0.02],
        "slowest": 1,
        "skew": 1.24,
    },
    "history": {
        "attempts": 2,
        "pauses": 1,
        "commands": 5,
        "refused": 1,
        "checkpoints": 4,
        "bad_checkpoints": 0,
        "failed": None,
        "not_finite": {},
    },
}

GOLDEN = """\
night: look, at step 240
  look  gradients are not finite (1,200 NaN and 2 infinite) in layers.0.mlp.gate, and that step was left out; now and \
then that is usual with float16
  look  a step moves layers.0.mlp.gate by 0.31 of its size, where 0.001 is usual; lower lr, or warm it up
  look  the loss jumped from 2 to 9.5 at step 120, and came back; look at that batch
  look  200 of 384 units of layers.0.mlp are never active over a batch; lower lr, or warm it up
  look  one step in twenty takes 1.5 s, where 0.0123 s is usual; what else runs there?
  look  rank 1 takes 1.2 times as long as the middle one; look at its machine
  well  two runs may differ in the last bits: Upsample

loss             2 (100 losses, 1 spike)
gradient         norm nan
weights          norm 12
not finite       layers.0.mlp.gate
dead units       200 of 384
saturated units  1 of 16
step             12.3 ms, one in twenty 1.5 s
waiting          for data 2 %, in pauses –
tokens           20,480 a second
GPU              idle 25 %
repeatable       seed 7, 1 thread, bfloat16 on cuda, deterministic kernels off
data             sampler feistel
ranks            2; a step takes 12.3 ms, 20 ms
run              2 attempts, 1 pause, 4 checkpoints, 5 commands (1 refused)

layer               weights  gradient  update/weights
layers.0.mlp.gate      8.25       nan            0.31
embed                    10       0.5          0.0042
layers.0.attention       10       0.5               –"""


def test_a_whole_report_reads_like_this():
    assert render(json.loads(json.dumps(judged(WHOLE))), "night") == GOLDEN


def test_a_report_of_nothing_is_one_line():
    assert render(judged({"step": None}), "a") == "a: well"


@pytest.mark.parametrize("area", [*AREAS])
@pytest.mark.parametrize("section", [{"?": 1}, "fine", [1], 7, {"layers": {"a": 1}}, {"spikes": [1]}])
def test_sections_of_another_make_are_passed_over(area, section):
    report = judged({"step": 1, area: section})
    assert report[area] == section
    assert render(report, "a").startswith("a: ")


def test_only_the_layers_that_move_most_are_shown():
    report = judged({"numerics": numerics(**{f"l{number}": layer(ratio=number / 1000) for number in range(9)})})
    table = render(report, "a").split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in table[1:-1]] == ["l8", "l7", "l6", "l5", "l4", "l3"]
    assert table[-1] == "and 3 more layers, which are moved less"
