import json
import re
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clew.logs.redaction import PLACEHOLDER, Redactor
from clew.logs.secrets import is_secret_name, named_in, secret_values
from clew.logs.stream import LIMIT, RedactedStream

KEY = """-----BEGIN RSA PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED

MIIEpAIBAAKCAQEA04up8hoqzS1+APIB0RhjXyObwHQnOzhAk5Bd7mhkSbPkyhP1
iWlX9HNavcydATJc1f0DpzF0u4zY8PY24RVoW8vk+bJANPp1o2IAkeajCaF3w9nf
q/SyqAWVmvwYuIhDiHaV2A==
-----END RSA PRIVATE KEY-----"""

LOOKS_SECRET = {
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "openai": "sk-proj-4f9aB_7cDe12-3456789012345678",
    "github": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github, fine": "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "gitlab": "glpat-ABCdefGHIjklMNOpqrST",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
    "slack": "xoxb-123456789012-abcdefGHIJKL",
    "json web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}


@pytest.mark.parametrize("name", LOOKS_SECRET)
def test_what_looks_like_a_secret_is_taken_out_of_its_surroundings(name):
    secret = LOOKS_SECRET[name]
    assert Redactor().text(f"login({secret!r}) failed") == "login('[redacted]') failed"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer [redacted]"),
        ('{"Authorization": "Basic dXNlcjpwYXNz"}', '{"Authorization": "Basic [redacted]"}'),
        ("postgresql://me:hunter2@host:5432/db", "postgresql://me:[redacted]@host:5432/db"),
        ("GET /x?step=3&token=0123456789ab&y=1", "GET /x?step=3&token=[redacted]&y=1"),
        ("api_key = 'abcdefgh1234'", "api_key = '[redacted]'"),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/services/[redacted]"),
        (f"key:\n{KEY}\nnext line", "key:\n[redacted]\nnext line"),
        (repr(KEY) + " was read", "'[redacted]' was read"),
        (f"{KEY[:90]}\nTraceback (most recent call last):", "[redacted]\nTraceback (most recent call last):"),
    ],
)
def test_secrets_are_known_by_what_stands_around_them(text, left):
    assert Redactor().text(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "step 100: loss 0.4123, 1234.5 tokens/s",
        "pad_token: <|endoftext|>, eos_token='<|im_end|>', max_new_tokens=1024",
        "/runs/task-with-a-long-name-2024-01-01/artifacts/mask-of-a-long-name-1",
        "http://127.0.0.1:8000/a/b@c and 12:34:56 and me@example.org",
        "the keys of the mapping; a token of 12345678 characters; bearer of news",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    ],
)
def test_ordinary_text_stays(text):
    assert Redactor().text(text) == text


def test_a_value_is_taken_out_in_each_of_its_spellings():
    value = 'pass"word\\ with ünusual/signs'
    redactor = Redactor([value])
    for spelling in (
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value, safe=""),
    ):
        assert redactor.text(f"<{spelling}>") == "<[redacted]>"


def test_nothing_is_left_of_secrets_that_overlap():
    assert Redactor(["abcdefgh", "fghijklmnop"]).text("<abcdefghijklmnop>") == "<[redacted]>"


def test_trees_keep_their_form():
    tree = {"reason": "token abcdefgh1", "log_tail": ["abcdefgh1", "x"], "signal": None, "n": 3}
    assert Redactor(["abcdefgh1"]).tree(tree) == {
        "reason": "token [redacted]",
        "log_tail": ["[redacted]", "x"],
        "signal": None,
        "n": 3,
    }


def test_names_that_mean_secrets():
    secret = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "DB_PASSWORD", "OPENAI_APIKEY", "SIGNING_KEY"]
    plain = ["PATH", "PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "TOKENIZER", "KEYBOARD", "AUTHOR", "HOME"]
    assert all(is_secret_name(name) for name in secret)
    assert not [name for name in plain if is_secret_name(name)]


def test_variables_may_be_named_by_the_user_and_by_a_config():
    environment = {"MY_HOOK": "https://example.org/1", "OTHER": "abcdefghij", "CLEW_SECRETS": "OTHER, NONE"}
    names = named_in({"notify": {"webhook": {"url_env": "MY_HOOK", "secret_env": ""}}, "list": [{"x": 1}]})
    assert names == {"MY_HOOK"}
    assert secret_values(environment, names) == ["https://example.org/1", "abcdefghij"]


# Laws.

values = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40), max_size=4)
near = st.text("ab\n -", min_size=8, max_size=12)  # few letters: secrets that overlap and cross lines
tokens = st.sampled_from(
    [*LOOKS_SECRET.values(), KEY, "Bearer ", "password=", "://me:pw@", "-----BEGIN ", "sk-", "[red"]
)


