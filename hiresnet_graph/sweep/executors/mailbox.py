"""Messages between processes that share nothing but a file system.

A mailbox is a file with one writer at a time; readers remember how far they have read. Network file systems show the
current content of a file to those who open it, whereas they may show an old listing of a folder for a minute.
"""

from __future__ import annotations

import base64
import os
import pickle
import zlib
from pathlib import Path


class Mailbox:
    """A file of messages, one a line: checksum, and the pickled message in base 64.

    Args:
        path: The file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def write(self, message: object) -> None:
        """Append a message. The line break before it ends a line that a killed writer has left incomplete.

        Raises:
            OSError: The file cannot be written.
        """
        content = pickle.dumps(message)
        line = b"\n%08x %s\n" % (zlib.crc32(content), base64.b64encode(content))
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[object]:
        """The messages since the last call; incomplete ones are skipped, and empty if there is no file.

        Raises:
            OSError: The file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1  # the last line may still be written
        self._offset += end
        return [message for line in content[:end].splitlines() for message in _parse(line)]


def _parse(line: bytes) -> list[object]:
    checksum, _, text = line.partition(b" ")
    try:
        content = base64.b64decode(text, validate=True)
        return [pickle.loads(content)] if int(checksum, 16) == zlib.crc32(content) else []
    except ValueError:
        return []
