"""Files written whole or not at all: the old one is intact after any failure, at any moment."""

import os
import sys
from pathlib import Path

import pytest

from concordax import files
from concordax.errors import UsageError
from concordax.files import check_writable, replace_atomically


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
def test_a_failure_at_any_moment_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(OSError, match="No space"), replace_atomically(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def interrupted():
        with replace_atomically(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_the_file_is_complete_before_it_gets_its_name(tmp_path, monkeypatch):
    path, seen, replace = tmp_path / "f", [], os.replace
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: seen.append(os.fstat(descriptor).st_size))

    def spy(source, target):
        seen.append((Path(source).read_bytes(), Path(source).parent, path.exists()))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", spy)
    with replace_atomically(path) as file:
        file.write(b"new")
    assert seen[:2] == [len(b"new"), (b"new", tmp_path, False)]
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")
def test_mode_and_link_are_kept(tmp_path):
    plain, link = tmp_path / "plain", tmp_path / "link"
    previous = os.umask(0o027)
    try:
        with replace_atomically(plain):
            pass
    finally:
        os.umask(previous)
    assert plain.stat().st_mode & 0o777 == 0o640
    plain.chmod(0o604)
    link.symlink_to(plain)
    with replace_atomically(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert plain.read_bytes() == b"new"
    assert plain.stat().st_mode & 0o777 == 0o604


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_device_or_pipe_is_never_replaced(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(UsageError, match="device or a pipe"):
            check_writable(path)
        with pytest.raises(UsageError, match="device or a pipe"), replace_atomically(path) as file:
            file.write(b"new")
    assert pipe.is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_a_path_that_cannot_be_written_is_refused_early(tmp_path, monkeypatch):
    check_writable(tmp_path / "new.cx")
    with pytest.raises(UsageError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(UsageError, match="create it first"):
        check_writable(tmp_path / "none" / "model.cx")
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be written to"):
        check_writable(tmp_path / "new.cx")