@st.composite
def secrets_in_text(draw):
    secrets = draw(st.one_of(values, st.lists(near, max_size=4)))
    secrets = [value for value in secrets if len(value.strip()) >= 8 and PLACEHOLDER not in value]
    pieces = st.one_of(st.text(max_size=10), st.sampled_from(["\n", "\r", " ", "a", "b"]), tokens)
    if secrets:
        pieces = st.one_of(pieces, st.sampled_from(secrets))
    text = "".join(draw(st.lists(pieces, max_size=12)))
    assume(text.encode("utf-8", "ignore").decode() == text)
    return secrets, text


@st.composite
def cut(draw, data):
    """A text in pieces, with pauses between some of them."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    bounds = [0, *places, len(data)]
    return [(data[a:b], draw(st.booleans())) for a, b in pairwise(bounds)]


def through_stream(secrets, pieces, *, pauses=True):
    stream = RedactedStream(Redactor(secrets))
    out = b"".join(stream.feed(piece) + (stream.flush() if pause and pauses else b"") for piece, pause in pieces)
    return (out + stream.end()).decode()


@given(secrets_in_text())
def test_redacting_twice_is_redacting_once(example):
    secrets, text = example
    redactor = Redactor(secrets)
    once = redactor.text(text)
    assert redactor.text(once) == once


@given(secrets_in_text())
def test_no_secret_survives(example):
    secrets, text = example
    left = Redactor(secrets).text(text)
    assert not [value for value in secrets if value.strip() in left]
    assert not [token for token in LOOKS_SECRET.values() if re.search(rf"(?<![A-Za-z0-9]){re.escape(token)}", left)]


@given(secrets_in_text(), st.data())
def test_no_secret_survives_in_pieces(example, data):
    secrets, text = example
    left = through_stream(secrets, data.draw(cut(text.encode())))
    parts = left.split(PLACEHOLDER)
    assert not [value for value in secrets if any(value.strip() in part for part in parts)]


@given(secrets_in_text(), st.data())
def test_pieces_give_what_the_whole_gives(example, data):
    secrets, text = example
    pieces = data.draw(cut(text.encode()))
    assert through_stream(secrets, pieces, pauses=False) == through_stream(secrets, [(text.encode(), False)])


@given(st.binary(max_size=200), st.data())
def test_bytes_that_are_no_text_pass_unchanged(noise, data):
    stream = RedactedStream(Redactor())
    clean = re.sub(b"[=:@]", b"", noise)
    out = b"".join(stream.feed(piece) + stream.flush() for piece, _ in data.draw(cut(clean))) + stream.end()
    assert out == clean


# The stream.


def test_a_line_is_told_when_it_ends_whatever_ends_it():
    stream = RedactedStream(Redactor())
    assert stream.feed(b"one\ntw") == b"one\n"
    assert stream.feed(b"o\r 50 %\r") == b"two\r 50 %\r"
    assert not stream.holds


def test_a_line_that_goes_on_is_told_up_to_its_last_word():
    stream = RedactedStream(Redactor(["hunter two"]))
    assert (stream.feed(b"loading the mod"), stream.flush()) == (b"", b"loading the")
    assert (stream.feed(b"el hunter"), stream.flush()) == (b"", b" model")
    assert stream.feed(b" two\n") == b" [redacted]\n"


@pytest.mark.parametrize(
    "text", ["Authorization: Basic dXNl|cjpwYXNz", "Bearer abcd|efgh1234", "password = abcde|fgh123"]
)
def test_a_pause_does_not_part_a_secret_from_what_announces_it(text):
    stream = RedactedStream(Redactor())
    for piece in text.replace("|", "| |").split("|"):
        if piece.strip():
            assert PLACEHOLDER.encode() not in stream.feed(piece.encode()) + stream.flush()
    assert stream.end().endswith(b"[redacted]")


def test_an_endless_line_is_bounded_and_still_redacted():
    stream, secret = RedactedStream(Redactor(["0123456789abcdef"])), b"0123456789abcdef"
    out = b"".join(stream.feed(b"x" * 777 + secret) for _ in range(1000))
    out += stream.end()
    assert secret not in out
    assert (out.count(b"x"), out.count(b"[redacted]")) == (777_000, 1000)


def test_an_endless_secret_is_dropped_to_the_end_of_its_line():
    stream = RedactedStream(Redactor())
    out = stream.feed(b"hf_" + b"A" * 3 * LIMIT) + stream.feed(b"AAAA end\nnext\n") + stream.end()
    assert out == b"[redacted]\nnext\n"
