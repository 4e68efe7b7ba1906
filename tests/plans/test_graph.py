import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from plan_support import Outcome, stage

from clew.plans import load_pipeline
from clew.plans.drawing import as_mermaid, as_svg, as_text
from clew.plans.graph import graph_of, states_of
from clew.runs import Workspace

STAGES = {
    "sft": {"job": "sft"},
    "base": {"job": "eval", "source": "x"},
    "tuned": {"job": "eval", "source": "${sft.artifacts.adapter}", "after": "base"},
    "more": {"job": "grpo", "when": '${tuned.metrics.exact} < 0.9 and ${sft.run} != "<x>"'},
}


@pytest.fixture
def graph():
    return graph_of(load_pipeline({"pipeline": "dates", "stages": STAGES}), {"sft": "completed", "more": "skipped"})


def test_each_stage_stands_right_of_what_it_needs(graph):
    assert [[box.name for box in column] for column in graph.columns] == [["sft", "base"], ["tuned"], ["more"]]


def test_as_text(graph):
    assert as_text(graph) == (
        "pipeline dates\n"
        "  sft    sft   completed\n"
        "  base   eval\n"
        "  tuned  eval  takes sft; after base\n"
        '  more   grpo  skipped; takes tuned, sft; if ${tuned.metrics.exact} < 0.9 and ${sft.run} != "<x>"\n'
    )


def test_as_mermaid(graph):
    text = as_mermaid(graph)
    assert text.splitlines()[0] == "flowchart LR"
    assert '  s0["sft<br/>sft<br/>completed"]:::completed' in text.splitlines()
    assert "  s0 --> s2" in text.splitlines()
    assert "  s1 -.-> s2" in text.splitlines()
    assert "  classDef completed fill:#d7f0dd,stroke:#2f8f4e" in text.splitlines()
    assert "classDef failed" not in text


def test_what_mermaid_could_take_for_its_own_is_coded(graph):
    (line,) = [line for line in as_mermaid(graph).splitlines() if line.startswith('  s3["')]
    label = line.removeprefix('  s3["').removesuffix('"]:::skipped').replace("<br/>", "")
    assert not set(label) & set('"<>{}[]()$&')


def test_as_svg(graph):
    text = as_svg(graph)
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    words = [element.text for element in root.iter(f"{space}text")]
    assert {"sft", "base", "tuned", "more", "completed", "skipped"} <= set(words)
    arrows = list(root.findall(f"{space}path"))
    assert len(arrows) == 4
    assert sum("stroke-dasharray" in arrow.attrib for arrow in arrows) == 1
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_boxes_of_a_svg_do_not_touch():
    wide = {f"s{number}": {"job": "x"} for number in range(7)}
    root = ElementTree.fromstring(as_svg(graph_of(load_pipeline({"stages": wide}))))
    boxes = [element for element in root.iter("{http://www.w3.org/2000/svg}rect") if "rx" in element.attrib]
    edges = sorted((int(box.attrib["y"]), int(box.attrib["y"]) + int(box.attrib["height"])) for box in boxes)
    assert len(edges) == 7
    assert all(low < top for (_, low), (top, _) in itertools.pairwise(edges))
    assert edges[-1][1] <= int(root.attrib["height"])


def test_the_states_are_those_of_the_plan(tmp_path):
    workspace = Workspace(tmp_path)
    stages = {
        "good": stage(),
        "bad": stage(error="ValueError", on_failure="wait"),
        "left": stage(when="${good.metrics.score} > 1"),
        "later": stage(after="bad"),
    }
    done = Outcome(workspace, stages, [EOFError])
    assert states_of(done.plan, workspace) == {"good": "completed", "bad": "waiting", "left": "skipped"}
