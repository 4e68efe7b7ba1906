"""What people read: templates, explanations, the schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sample_configs import REGISTRIES, AdamW, Job, Training

from clew.config import describe, explain, load, template
from clew.errors import ConfigError

GOLDEN_TEMPLATE = """\
# How to train.
# Optimizer steps.
steps: 1  # required; int >= 1
# Peak learning rate.
lr: 0.0003  # float > 0
# Steps until the peak.
warmup: 0  # int >= 0
# Shape of the learning rate.
schedule: cosine  # wsd | cosine | constant
# Who takes the steps.
optimizer:
  # type: one of adamw, muon
  # The optimizer's name.
  type: adamw  # adamw
  # Decay of the two moments.
  betas: [0.9, 0.95]  # list[float, float]
# Largest norm of the gradient.
clip: 1.0  # float > 0 | null
"""


def test_a_template_says_every_key():
    assert template(Training, head={}) == GOLDEN_TEMPLATE


def test_a_template_loads_back_to_the_defaults(tmp_path):
    text = template(Job, head={"job": "x"}, registries=REGISTRIES)
    assert text.startswith("# A job with one of everything.\njob: x\n# The run's name.\nname: ''")
    assert "training:  # required\n" in text
    assert "\nvalidation: null  # section | null\n# validation:\n#   # After this many steps.\n#   every: 10" in text
    file = tmp_path / "a.yaml"
    file.write_text(text)
    loaded = load(file, root=Job, registries=REGISTRIES, reserved=("job",))
    assert loaded.value == Job(training=Training(steps=1))


def test_an_off_section_of_a_template_can_be_switched_on(tmp_path):
    text = template(Job, head={}, registries=REGISTRIES).replace("validation: null", "# validation: null")
    lines = [line[2:] if line.startswith(("# validation:\n", "#   every")) else line for line in text.splitlines(True)]
    file = tmp_path / "a.yaml"
    file.write_text("".join(lines))
    assert load(file, root=Job, registries=REGISTRIES).value.validation.every == 10


def test_the_head_of_a_template_chooses_a_plugin():
    text = template(Job, head={"task": {"type": "words", "alphabet": "xyz"}}, registries=REGISTRIES)
    assert "\n  type: words  # one of sums, words, module:Class, path/file.py:Class\n" in text
    assert "\n  alphabet: xyz  # str\n" in text


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text("training:\n  steps: 9\n  lr: 2e-3\n")
    Path("a.yaml").write_text("extends: base.yaml\npreset: small\ntraining:\n  lr: 1e-3\n")
    return load(Path("a.yaml"), root=Job, registries=REGISTRIES, overrides=["training.lr=1e-4"])


def test_an_explanation_tells_the_history_of_a_value(loaded):
    assert explain(loaded, "training.lr") == (
        "training.lr = 0.0001\n"
        "  command line  command line  0.0001\n"
        "  file          a.yaml:4      0.001  shadowed\n"
        "  file          base.yaml:3   0.002  shadowed\n"
        "  preset        preset small  0.1  shadowed\n"
        "  default       Training      0.0003  shadowed\n"
        "  Peak learning rate.\n"
        "  float > 0"
    )


def test_an_explanation_of_a_section_has_a_line_for_each_leaf(loaded):
    assert explain(loaded, "training") == (
        "training.steps            9  (base.yaml:2)\n"
        "training.lr               0.0001  (command line)\n"
        "training.warmup           0  (default of Training)\n"
        "training.schedule         'cosine'  (default of Training)\n"
        "training.optimizer.type   'adamw'  (default of AdamW)\n"
        "training.optimizer.betas  [0.9, 0.95]  (default of AdamW)\n"
        "training.clip             1.0  (default of Training)"
    )
    assert explain(loaded, "").startswith("name ")


def test_an_unknown_key_cannot_be_explained(loaded):
    with pytest.raises(ConfigError, match=r"^there is no key 'lr'\n  did you mean 'training.lr'\?$"):
        explain(loaded, "lr")


def test_the_schema_is_described_key_by_key():
    found = {key.key: key for key in describe(Job)}
    lr = found["training.lr"]
    assert (lr.type, lr.constraint, lr.default, lr.required, lr.doc) == (
        "float",
        "> 0",
        3e-4,
        False,
        "Peak learning rate.",
    )
    assert found["training.steps"].required
    assert found["name"].doc == "The run's name."
    assert not found["name"].hashed
    assert found["mix.*.path"].type == "path"
    assert found["model"].type == "path | null"
    assert found["training.optimizer.momentum"].constraint == ">= 0, < 1"
    assert found["training.optimizer"].section
    assert [key.key for key in describe(AdamW)] == ["type", "betas"]


def test_importing_the_room_loads_no_heavy_library():
    code = "import sys, clew.config; print(sorted({'torch', 'numpy', 'rich', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_type_checkers_understand_config_classes(tmp_path):
    file = tmp_path / "typed.py"
    file.write_text(
        "from clew.config import config\n\n@config\nclass A:\n    a: int\n    b: str = ''\n\n"
        "@config\nclass B(A):\n    c: float = 0.0\n\n"
        "B(a=1, c=2.0)\nB(a='x')\nB(1)\nB(a=1).a = 2\n"
    )
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(file)], capture_output=True, text=True)
    lines = [
        line.partition(": error: ")[0].rpartition(":")[2] for line in done.stdout.splitlines() if " error: " in line
    ]
    assert sorted(set(lines)) == ["13", "14", "15"], done.stdout
