import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clew.errors import UserError
from clew.notify import Notifier, NotifyConfig, WebhookConfig, open_notifier, sign
from clew.notify.webhook import Webhook

SECRET = "tell nobody"


class Server(ThreadingHTTPServer):
    """Answers with the codes of a list, then with 200; 0 is no answer at all."""

    daemon_threads = True

    def __init__(self, answers=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.got = []
        self.times = []
        self.release = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))
        self.server.times.append(time.monotonic())
        code = self.server.answers.pop(0) if self.server.answers else 200
        if code == 0:
            self.server.release.wait(30)
            return
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.server.got.append(("GET", self.path))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy stands between two ends of one machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def start(*answers):
            server = Server(answers)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            stack.callback(server.release.set)
            return server

        yield start


def deliver(url, *, events=1, seconds=10.0, **config):
    """Tell something, close, and return what was reported with the time that put() and close() took."""
    reports = []
    webhook = Webhook(WebhookConfig(url=url, **{"wait_seconds": 0.01, **config}), reports.append)
    start = time.monotonic()
    for number in range(events):
        webhook.put({"event": "failure", "id": str(number), "reason": "größer"})
    put = time.monotonic() - start
    webhook.close(seconds)
    return reports, put, time.monotonic() - start


def test_an_event_arrives_as_signed_json(serve, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    server = serve()
    reports, _, _ = deliver(server.url, secret_env="HOOK_SECRET")
    ((headers, body),) = server.got
    assert json.loads(body) == {"event": "failure", "id": "0", "reason": "größer"}
    assert headers["X-Clew-Event"] == "failure"
    assert headers["X-Clew-Delivery"] == "0"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Clew-Signature"] == sign(body, SECRET)
    assert SECRET not in str(headers) + body.decode()
    assert reports == [{"id": "0", "of": "failure", "delivered": True, "tries": 1, "reason": ""}]


def test_the_signature_is_that_of_the_standard():
    # Test case 2 of RFC 4231.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(b"what do ya want for nothing?", "Jefe") == f"sha256={expected}"


def test_without_a_secret_nothing_is_signed(serve):
    server = serve()
    deliver(server.url)
    assert "X-Clew-Signature" not in server.got[0][0]


def test_errors_that_pass_are_tried_again_in_order(serve):
    server = serve(500, 429, 503)
    reports, _, _ = deliver(server.url, events=2)
    assert [(item["id"], item["tries"]) for item in reports] == [("0", 4), ("1", 1)]
    assert [headers["X-Clew-Delivery"] for headers, _ in server.got] == ["0", "0", "0", "0", "1"]


def test_each_wait_is_twice_as_long_as_the_one_before(serve):
    server = serve(500, 500, 500)
    deliver(server.url, wait_seconds=0.1)
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert len(gaps) == 3
    assert all(gap >= wait for gap, wait in zip(gaps, (0.1, 0.2, 0.4), strict=True))


def test_tries_are_bounded(serve):
    server = serve(*[500] * 20)
    reports, _, _ = deliver(server.url, attempts=3)
    assert (len(server.got), reports[0]["delivered"], reports[0]["reason"]) == (3, False, "HTTP 500")


@pytest.mark.parametrize("code", [302, 400, 401, 404, 410])
def test_an_answer_that_will_not_change_is_not_asked_for_again(serve, code):
    server = serve(code)
    reports, _, _ = deliver(server.url)
    assert len(server.got) == 1, "above all, a redirect is not followed"
    assert reports[0]["reason"] == f"HTTP {code}"


def test_nobody_there_is_an_end_in_a_bounded_time():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reports, put, total = deliver(f"http://127.0.0.1:{port}/", attempts=2)
    assert (reports[0]["delivered"], reports[0]["reason"]) == (False, "Connection refused")
    assert put < 0.2
    assert total < 5


def test_a_server_that_hangs_delays_neither_the_teller_nor_the_end(serve):
    server = serve(0, 0, 0)
    reports, put, total = deliver(server.url, events=50, seconds=0.3)
    assert put < 0.2
    assert total < 2
    assert reports == []


def test_a_server_that_hangs_is_left_after_the_timeout(serve):
    server = serve(0)
    reports, _, _ = deliver(server.url, timeout_seconds=0.2)
    assert reports == [{"id": "0", "of": "failure", "delivered": True, "tries": 2, "reason": ""}]


def test_the_end_does_not_wait_for_a_try_that_comes_too_late(serve):
    server = serve(500)
    reports, _, total = deliver(server.url, seconds=0.5, wait_seconds=30)
    assert total < 2
    assert reports[0]["reason"] == "HTTP 500; the pipeline was over before another try"


def test_an_answer_that_is_no_http(serve):
    with socket.create_server(("127.0.0.1", 0)) as raw:

        def answer():
            for _ in range(2):
                connection, _ = raw.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        reports, _, _ = deliver(f"http://127.0.0.1:{raw.getsockname()[1]}/", attempts=2)
        thread.join()
    assert (reports[0]["delivered"], reports[0]["reason"]) == (False, "BadStatusLine")


def test_a_secret_that_is_not_there_is_an_error_before_anything_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("HOOK_SECRET", raising=False)
    config = NotifyConfig(webhook=WebhookConfig(url="http://127.0.0.1/", secret_env="HOOK_SECRET"))
    with pytest.raises(UserError) as error:
        open_notifier(config, root=tmp_path)
    assert str(error.value) == (
        "notify.webhook.secret_env: the environment variable 'HOOK_SECRET' is not set\n  export HOOK_SECRET=..."
    )


def test_the_address_can_be_a_secret_too(serve, monkeypatch, tmp_path):
    server = serve()
    monkeypatch.setenv("HOOK", server.url)
    with open_notifier(NotifyConfig(webhook=WebhookConfig(url_env="HOOK")), root=tmp_path) as notifier:
        notifier.tell("completion", pipeline="p")
    assert json.loads(server.got[0][1])["pipeline"] == "p"
    monkeypatch.setenv("HOOK", "file:///etc/passwd")
    with pytest.raises(UserError, match=r"notify\.webhook\.url_env \(HOOK\): url: an address starts with http"):
        open_notifier(NotifyConfig(webhook=WebhookConfig(url_env="HOOK")), root=tmp_path)


def test_only_the_events_that_were_asked_for_are_told_and_the_journal_gets_all(serve, tmp_path):
    server = serve()
    config = NotifyConfig(events=["waiting"], file="told.jsonl", webhook=WebhookConfig(url=server.url))
    with open_notifier(config, root=tmp_path, journal=tmp_path / "all.jsonl") as notifier:
        for event in ("retry", "failure", "waiting", "completion"):
            notifier.tell(event, pipeline="p")
    assert [json.loads(body)["event"] for _, body in server.got] == ["waiting"]
    assert [json.loads(line)["event"] for line in (tmp_path / "told.jsonl").read_text().splitlines()] == ["waiting"]
    journal = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert sorted(item["event"] for item in journal) == ["completion", "delivery", "failure", "retry", "waiting"]
    (delivery,) = [item for item in journal if item["event"] == "delivery"]
    (waiting,) = [item for item in journal if item["event"] == "waiting"]
    assert (delivery["id"], delivery["of"], delivery["delivered"]) == (waiting["id"], "waiting", True)


def test_nobody_is_told_without_a_config(tmp_path):
    with Notifier([]) as notifier:
        notifier.tell("failure")
    assert list(tmp_path.iterdir()) == []
