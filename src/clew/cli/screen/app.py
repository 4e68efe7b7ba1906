"""The screen itself: what is shown where, and which key asks for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Protocol

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Footer, OptionList, TabbedContent, TabPane

from clew.cli.screen.asking import FORK, KEYS, Args, Key
from clew.cli.screen.dialogs import Ask, Choose, Confirm, Help
from clew.cli.screen.panels import Curve, Lines, Metrics, Standing, happened, printed, written
from clew.cli.screen.reader import Reader
from clew.cli.screen.telling import Line
from clew.cli.screen.watched import Look, Watched
from clew.errors import ClewError, UserError
from clew.runs import ACTIVE, FINAL, Run, State
from clew.session.live import LiveRun

_ASKS = {key.verb: key for key in KEYS}


class Fork(Protocol):
    """Makes a child of a run; see :func:`clew.api.fork`."""

    def __call__(self, run: Run, *, name: str, overrides: Sequence[str]) -> str:
        """Fork it, and return the child's name."""


class Looked(Message):
    """There is a new look at the run.

    Args:
        watched: Who looked.
        look: What was seen.
    """

    def __init__(self, watched: Watched, look: Look) -> None:
        super().__init__()
        self.watched = watched
        self.look = look


class WatchApp(App[None]):
    """Shows a run, and sends it commands.

    Args:
        run: The run.
        fork: Makes a child of it.
        theme: The name of a theme of Textual's; empty leaves the choice to Textual.
    """

    CSS = """
    Standing { height: 2; padding: 0 1; background: $panel; }
    #middle { height: 1fr; }
    Metrics { width: 34; height: 100%; border: none; padding: 0 1; }
    Curve { width: 1fr; height: 100%; padding: 0 1; color: $text; }
    TabbedContent { height: 45%; }
    TabPane, Lines { padding: 0; height: 1fr; }
    Lines { padding: 0 1; }
    .-narrow Metrics { display: none; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]  # noqa: RUF012 - as Textual declares it
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "help", key_display="?", tooltip="what the keys do"),
        Binding("q,ctrl+c", "quit", "quit", tooltip="leave; the run goes on"),
        *(Binding(one.key, f"ask('{one.verb}')", one.verb, tooltip=one.meaning) for one in KEYS),
        Binding("m", "metric(1)", "metric", tooltip="draw the next metric"),
        Binding("M", "metric(-1)", "metric", show=False, tooltip="draw the one before"),
        Binding("l", "log", "log", show=False, tooltip="draw by the logarithm, and back"),
        Binding("o", "other", "other run", show=False, tooltip="look at a fork of it, or at what it was forked from"),
        Binding("1", "tab('events')", "events", show=False, tooltip="what has happened"),
        Binding("2", "tab('samples')", "samples", show=False, tooltip="what the model wrote"),
        Binding("3", "tab('log')", "log", show=False, tooltip="what the run printed"),
        Binding("t", "theme", "theme", show=False, tooltip="light and dark"),
    ]

    def __init__(self, run: Run, *, fork: Fork, theme: str = "") -> None:
        super().__init__()
        self._run = run
        self._fork = fork
        self._job = run.info.job
        self._look: Look | None = None
        self._asked: dict[str, str] = {}
        self._offered: set[str] = set()
        self._reader = self._reading(run)
        if theme:
            self.theme = theme

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Standing(markup=False)
        with Horizontal(id="middle"):
            yield Metrics(markup=False, compact=True)
            yield Curve()
        with TabbedContent():
            for name in ("events", "samples", "log"):
                with TabPane(name, id=name):
                    yield Lines()
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to read."""
        self.title = f"clew watch {self._run.id}"
        self.query_one(Metrics).focus()
        self._reader.start()

    def on_unmount(self) -> None:
        """Read no more."""
        self._reader.close()

    def _reading(self, run: Run) -> Reader:
        watched = Watched(run)
        return Reader(watched, lambda look: self.post_message(Looked(watched, look)))

    # What comes.

    @on(Looked)
    def _show(self, message: Looked) -> None:
        if message.watched.run is not self._run or not self.query(Standing):
            return  # of a run that nobody looks at any more, or the screen is being taken down
        look, before, self._look = message.look, self._look, message.look
        self.query_one(Standing).show(self._run, look, self._job)
        self.query_one(Metrics).show(look)
        curve = self.query_one(Curve)
        curve.metric, curve.points = look.chosen, look.points
        texts = {"events": happened(look.lines), "samples": written(look.samples), "log": printed(look.log)}
        for name, text in texts.items():
            self._lines(name).show(text, follow=name != "samples")
        self._answer(look.lines)
        if before is not None:
            self._announce(before, look)

    def _lines(self, tab: str) -> Lines:
        return self.query_one(f"#{tab} Lines", Lines)

    def _answer(self, lines: tuple[Line, ...]) -> None:
        """Tell what became of the commands that were sent from here."""
        for line in lines:
            if line.command in self._asked:
                del self._asked[line.command]
                self._say(line.text, bad=line.tone == "bad")

    def _announce(self, before: Look, look: Look) -> None:
        """Tell that the run has ended, and that a child of it goes on."""
        if before.state not in FINAL and look.state in FINAL:
            self._say(f"the run is over: {look.state}", bad=look.state is State.FAILED)
            for verb in self._asked.values():
                self._say(f"the run ended before it could {verb}", bad=True)
            self._asked.clear()
        for child in look.children:
            if look.state in FINAL and child.state in ACTIVE and child.name not in self._offered:
                self._offered.add(child.name)
                self._say(f"{child.name} goes on from here: o looks at it")

    def _say(self, text: str, *, bad: bool = False) -> None:
        if text:
            self.notify(text, severity="error" if bad else "information", markup=False)

    # What is asked for.

    def action_ask(self, verb: str) -> None:
        """Ask what has to be known for a command, and send it."""
        key = _ASKS[verb]
        if key.consequence:
            title = f"{verb} {self._run.id}?"
            self.push_screen(Confirm(title, key.consequence), lambda meant: self._send(verb, {}) if meant else None)
        elif key.questions:
            self.push_screen(Ask(verb, key.questions), partial(self._answered, key))
        else:
            self._send(verb, {})

    def _answered(self, key: Key, texts: list[str] | None) -> None:
        """Go on with what was typed; a mistake in it is said."""
        if texts is None:
            return
        try:
            args = key.args(texts)
        except UserError as error:
            self._say(error.one_line(), bad=True)
            return
        self._send(key.verb, args)

    def _send(self, verb: str, args: Args) -> None:
        """Put a command into the run's inbox, without waiting for its outcome."""
        run = self._run
        if verb == FORK:
            self._beside(lambda: f"{self._fork(run, **args)} goes on from {run.id}: o looks at it")
        else:
            self._beside(lambda: self._post(LiveRun(run), verb, args))

    def _post(self, live: LiveRun, verb: str, args: Args) -> str:
        sent = live.send(verb, args)
        self.call_from_thread(self._expect, sent.id, verb)
        return ""

    def _expect(self, command: str, verb: str) -> None:
        self._asked[command] = verb
        self._say(f"asked to {verb}")
        if self._look is not None:
            self._answer(self._look.lines)  # it may have answered already

    def _beside(self, body: Callable[[], str]) -> None:
        """Do something that takes its time, such as writing to a slow disk, in a thread, and say what came of it."""

        def attempt() -> None:
            try:
                self.call_from_thread(self._say, body())
            except (ClewError, OSError) as error:
                text = error.one_line() if isinstance(error, ClewError) else str(error)
                self.call_from_thread(self._say, text, bad=True)

        self.run_worker(attempt, thread=True)

    # What is shown.

    def action_metric(self, by: int) -> None:
        """Move the cursor of the metrics; the curve follows it."""
        metrics = self.query_one(Metrics)
        if metrics.option_count:
            metrics.highlighted = ((metrics.highlighted or 0) + by) % metrics.option_count

    @on(OptionList.OptionHighlighted, "Metrics")
    def _choose(self, event: OptionList.OptionHighlighted) -> None:
        if name := self.query_one(Metrics).name_at(event.option_index):
            self._reader.choose(name)

    def action_log(self) -> None:
        """Draw by the logarithm, or no longer."""
        curve = self.query_one(Curve)
        curve.is_log = not curve.is_log

    def action_tab(self, name: str) -> None:
        """Show one of the lists below."""
        self.query_one(TabbedContent).active = name

    def action_theme(self) -> None:
        """Change between light and dark."""
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    def action_help(self) -> None:
        """Say what the keys do."""
        bindings = [binding for binding in self.BINDINGS if isinstance(binding, Binding)]
        self.push_screen(Help([(one.key_display or one.key.partition(",")[0], one.tooltip) for one in bindings]))

    def action_other(self) -> None:
        """Choose another run of the family."""
        if self._look is None:
            return
        family = [one for one in (self._look.parent, *self._look.children) if one is not None and one.state is not None]
        if not family:
            self._say("it was forked from none, and none from it")
            return
        options = [(one.name, f"{one}  {one.state}") for one in family]
        self.push_screen(Choose("look at", options), lambda name: self._follow(name) if name else None)

    def _follow(self, name: str) -> None:
        """Look at another run of the workspace from now on."""
        self._reader.close()
        self._run = Run(self._run.path.parent / name)
        self._job, self._look = self._run.info.job, None
        self._asked.clear()
        self._reader = self._reading(self._run)
        self.query_one(Metrics).forget()
        self.title = f"clew watch {name}"
        self._reader.start()
