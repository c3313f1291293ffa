"""A double of vLLM's server, of the standard library: it understands its flags, and answers at once.

    python openai_engine.py --model M --served-model-name NAME --uds PATH [any flags of vLLM's]

A completion says the flags it was started with, one word an event when it streams. A prompt of "die" kills it in the
middle of its answer, "sick" makes it say that it is ill from then on, "slow" takes a tenth of a second a word.
``--start-seconds S`` has it start so slowly, ``--fails`` not at all; ``--child`` has it start a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    sick = False
    name = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None: ...

    def address_string(self) -> str:
        return "engine"

    def do_GET(self) -> None:
        self._whole(500 if self.server.sick else 200, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = asked.get("prompt") or asked["messages"][-1]["content"]
        if prompt == "sick":
            self.server.sick = True
        elif prompt == "wrong":
            return self._whole(400, {"error": {"message": "wrong", "code": 400}})
        words = sys.argv[1:]
        chat = self.path.endswith("/chat/completions")
        pause = 0.1 if prompt == "slow" else 0.0
        if asked.get("stream"):
            return self._events(words, prompt, pause, chat)
        time.sleep(pause)
        if prompt == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        text = " ".join(words)
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice |= {"index": 0, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": len(words), "total_tokens": 1 + len(words)}
        return self._whole(200, {"id": "x", "model": self.server.name, "choices": [choice], "usage": usage})

    def _whole(self, status: int, answer: object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _events(self, words: list[str], prompt: str, pause: float, chat: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for word in words:
            choice = {"delta": {"content": f"{word} "}} if chat else {"text": f"{word} "}
            self._chunk({"id": "x", "model": self.server.name, "choices": [{"index": 0, **choice}]})
            if prompt == "die":
                time.sleep(0.2)  # the word is on its way
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(pause)
        self._send(b"data: [DONE]\n\n")
        self._send(b"")

    def _chunk(self, event: object) -> None:
        self._send(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--start-seconds", type=float, default=0.0)
    parser.add_argument("--fails", action="store_true")
    parser.add_argument("--child", action="store_true")
    options, _ = parser.parse_known_args()
    if options.child:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if options.fails:
        sys.exit("there is no such model")
    time.sleep(options.start_seconds)
    Path(options.uds).unlink(missing_ok=True)
    with Server(options.uds, Handler) as server:
        server.name = options.served_model_name
        server.serve_forever()


if __name__ == "__main__":
    main()
