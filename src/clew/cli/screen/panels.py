"""The parts of the screen. Each is given a look, and draws what of it is its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual.containers import VerticalScroll
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from clew.cli.screen.kin import Relative
from clew.cli.screen.plot import plot
from clew.cli.screen.telling import Line, Tone
from clew.cli.screen.watched import Look, Sample
from clew.cli.text import number
from clew.reports.formats import clean, shorten
from clew.reports.series import Point
from clew.runs import Run, State

_STATES = {
    State.RUNNING: "green",
    State.PAUSED: "yellow",
    State.COMPLETED: "bold green",
    State.FAILED: "bold red",
    State.INTERRUPTED: "yellow",
    State.STOPPED: "yellow",
    State.UNKNOWN: "magenta",
}
_TONES: dict[Tone, str] = {"plain": "", "good": "green", "bad": "red"}
_NAME = 20
_MOST_CHILDREN = 6


class Standing(Static):
    """The lines at the top: state, how far, how quick, and whom the run belongs to."""

    def show(self, run: Run, look: Look, job: str) -> None:
        """Draw a look.

        Args:
            run: The run.
            look: How it stands.
            job: What it does.
        """
        text = Text(f"{run.id}  ", "bold")
        text.append(str(look.state), _STATES.get(look.state, ""))
        for part in filter(None, look.standing):
            text.append(f" · {part}", "not bold")
        if look.is_behind:
            text.append(" · reading the journal", "dim not bold")
        text.append(f"\n{' · '.join(_belongings(look, job))}", "dim not bold")
        self.update(text)


def _belongings(look: Look, job: str) -> Iterable[str]:
    yield f"job {job}"
    yield f"attempt {look.attempt}"
    if look.parent is not None:
        yield f"forked from {look.parent}"
    if look.children:
        shown = ", ".join(_child(child) for child in look.children[-_MOST_CHILDREN:])
        more = len(look.children) - _MOST_CHILDREN
        yield f"forks: {shown}{f' and {more} more' if more > 0 else ''}"


def _child(child: Relative) -> str:
    return f"{child} ({child.state})" if child.state is not None else str(child)


class Metrics(OptionList):
    """Every metric with its last value; the one under the cursor is drawn."""

    def show(self, look: Look) -> None:
        """Draw a look; the cursor stays where it is."""
        shown = [_metric(name, value) for name, value in look.metrics.items()]
        for index, (name, text) in enumerate(zip(look.metrics, shown, strict=True)):
            if index >= self.option_count:
                self.add_option(Option(text, id=f"m{index}"))
            elif self.name_at(index) != name or str(self.get_option_at_index(index).prompt) != text:
                self.replace_option_prompt_at_index(index, text)
        self._names = list(look.metrics)
        if look.chosen and self.highlighted is None:
            self.highlighted = self._names.index(look.chosen)

    _names: list[str]

    def on_mount(self) -> None:
        """Begin without metrics."""
        self._names = []

    def name_at(self, index: int) -> str:
        """Return the metric in a line; empty for a line without one."""
        return self._names[index] if index < len(self._names) else ""

    def forget(self) -> None:
        """Begin anew, for another run."""
        self._names = []
        self.clear_options()


def _metric(name: str, value: float) -> str:
    return f"{shorten(clean(name), _NAME):<{_NAME}} {number(value):>9}"


class Curve(Widget):
    """The curve of one metric."""

    points: reactive[tuple[Point, ...]] = reactive(())
    metric: reactive[str] = reactive("")
    is_log: reactive[bool] = reactive(False)
    """Whether values are drawn by their logarithm, where all are above zero."""

    def render(self) -> Text:
        """Draw the curve into the room that there is."""
        title = f"{clean(self.metric)}{' (log)' if self.is_log else ''}" if self.metric else "no metric yet"
        lines = plot(self.points, self.size.width, self.size.height - 1, log=self.is_log)
        text = Text(title, "bold", no_wrap=True)
        for line in lines:
            text.append(f"\n{line}", "not bold")
        return text


class Lines(VerticalScroll):
    """Texts under each other; whoever looks at the end goes on seeing it when something comes."""

    def compose(self) -> Iterable[Widget]:
        """Show nothing yet."""
        yield Static(markup=False)

    def show(self, text: Text, *, follow: bool = True) -> None:
        """Draw a text.

        Args:
            text: What to show.
            follow: Whether its end is what matters.
        """
        body = self.query_one(Static)
        if body.content == text:
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y
        body.update(text)
        if follow and at_end:
            self.scroll_end(animate=False, immediate=False)


def happened(lines: Sequence[Line]) -> Text:
    """Write what has happened, the newest last."""
    return Text("\n").join(Text(str(line), _TONES[line.tone]) for line in lines)


def written(samples: Sequence[Sample]) -> Text:
    """Write what a model wrote, the newest first."""
    text = Text()
    for sample in samples:
        step = "" if sample.step is None else f"step {sample.step}"
        text.append(f"{', '.join(filter(None, (step, sample.scores)))}\n", "bold")
        text.append(f"{sample.prompt}\n", "dim not bold")
        text.append(f"{sample.completion}\n\n", "not bold")
    return text


def printed(log: Sequence[str]) -> Text:
    """Write the end of a log."""
    return Text("\n".join(log))
