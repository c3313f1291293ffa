"""A PyTorch model behind an HTTP endpoint: an actor on a quarter of a device holds the model, plain Python serves.

    python serve_torch.py [--port 8000]           # prints its URL; Ctrl-C ends it
    python serve_torch.py --self-test 20          # sends itself 20 requests and ends

    curl -d '{"pixels": [0, 0, ..., 0.9, 0]}' http://127.0.0.1:8000      # 64 numbers in [0, 1]
    {"digit": 3, "sure": 0.98}

Needs torch and scikit-learn: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import digits
import numpy as np

import flexray as flex

train = flex.task(accelerator=0.25)(digits.train)


@flex.actor(accelerator=0.25)
class Classifier:
    """The model: loaded once, in the constructor, it stays on its slice."""

    def __init__(self, weights: bytes) -> None:
        self.device = flex.current().torch_device
        self.model = digits.model(weights, self.device)

    def classify(self, pixels: list[float]) -> dict[str, Any]:
        found, sure = digits.classify(self.model, np.array([pixels], dtype=np.float32), self.device)
        return {"digit": int(found[0]), "sure": round(float(sure[0]), 4)}


def handler(classifier: Any) -> type[BaseHTTPRequestHandler]:
    """Each request has a thread of its own, which waits for the actor's answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                pixels = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["pixels"]
                status, answer = 200, classifier.classify.remote(pixels).result(timeout=30)
            except (ValueError, TypeError, KeyError, RuntimeError) as error:  # what is wrong with the input
                status, answer = 400, {"error": str(error).partition("\n")[0]}
            except flex.errors.FlexrayError as error:
                status, answer = 503, {"error": str(error).partition("\n")[0]}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing per request."""

    return Handler


def self_test(url: str, count: int) -> None:
    """Send test images, one request each."""
    images, labels = (part[-count:] for part in digits.data())
    began, right = time.perf_counter(), 0
    for image, label in zip(images, labels, strict=True):
        with urllib.request.urlopen(url, json.dumps({"pixels": image.tolist()}).encode(), timeout=30) as response:
            right += json.load(response)["digit"] == label
    print(f"{right} of {count} right, {1000 * (time.perf_counter() - began) / count:.1f} ms per request")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a digit classifier over HTTP from a slice of the pool.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--self-test", type=int, default=0, metavar="N", help="send N requests and end")
    options = parser.parse_args()

    flex.init()
    classifier = Classifier.remote(train.remote())  # a Future as an argument: resolved before the constructor runs
    classifier.classify.remote([0.0] * 64).result()  # the model is there, and warm
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler(classifier)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"serving at {url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            self_test(url, options.self_test) if options.self_test else threading.Event().wait()
        server.shutdown()
    flex.shutdown()


if __name__ == "__main__":
    main()
