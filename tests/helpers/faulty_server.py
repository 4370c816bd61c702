"""A real HTTP server of a folder, with ranges, a key, and faults on demand."""

import contextlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def serve(folder: Path):
    """
    Serve a folder on a free port of this machine.

    Yields a server with ``url``, ``requests`` (name and range of each) and ``faults``, a list whose next entry befalls
    the next request: a status code, 'drop' (breaks off halfway), 'slow', 'wrong bytes', 'no ranges', 'page', 'packed',
    ('to', address) or None.
    An address that carries a key (``?key=...``) is answered 401 unless the key is 'secret'.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name, key = re.match(r"/([^?]+)(?:\?key=(.*))?$", self.path).groups()
            self.server.requests.append((name, self.headers.get("Range")))
            fault = self.server.faults.pop(0) if self.server.faults else None
            path = folder / name
            if key is not None and key != "secret":
                self.send_error(401)
            elif isinstance(fault, tuple):
                self.send_response(302)
                self.send_header("Location", fault[1])
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif isinstance(fault, int):
                self.send_error(fault)
            elif not path.exists():
                self.send_error(404)
            else:
                self.send(path.read_bytes(), fault)

        def do_HEAD(self):
            path = folder / self.path.strip("/")
            self.send_response(200 if path.exists() else 404)
            self.send_header("Content-Length", str(path.stat().st_size if path.exists() else 0))
            self.end_headers()

        def send(self, data, fault):
            if fault == "wrong bytes":
                data = data[:10] + bytes(10) + data[20:]
            start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-")).group(1))
            start = 0 if fault == "no ranges" else start
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Type", "text/html" if fault == "page" else "application/octet-stream")
            if fault == "packed":
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            stop = (start + len(data)) // 2 if fault == "drop" else len(data)
            with contextlib.suppress(ConnectionError):
                for place in range(start, stop, 20_000 if fault == "slow" else len(data)):
                    self.wfile.write(data[place : min(stop, place + 20_000) if fault == "slow" else stop])
                    time.sleep(0.02 * (fault == "slow"))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.faults = [], []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
