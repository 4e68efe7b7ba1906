"""What secrets look like, by the formats that their issuers document.

Each entry is some texts, one of which every match holds (in lower case: looking for them is what makes the search
fast), and an expression. Where the expression has a group, the group is the secret and the rest only shows that it is
one. No match but that of a key block goes beyond its line: the stream of a log is cut at line ends.
"""

from __future__ import annotations

import re

_LINE_END = r"(?:\r?\n|\\r\\n|\\n)"
_KEY_NAME = r"(?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
KEY_BLOCK = re.compile(
    rf"-----BEGIN {_KEY_NAME}"
    rf"(?:{_LINE_END}(?:(?:Proc-Type|DEK-Info|Version|Comment):[^\r\n\\]*|[A-Za-z0-9+/=]*)[ \t]*(?=[\r\n\\]|-----|\Z))*"
    rf"(?P<end>{_LINE_END}?-----END {_KEY_NAME})?"
)
"""A private key in PEM (RFC 7468) or OpenPGP armour, also with its line ends escaped; what has no end is taken as far
as it looks like one."""

_BEFORE = r"(?<![A-Za-z0-9])"
_WORDS = ("password", "passwd", "passphrase")
_PAIRS = (
    ("api", "key"),
    ("secret", "key"),
    ("client", "secret"),
    *((kind, "token") for kind in ("access", "auth", "refresh")),
)
_ASSIGNED = "|".join([*_WORDS, *(f"{first}[_-]?{second}" for first, second in _PAIRS)])


def _table() -> tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]:
    tokens = [
        (("hf_",), r"hf_[A-Za-z0-9]{16,}"),
        (("sk-",), r"sk-(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{16,}"),
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{16,}"),
        (("github_pat_",), r"github_pat_[A-Za-z0-9_]{16,}"),
        (("glpat-",), r"glpat-[A-Za-z0-9_-]{16,}"),
        (("akia", "asia"), r"A(?:KI|SI)A[A-Z0-9]{16}"),
        (("aiza",), r"AIza[A-Za-z0-9_-]{30,}"),
        (("xox",), r"xox[a-z]-[A-Za-z0-9-]{10,}"),
        (("pypi-",), r"pypi-[A-Za-z0-9_-]{32,}"),
        (("npm_",), r"npm_[A-Za-z0-9]{32,}"),
        (("eyj",), r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
    ]
    names = (*_WORDS, *(f"{first}{sign}{second}" for first, second in _PAIRS for sign in ("", "_", "-")))
    parameters = ("token", "key", "secret", "signature", "sig", "x-amz-credential")
    contexts = [
        (("hooks.slack.com/",), r"hooks\.slack\.com/services/([A-Za-z0-9/_-]+)"),
        (("bearer",), r"(?i:bearer)[ \t]+([A-Za-z0-9._~+/=-]{8,})"),
        (
            ("authorization",),
            r"(?i:authorization)[\"']?[ \t]*[:=][ \t]*[\"']?(?i:basic|token)[ \t]+([^ \t\r\n\"',;]+)",
        ),
        (("://",), r"://[^ \t\r\n/:@\"']*:([^ \t\r\n/@\"']+)@"),
        (
            tuple(f"{name}=" for name in parameters),
            rf"[?&](?i:{'|'.join(parameters)}|x-amz-signature)=([^ \t\r\n\"'&]{{8,}})",
        ),
        (names, rf"(?i:{_ASSIGNED})[\"']?[ \t]*[=:][ \t]*[\"']?([^ \t\r\n\"',;&]{{8,}})"),
    ]
    exact = [(triggers, re.compile(_BEFORE + text)) for triggers, text in tokens]
    return (*exact, *((triggers, re.compile(text)) for triggers, text in contexts), (("-----begin ",), KEY_BLOCK))


PATTERNS = _table()
