"""Reports from a user's template: nothing is eaten, nothing is left, nothing of it is run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from report_workspaces import (
    finish,
    generation,
    make_eval,
    make_pipeline,
    make_run,
    make_sft,
    metric,
    restore,
    write_events,
)
from test_reports import compare

from clew.cli.main import main
from clew.errors import UserError
from clew.reports import StageView, write_pipeline_report, write_run_report
from clew.reports.filling import Filled
from clew.reports.placeholders import KINDS
from clew.reports.stages import Stage
from clew.reports.subject import Subject
from clew.reports.template import parse

TEMPLATE = """\
# Notes on {{ run }}

What stands around placeholders stays: {} ${x} %s 100 % \\{{ braces }} <b>bold</b> and `clew resume {{ run }}`.

{{ summary }}
SFT took {{ time:sft }} at a rate of {{ config:sft.training.lr }}, and went to **{{ metric:eval_sft.exact }}**
({{interval:eval_sft.exact}}); after GRPO: {{ metric:eval_grpo.exact }}. GRPO {{ state:grpo }}.

## Curves
{{ curve:sft.loss }}
{{ rewards }}

## One metric

| of | loss |
|---|---:|
| {{ run }} | {{ metric:sft.val_loss }} |

{{ table:exact }}
{{ table:val_loss }}

