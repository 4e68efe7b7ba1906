"""What the screen asks before it sends a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from clew.cli.screen.asking import Question

_BOX = """
{name} {{ align: center middle; }}
{name} > VerticalScroll {{
    width: 72; max-width: 95%; height: auto; max-height: 90%;
    padding: 1 2; border: round $primary; background: $surface;
}}
{name} Label {{ text-style: bold; }}
{name} .hint {{ color: $text-muted; }}
"""


class Ask(ModalScreen[list[str] | None]):
    """Asks for one or several texts; gives None when it was left with Escape.

    Args:
        title: What will be done.
        questions: What is asked.
    """

    CSS = _BOX.format(name="Ask")
    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "leave")]

    def __init__(self, title: str, questions: Sequence[Question]) -> None:
        super().__init__()
        self._title = title
        self._questions = questions

    def compose(self) -> ComposeResult:
        """Show a line to type in for each question."""
        with VerticalScroll():
            yield Label(self._title, markup=False)
            for question in self._questions:
                yield Static(question.label, markup=False)
                yield Input(question.initial, placeholder=question.example, compact=True)
            yield Static("Enter sends it, Tab goes to the next line, Escape leaves", classes="hint")

    def on_input_submitted(self) -> None:
        """Give what was typed."""
        self.dismiss([one.value.strip() for one in self.query(Input)])


class Confirm(ModalScreen[bool]):
    """Asks whether something is to be done.

    Args:
        title: What will be done, as a question.
        hint: What comes of it.
    """

    CSS = _BOX.format(name="Confirm")
    BINDINGS: ClassVar[list[BindingType]] = [
        ("y,enter", "dismiss(True)", "yes"),
        ("n,escape,q", "dismiss(False)", "no"),
    ]

    def __init__(self, title: str, hint: str) -> None:
        super().__init__()
        self._title = title
        self._hint = hint

    def compose(self) -> ComposeResult:
        """Show the question."""
        with VerticalScroll():
            yield Label(self._title, markup=False)
            yield Static(self._hint, markup=False)
            yield Static("y or Enter: yes, n or Escape: no", classes="hint")


class Choose(ModalScreen[str | None]):
    """Lets one of several be chosen; gives its name, or None when it was left with Escape.

    Args:
        title: What is chosen.
        options: Names, and how each is shown.
    """

    CSS = _BOX.format(name="Choose")
    AUTO_FOCUS = "OptionList"
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "leave")]

    def __init__(self, title: str, options: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._options = options

    def compose(self) -> ComposeResult:
        """Show the list."""
        with VerticalScroll():
            yield Label(self._title, markup=False)
            yield OptionList(*(Option(shown, id=name) for name, shown in self._options), markup=False, compact=True)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Give what was chosen."""
        self.dismiss(event.option.id)


class Help(ModalScreen[None]):
    """Says what the keys do.

    Args:
        keys: Each key, and what it does.
    """

    CSS = _BOX.format(name="Help")
    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,enter,question_mark", "dismiss(None)", "leave")]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        """Show the list."""
        with VerticalScroll():
            yield Label("Keys")
            yield Static("\n".join(f"{key:>6}  {meaning}" for key, meaning in self._keys), markup=False)
            yield Static("Escape leaves", classes="hint")
