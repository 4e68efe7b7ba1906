import errno
import os

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.checkpoints import hashing
from clew.checkpoints.hashing import bytes_hash, file_hash


@settings(deadline=None)
@given(content=st.binary(max_size=300), window=st.sampled_from([1, 2]))
def test_a_files_hash_is_that_of_its_content_however_it_is_read(tmp_path_factory, content, window):
    content *= window * 200
    path = tmp_path_factory.mktemp("x") / "x"
    path.write_bytes(content)
    assert file_hash(path) == bytes_hash(content) == xxhash.xxh3_128(content).hexdigest()


@pytest.mark.parametrize("extra", [-1, 0, 1, 4097])
def test_a_large_file_is_hashed_where_it_lies(tmp_path, monkeypatch, extra):
    monkeypatch.setattr(hashing, "_WINDOW_BYTES", 1 << 16)
    content = os.urandom((1 << 17) + extra)
    (tmp_path / "x").write_bytes(content)
    assert file_hash(tmp_path / "x") == bytes_hash(content)


@pytest.mark.parametrize("known", [True, False])
def test_a_page_that_cannot_be_read_is_an_error_and_a_system_without_that_question_reads(tmp_path, monkeypatch, known):
    class Pages(hashing.mmap.mmap):
        def madvise(self, *args):
            raise OSError(errno.EFAULT if known else errno.EINVAL, "")

    monkeypatch.setattr(hashing, "_WINDOW_BYTES", 1 << 16)
    monkeypatch.setattr(hashing.mmap, "mmap", Pages)
    content = os.urandom(1 << 17)
    (tmp_path / "x").write_bytes(content)
    if not known:
        assert file_hash(tmp_path / "x") == bytes_hash(content)
        return
    with pytest.raises(OSError, match="Input/output error") as caught:
        file_hash(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")
