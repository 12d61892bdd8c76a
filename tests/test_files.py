"""Output files: written completely or not at all."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.files import check_folder, check_output, make_folder, write_atomic

LARGE = 1 << 20


def in_child(work: Any) -> int:
    """Run in a process that may not write files of more than half of `LARGE`; its status as of `os.waitpid`."""
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
            resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE // 2, LARGE // 2))
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def test_a_process_that_dies_while_it_writes_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, b"old")
    status = in_child(lambda: write_atomic(path, b"x" * LARGE))
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ
    assert path.read_bytes() == b"old"


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, b"old")

    def fail() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            write_atomic(path, b"x" * LARGE, UsageError)
        except UsageError as error:
            (tmp_path / "message").write_text(str(error))

    assert in_child(fail) == 0
    assert (tmp_path / "message").read_text() == f"{path}: cannot be written: File too large."
    assert path.read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} == {"result.json", "message"}


def test_readers_see_the_old_or_the_new_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([number]) * LARGE for number in range(2)]
    write_atomic(path, contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(40):
            write_atomic(path, contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = [path.read_bytes() in contents]
    while not done.is_set():
        seen.append(path.read_bytes() in contents)
    writer.join()
    assert all(seen)
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power failure, a name must not lead to an empty file: content, name, folder, in this order."""
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def record_sync(file: int) -> None:
        calls.append(f"sync {Path(os.readlink(f'/proc/self/fd/{file}')).relative_to(tmp_path).name or 'folder'}")
        sync(file)

    def record_replace(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"new"
        calls.append(f"replace {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_replace)
    write_atomic(tmp_path / "file", b"new")
    assert calls == [f"sync .file.{os.getpid()}", "replace file", "sync folder"]


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there/file: cannot be written: No such file or directory\.$"):
        write_atomic(tmp_path / "there" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"folder: cannot be written: Is a directory\.$"):
        write_atomic(tmp_path / "folder", b"", UsageError)
    assert os.listdir(tmp_path) == ["folder"]


def test_outputs_are_checked_before_they_are_computed(tmp_path: Path) -> None:
    check_output(tmp_path / "new")
    with pytest.raises(UsageError, match=r"is a folder\. Give the name of a file\."):
        check_output(tmp_path)
    with pytest.raises(UsageError, match=r"the folder '.*there' of 'file' does not exist"):
        check_output(tmp_path / "there" / "file")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir() and make_folder(tmp_path / "a" / "b").is_dir()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunError, match=r"file is a file; give a folder\.$"):
        check_folder(file)
    with pytest.raises(RunError, match=r"file/a/b: this folder cannot be created: .*file is a file\.$"):
        make_folder(file / "a" / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "file"]
