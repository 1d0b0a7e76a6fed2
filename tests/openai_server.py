"""A small OpenAI-compatible server for tests, which does as it is told: answers, fails, hangs, dies and returns."""

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ports import free_port

from grhpc.engine.probe import PROBE

PAGE = b"<html>Please log in</html>"
DRIP = "drip"  # a byte of the answer every tenth of a second, for a minute
BROKEN = "broken"  # what calls itself JSON and is none
CUT = "cut"  # the connection ends without a word


class Server:
    """`answer(prompt)` is a text, a status with a message (and headers), PAGE, DRIP, BROKEN, CUT, or None
    for silence.

    Counts what it was asked, and apart, as `probes`, how often only whether it is there; `dripped` are bytes. `models`
    is what it says that it serves, `usage` how many tokens an answer took."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer
        self.prompts: list[str] = []
        self.probes = self.dripped = 0
        self.requests: list[dict[str, Any]] = []
        self.models: list[dict[str, Any]] = []
        self.usage: dict[str, int] | None = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.silence = threading.Event()
        self.http: ThreadingHTTPServer | None = None
        self.rise()
        self.port = self.http.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def rise(self, port: int = 0) -> None:
        self.http = _Listener(("127.0.0.1", port or free_port()), _handler(self))
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def die(self) -> None:
        http = self.http  # who dies late must not take the next one along
        self.silence.set()
        http.shutdown()
        http.server_close()

    def respond(self, request: dict[str, Any]) -> Any:
        prompt = request["messages"][0]["content"] if "messages" in request else request["prompt"]
        with self.lock:
            if prompt == PROBE:
                self.probes += 1
            else:
                self.prompts.append(prompt)
                self.requests.append(request)
        told = self.answer(prompt)
        if told is None or told in (PAGE, DRIP, BROKEN, CUT):
            return told
        if isinstance(told, tuple):
            return told[0], {"error": {"message": told[1]}}, *told[2:]
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if "messages" in request:
            choice["message"] = {"role": "assistant", "content": told}
        else:
            choice["text"] = told
        told = {"id": "x", "object": "o", "created": 0, "model": "m", "choices": [choice]}
        return 200, told if self.usage is None else {**told, "usage": self.usage}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # with the usual 5, clients that come at once are reset


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": server.models})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.keys.add(self.headers["Authorization"])
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                told = server.respond(request)
            finally:
                with server.lock:
                    server.at_once -= 1
            if told is None:
                server.silence.wait(30)
                return
            if told is PAGE:
                self._send_data(200, PAGE, "text/html")
            elif told == BROKEN:
                self._send_data(200, b'{"choices": [', "application/json")
            elif told == CUT:
                self.close_connection = True
            elif told == DRIP:
                self._drip()
            else:
                self._send(*told)

        def _drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "600")
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(600):
                    self.wfile.write(b" ")
                    server.dripped += 1
                    if server.silence.wait(0.1):
                        return

        def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            self._send_data(status, json.dumps(body).encode(), "application/json", headers)

        def _send_data(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
