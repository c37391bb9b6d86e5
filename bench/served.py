"""Ranges of the files of a folder over HTTP, as an object store serves them: `python -m bench.served FOLDER`.

Prints the port. Requests are answered by a thread each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of ``folder`` on a server of this machine, a process of its own."""
    command = [sys.executable, "-m", "bench.served", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


class _Ranges(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = (int(place) for place in self.headers["Range"].removeprefix("bytes=").split("-"))
        with Path(self.translate_path(self.path)).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            last = min(last, size - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            self.wfile.flush()
            sent = first
            while sent <= last:
                sent += os.sendfile(self.connection.fileno(), file.fileno(), sent, last + 1 - sent)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=sys.argv[1]))
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
