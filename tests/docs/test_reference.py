"""The reference is what the code says, and the names that people import say what they take, give and raise."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path

import pytest

import clew
from clew.config.schema import is_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts/write_reference.py"))


def test_the_reference_is_up_to_date(script):
    assert (ROOT / "docs/reference.md").read_text() == script["reference"](), "run make reference"


def test_what_the_reference_explains_exists(script):
    assert set(script["EVENTS"]) == script["plan_events"]()
    assert set(script["VARIABLES"]) == script["environment_variables"]()
    later = {"command", "sample"}  # written by way of a variable
    assert set(script["KINDS"]) - later <= set(script["journal_kinds"]()) <= set(script["KINDS"])


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_stands_in_the_reading_order_and_leads_to_the_next(script, page):
    if page.name not in script["UNLINKED"]:
        assert page.read_text() == script["with_next"](page.name, page.read_text()), "run make reference"


def functions():
    """The public functions of what can be imported from the package, and of its classes."""
    for name in clew.__all__:
        owner = getattr(clew, name)
        for found in [owner, *(vars(owner).values() if inspect.isclass(owner) else ())]:
            if inspect.isfunction(found) and not found.__name__.startswith("_") and found.__module__.startswith("clew"):
                yield name, found


CALLED = list(functions())


@pytest.mark.parametrize(("name", "function"), CALLED, ids=lambda item: getattr(item, "__name__", item))
def test_a_public_function_says_what_it_takes_and_gives(name, function):
    text = inspect.getdoc(function) or ""
    assert text, f"{name}.{function.__name__} has no docstring"
    parameters = [key for key in inspect.signature(function).parameters if key not in ("self", "cls")]
    if len(parameters) > 1:
        missing = [key for key in parameters if f"{key}:" not in text and f"``{key}``" not in text]
        assert not missing, f"{name}.{function.__name__} does not say what {missing} mean"
    if inspect.signature(function).return_annotation not in ("None", inspect.Signature.empty) and len(parameters) > 1:
        assert "eturn" in text or "ield" in text or "Give" in text or "Say" in text, f"{name}.{function.__name__}"


@pytest.mark.parametrize("name", clew.__all__)
def test_a_public_class_says_what_its_parts_are(name):
    owner = getattr(clew, name)
    if inspect.isclass(owner):
        assert len(inspect.getdoc(owner) or "") > 15
        if is_config(owner):
            from clew.config import fields_of

            assert all(field.doc for field in fields_of(owner).values())
