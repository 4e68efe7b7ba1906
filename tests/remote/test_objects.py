"""A location at an fsspec URL: whole states only, whatever dies in the middle, and nothing that is kept for ever."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.errors import UserError
from clew.remote import Conflict, Entry, Manifest, RemoteError, open_location
from clew.remote.location import fetch_checked


class Died(BaseException):
    """The process is gone."""


def write(folder: Path, contents: dict[str, str]) -> tuple[Manifest, dict[str, Path]]:
    folder.mkdir(exist_ok=True)
    sources = {}
    for path, text in contents.items():
        sources[path] = folder / uuid.uuid4().hex
        sources[path].write_text(text)
    return Manifest({path: Entry.of(source) for path, source in sources.items()}, {"run": "r"}), sources


def content(location, folder: Path) -> dict[str, str]:
    head = location.head()
    found = {}
    for path, entry in head.manifest.files.items():
        target = folder / uuid.uuid4().hex
        fetch_checked(location, head, path, entry.digest, target)
        found[path] = target.read_text()
    return found


@pytest.fixture(params=["file", "memory"])
def location(request, tmp_path):
    return open_location(f"file://{tmp_path}/place" if request.param == "file" else f"memory://{uuid.uuid4()}")


TREES = st.dictionaries(st.sampled_from(["a", "b/c", "b/d"]), st.sampled_from(["", "x", "yy", "zzz" * 99]), max_size=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TREES, st.integers(0, 8)), max_size=6))
def test_readers_see_the_last_state_that_was_finished(tmp_path, steps):
    """Law: after any pushes, each cut off after any number of writes, what is read is what was committed last."""
    location = open_location(f"memory://{uuid.uuid4()}")
    finished: dict[str, str] | None = None
    for contents, writes in steps:
        manifest, sources = write(tmp_path / "in", contents)
        try:
            dying(location, writes).commit(manifest, sources, location.head())
            finished = contents
        except Died:
            pass
        assert (content(location, tmp_path) if location.head() else None) == finished


def dying(location, writes: int):
    """The same location, where the process dies after some changes; the last one is half done."""
    files, left = location.files, [writes]

    class Files:
        protocol = files.protocol

        def __getattr__(self, name: str):
            return getattr(files, name)

        def put_file(self, source: str, target: str) -> None:
            self._count(lambda: files.pipe_file(target, Path(source).read_bytes()[:1]))
            files.put_file(source, target)

        def pipe_file(self, target: str, value: bytes, **more: object) -> None:
            self._count(lambda: files.pipe_file(target, value[: len(value) // 2]))
            files.pipe_file(target, value, **more)

        def _count(self, half) -> None:
            left[0] -= 1
            if left[0] < 0:
                half()
                raise Died

    return type(location)(location.url, Files(), location.root)


def test_what_no_kept_state_names_goes(location, tmp_path):
    for number in range(5):
        manifest, sources = write(tmp_path / "in", {"same": "same", "new": f"content {number}"})
        location.commit(manifest, sources, location.head())
    objects = location.files.ls(f"{location.root}/objects", detail=False)
    assert len(objects) == 3, "what stays, and the newest two of what changes"
    assert len(location.files.ls(f"{location.root}/manifests", detail=False)) == 2
    assert content(location, tmp_path)["new"] == "content 4"


def test_two_pushers_cannot_both_follow_the_same_state(location, tmp_path):
    manifest, sources = write(tmp_path / "in", {"a": "one"})
    location.commit(manifest, sources, None)
    before = location.head()
    location.commit(*write(tmp_path / "in", {"a": "two"}), before)
    with pytest.raises(Conflict, match="somebody else has pushed"):
        location.commit(*write(tmp_path / "in", {"a": "three"}), before)
    assert content(location, tmp_path) == {"a": "two"}


def test_the_number_of_a_state_is_taken_once(location, tmp_path, monkeypatch):
    """Between the look and the write somebody else may be quicker: the write itself must notice."""
    location.commit(*write(tmp_path / "in", {"a": "one"}), None)
    before = location.head()
    numbers = type(location)._numbers
    location.commit(*write(tmp_path / "in", {"a": "two"}), before)
    monkeypatch.setattr(type(location), "head", lambda self: before)
    monkeypatch.setattr(
        type(location), "_numbers", lambda self: [n for n in numbers(self) if n <= int(before.revision)]
    )
    with pytest.raises(Conflict):
        location.commit(*write(tmp_path / "in", {"a": "three"}), before)
    monkeypatch.undo()
    assert content(location, tmp_path) == {"a": "two"}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("../x", "no path inside"),
        ("a/../../x", "no path inside"),
        ("/etc/x", "no path inside"),
        ("a\\..\\x", "no path inside"),
        ("C:/x", "no path inside"),
        ("a//x", "no path inside"),
        ("", "no path inside"),
    ],
)
def test_a_manifest_with_paths_that_lead_out_is_refused(path, told):
    text = Manifest({path: Entry("0" * 64, 1)}).to_text()
    with pytest.raises(RemoteError, match=told):
        Manifest.from_text(text, "place")


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9._-]{0,8}(/[a-z][a-z0-9._-]{0,8}){0,2}", fullmatch=True),
        st.builds(Entry, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.integers(0, 2**50)),
    )
)
def test_a_manifest_reads_back_as_it_was(files):
    manifest = Manifest(files, {"run": "r", "step": 3})
    assert Manifest.from_text(manifest.to_text(), "place") == manifest


def test_a_manifest_of_the_future_is_not_guessed_at():
    with pytest.raises(RemoteError, match="the manifest has format 2"):
        Manifest.from_text('{"format": 2}', "place")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("runs/x", "this is not the URL of a location"),
        ("hf://me", "this is not a model repository"),
        ("hf://datasets/me/x", "this is not a model repository"),
        ("nonsense://me/x", "fsspec cannot open this URL"),
    ],
)
def test_what_is_no_location_is_said(url, told):
    with pytest.raises(UserError, match=told):
        open_location(url)


def test_a_folder_that_may_not_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    location = open_location(f"file://{tmp_path}/file/below")
    with pytest.raises(RemoteError, match="the location cannot be used"):
        location.commit(*write(tmp_path / "in", {"a": "one"}), None)