```sh
clew show {{ run }}
```
"""


def render(text, *stages, of="pipeline", title="demo"):
    """The Markdown of a template."""
    subject = Subject(title, [Stage(view) for view in stages], of)
    return Filled(parse(text, Path("notes.md")), subject).to_markdown((), "files")


def pipeline_with_config(root):
    stages = make_pipeline(root)
    for stage in stages:
        if stage.run:
            stage.run.config_path.write_text(f"job: {stage.job}\ntraining: {{lr: 1e-3, steps: 60}}\nlayers: [1, 2]\n")
    return stages


def refused(text, *stages, of="pipeline"):
    with pytest.raises(UserError) as error:
        render(text, *stages, of=of)
    return str(error.value)


def test_a_template_becomes_markdown_and_one_page(tmp_path):
    (tmp_path / "weekly notes.md").write_text(TEMPLATE)
    files = write_pipeline_report(
        "demo", tmp_path / "plan", pipeline_with_config(tmp_path), template=tmp_path / "weekly notes.md"
    )
    assert (files.markdown.name, files.html.name) == ("weekly-notes.md", "weekly-notes.html")
    markdown, page = files.markdown.read_text(), files.html.read_text()
    compare(markdown, "template.md")
    compare(page, "template.html")
    assert page.count("<svg") == 2
    linked = set(re.findall(r"\]\((weekly-notes_files/[^)]*)\)", markdown))
    assert linked == {f"weekly-notes_files/{path.name}" for path in (tmp_path / "plan").glob("*/*.png")}


@example("{}${x}%s{ {")
@given(st.text(st.one_of(st.sampled_from("{}$%\\`*#|\n\r "), st.characters(codec="utf-8")), max_size=60))
def test_text_around_placeholders_comes_through_untouched(text):
    if "{{" not in text:
        assert render(text) == text
        assert render(f"{text} {{{{ run }}}} {text}") == f"{text} demo {text}"


def test_line_ends_of_windows_stay():
    assert render("one\r\n{{ run }}\r\n\r\ntwo\r\n") == "one\r\ndemo\r\n\r\ntwo\r\n"


def test_two_braces_that_begin_no_placeholder_are_written_with_a_backslash():
    assert render("\\{{ run }} is the {{ run }}") == "{{ run }} is the demo"


def test_every_mistake_is_told_with_its_line(tmp_path):
    text = (
        "# T\n\n{{ reslts }}\n\n{{ metric:evl_sft.exact }} {{ metric:eval_sft.exat }}\n{{ config:sft.training.stps }}\n"
    )
    said = refused(text, *pipeline_with_config(tmp_path))
    assert said.splitlines() == [
        "4 problems in the template:",
        "  notes.md:3: {{ reslts }}: there is no such placeholder; did you mean 'results'?; text that is no placeholder"
        " begins with \\{{",
        "  notes.md:5: {{ metric:evl_sft.exact }}: 'evl_sft.exact' begins with no stage of this pipeline; did you mean"
        " 'eval_sft'? write STAGE.METRIC",
        "  notes.md:5: {{ metric:eval_sft.exat }}: eval_sft has no metric 'exat'; did you mean 'exact'?",
        "  notes.md:6: {{ config:sft.training.stps }}: the config of sft has no 'training.stps'; did you mean"
        " 'training.steps'?",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a {{ run", r"notes.md:1: {{ is not closed by }} on its line"),
        ("a\n{{ run\n}}", r"notes.md:2: {{ is not closed by }} on its line"),
        ("{{ }}", "notes.md:1: {{  }}: there is no such placeholder"),
        ("${{ matrix }}", "text that is no placeholder begins with \\{{"),
        ("see {{ results }}", "it becomes a table or a figure\n  it needs a line of its own, outside of code"),
        ("- item\n  {{ results }}", "it needs a line of its own"),
        ("```\n{{ curves }}\n```", "outside of code"),
        ("{{ run:x }}", "{{ run:x }}: it takes nothing behind a colon\n  write {{ run }}"),
        ("{{ metric }}", "it does not say which metric\n  write STAGE.METRIC"),
        ("{{ table }}", "it does not say which metric\n  write table:METRIC"),
        ("{{ state }}", "a pipeline has a state for each stage"),
        ("{{ state:evl }}", "there is no stage 'evl'\n  did you mean 'eval'?"),
        ("{{ table:exat }}", "no stage has a metric 'exat'\n  did you mean 'exact'?"),
        ("{{ curve:eval.loss }}", "eval logged no 'loss'\n  it logged nothing"),
    ],
)
def test_what_cannot_be_filled_is_an_error_and_says_what_to_do(tmp_path, text, said):
    assert said in refused(text, StageView("eval", "eval", make_eval(tmp_path, "demo.eval", 1)))


def test_what_is_not_there_yet_is_pending_and_filled_the_next_time(tmp_path):
    """The data of the beginning must not use the placeholders up."""
    template = tmp_path / "notes.md"
    text = "{{ metric:exact }} and {{ time }}\n\n{{ table:exact }}\n\n{{ curve:loss }}\n"
    template.write_text(text)
    run = make_run(tmp_path, "r", "eval")
    first = write_run_report(run, template=template).markdown.read_text()
    assert first.count("(pending: r is created)") == 4
    assert "{{" not in first
    write_events(run, [restore(0), metric(1, loss=2.0), metric(2, loss=1.0), generation(0, "0", 1.0)])
    second = write_run_report(finish(run, metrics={"exact": 1.0}), template=template).markdown.read_text()
    assert second.startswith("100.0 % and 1 min 15 s\n\n| run | metric |")
    assert "](notes_files/curve-loss-" in second
    assert "pending" not in second
    assert template.read_text() == text


def test_a_run_under_way_shows_what_it_has_journalled(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    write_events(run, [restore(0), metric(1, loss=2.0), metric(2, loss=1.5)])
    assert render("{{ metric:loss }} {{ metric:val_loss }}", StageView("r", "sft", run), of="run") == (
        "1.5 (pending: r is created)"
    )


def test_text_of_a_model_is_never_expanded_nor_run(tmp_path):
    evil = "{{ run }} {{ unknown }} </code><script>x</script> \\{{ ${a} %s"
    run = make_run(tmp_path, "r", "eval")
    write_events(run, [restore(0), generation(0, evil, 1.0, prompt=evil)])
    (tmp_path / "notes.md").write_text("{{ samples }}\n")
    files = write_run_report(finish(run), template=tmp_path / "notes.md")
    page, markdown = files.html.read_text(), files.markdown.read_text()
    assert page.count("{{ run }} {{ unknown }} &lt;/code&gt;&lt;script&gt;") == 2
    assert markdown.count("{{ run }} {{ unknown }}") == 2
    assert "<script" not in page + markdown


def test_a_value_stays_one_value_wherever_it_stands(tmp_path):
    run = make_run(tmp_path, "r", "sft")
    run.config_path.write_text('job: sft\nnotes: "a | **b** `c`\\n<i>"\nlayers: [1, two]\ntraining: {lr: 1e-3}\n')
    view = StageView("r", "sft", run)
    assert render("{{ config:notes }}", view, of="run") == "a &#124; \\*\\*b\\*\\* \\`c\\`<br>&lt;i&gt;"
    assert render("`{{ config:notes }}`", view, of="run") == "`a | **b** \\u0060c\\u0060\\u000a<i>`"
    assert render("`{{ config:layers }} {{config:training}}`", view, of="run") == '`[1, "two"] {"lr": 0.001}`'


def test_blocks_get_the_empty_lines_that_they_need_and_headings_below_the_templates(tmp_path):
    text = render("### H\n{{ curves }}\n{{ run }}", *make_pipeline(tmp_path))
    assert text.startswith("### H\n\n#### `sft`\n\n")
    assert text.endswith("\n\ndemo")


def test_a_report_never_replaces_its_template(tmp_path):
    run = make_sft(tmp_path)
    (run.path / "notes.md").write_text("{{ run }}")
    with pytest.raises(UserError, match="the report would replace its template"):
        write_run_report(run, template=run.path / "notes.md")
    assert (run.path / "notes.md").read_text() == "{{ run }}"


def test_the_usual_report_and_one_of_a_template_stand_side_by_side(tmp_path):
    run = make_sft(tmp_path)
    (tmp_path / "notes.md").write_text("{{ curves }}")
    usual = write_run_report(run)
    before = usual.markdown.read_text()
    write_run_report(run, template=tmp_path / "notes.md")
    assert usual.markdown.read_text() == before
    assert list((run.path / "report_files").glob("*.png"))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "the template cannot be read"), (b"\xff", "the template is not UTF-8 text")]
)
def test_a_template_that_cannot_be_read_is_named(tmp_path, content, said):
    if content is not None:
        (tmp_path / "t.md").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        write_run_report(make_sft(tmp_path), template=tmp_path / "t.md")
    assert error.value.where == str(tmp_path / "t.md")


def test_the_command_line_writes_it_and_lists_all_placeholders(tmp_path, capsys):
    run = make_sft(tmp_path)
    (tmp_path / "notes.md").write_text("{{ run }}: {{ metric:val_loss }}\n")
    words = ["--workspace", str(tmp_path), "report"]
    assert main([*words, run.id, "--template", str(tmp_path / "notes.md")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(run.path / "notes.md"), str(run.path / "notes.html")]
    assert (run.path / "notes.md").read_text() == "demo.sft: 0.52\n"
    assert main([*words, "--list-placeholders"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{{{{ {kind.usage} }}}}" in listed for kind in KINDS.values())
    assert main(words) == 2
    assert "it is not said what to report on" in capsys.readouterr().err


def test_every_placeholder_fills_for_a_run_and_for_a_pipeline(tmp_path):
    stages = pipeline_with_config(tmp_path)
    arguments = {"metric": "loss", "interval": "val_loss", "config": "job", "table": "val_loss", "curve": "loss"}
    for name, kind in KINDS.items():
        argument = arguments.get(name, "")
        text = f"{{{{ {name}:{argument} }}}}" if argument else f"{{{{ {name} }}}}"
        assert "{{" not in render(text, stages[1], of="run")
        staged = f"{{{{ {name}:sft.{argument} }}}}" if argument and name != "table" else text
        assert "{{" not in render("{{ state:sft }}" if name == "state" else staged, *stages), kind


def test_without_matplotlib_a_template_is_filled_and_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    (tmp_path / "notes.md").write_text("{{ curves }}")
    files = write_run_report(make_sft(tmp_path), template=tmp_path / "notes.md")
    assert files.markdown.read_text().startswith("> The figures are left out: the library 'matplotlib'")
    assert "The figures are left out" in files.html.read_text()
    shutil.rmtree(tmp_path / "runs")
