"""A SQLite store on a network file system is refused: its write-ahead log would get damaged there."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.errors import UserError
from clew.store import open_store
from clew.store.filesystems import file_system, is_network

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /home rw shared:2 master:1 - nfs4 server:/home rw,vers=4.2
23 22 0:21 / /home/ann/my\\040disk rw - btrfs /dev/sdb1 rw
24 21 0:22 / /mnt/s rw - fuse.sshfs me@host:/ rw
25 21 0:23 / /mnt/w rw - fuseblk /dev/sdc1 rw
26 21 0:24 / /mnt/over rw - nfs a:/ rw
27 26 0:25 / /mnt/over rw - xfs /dev/sdd1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/var/x", "ext4", False),
        ("/home/ann/runs/.clew", "nfs4", True),
        ("/homestead", "ext4", False),
        ("/home/ann/my disk/x", "btrfs", False),
        ("/mnt/s/x", "fuse.sshfs", True),
        ("/mnt/w/x", "fuseblk", False),
        ("/mnt/over/x", "xfs", False),
    ],
)
def test_the_nearest_mount_above_a_path_decides(path, kind, network):
    assert file_system(Path(path), MOUNTS) == kind
    assert is_network(kind) == network


@pytest.mark.parametrize(
    "kind", ["nfs", "cifs", "smb3", "lustre", "gpfs", "9p", "beegfs", "fuse.glusterfs", "fuse.s3fs"]
)
def test_network_file_systems_are_known(kind):
    assert is_network(kind)


def test_the_kernel_is_asked_and_a_link_is_followed(tmp_path):
    kind = file_system(tmp_path)
    assert kind == file_system(tmp_path / "not/there/yet")
    assert not is_network(kind)
    (tmp_path / "link").symlink_to("/proc")
    assert file_system(tmp_path / "link/x") == "proc"


def test_a_store_on_a_network_file_system_is_refused_with_what_to_do(workspace, tmp_path):
    def kind_of(path: Path) -> str:
        return "nfs4" if path.is_relative_to(tmp_path) else "ext4"

    with pytest.raises(UserError) as caught:
        open_store(workspace, kind_of=kind_of)
    assert str(caught.value) == (
        f"{tmp_path}/.clew/store.sqlite: the store would lie on a network file system (nfs4), where SQLite's "
        "write-ahead log gets damaged\n"
        "  name a file on a local disk, or a PostgreSQL server, with --store URL or CLEW_STORE; runs may stay"
    )
    assert not (tmp_path / ".clew").exists()
    open_store(workspace, "sqlite:////local/store.sqlite", kind_of=kind_of)
    open_store(workspace, "postgresql://me@host/db", kind_of=kind_of)
