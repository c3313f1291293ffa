"""A PyTorch model behind HTTP with Ray Serve: replicas on a quarter of a device each, which run requests in batches.

    python serve_torch.py [--port 8000]           # prints its URL; Ctrl-C ends it
    python serve_torch.py --self-test 200         # sends itself 200 requests, some at a time, and ends

    curl -d '{"pixels": [0, 0, ..., 0.9, 0]}' http://127.0.0.1:8000      # 64 numbers in [0, 1]
    {"digit": 3, "sure": 0.98}

Needs torch, scikit-learn and Ray Serve: pip install "flexray-runtime[examples]"
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import digits
import numpy as np
from ray import serve
from starlette.responses import JSONResponse

import flexray as flex

train = flex.task(accelerator=0.25)(digits.train)


@flex.serving.deployment(accelerator=0.25, num_replicas=2, max_ongoing_requests=32)
class Classifier:
    """The model: loaded once, in the constructor, it stays on its slice."""

    def __init__(self, weights: bytes) -> None:
        self.device = flex.current().torch_device
        self.model = digits.model(weights, self.device)

    @flex.serving.batch(max_size=16, wait_seconds=0.005)
    async def __call__(self, requests: list[Any]) -> list[Any]:
        """Requests that come together go through the network together; what is wrong with one is its own matter."""
        images, wrong = [], {}
        for number, request in enumerate(requests):
            try:
                images.append(np.array((await request.json())["pixels"], dtype=np.float32).reshape(64))
            except (ValueError, TypeError, KeyError) as error:
                images.append(np.zeros(64, dtype=np.float32))
                wrong[number] = JSONResponse({"error": f"send 64 pixels: {error}"}, status_code=400)
        found, sure = digits.classify(self.model, np.stack(images), self.device)
        about = {"batch": len(requests), "slice": flex.current().slice}
        answers = [{"digit": int(d), "sure": round(float(s), 4), **about} for d, s in zip(found, sure, strict=True)]
        return [wrong.get(number, answer) for number, answer in enumerate(answers)]


def self_test(url: str, count: int) -> None:
    """Send test images, 32 requests at a time."""
    images, labels = (part[-count:] for part in digits.data())

    def ask(image: np.ndarray) -> tuple[dict[str, Any], float]:
        began = time.perf_counter()
        with urllib.request.urlopen(url, json.dumps({"pixels": image.tolist()}).encode(), timeout=30) as response:
            return json.load(response), 1000 * (time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(32) as threads:
        answers, times = zip(*threads.map(ask, images), strict=True)
    seconds = time.perf_counter() - began
    right = sum(answer["digit"] == label for answer, label in zip(answers, labels, strict=True))
    print(f"{right} of {count} right, {count / seconds:.0f} requests/s, p50 {np.median(times):.0f} ms")
    shared = collections.Counter(answer["slice"] for answer in answers)
    batches = np.mean([answer["batch"] for answer in answers])
    print(f"on {len(shared)} slices ({', '.join(map(str, shared.values()))} requests), {batches:.1f} to a batch")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a digit classifier over HTTP from slices of the pool.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--self-test", type=int, default=0, metavar="N", help="send N requests and end")
    options = parser.parse_args()

    flex.init()
    with socket.socket() as free:
        free.bind(("127.0.0.1", options.port))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    serve.run(Classifier.bind(train.remote().result()))
    print(f"serving at http://127.0.0.1:{port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        self_test(f"http://127.0.0.1:{port}", options.self_test) if options.self_test else threading.Event().wait()
    serve.shutdown()
    flex.shutdown()


if __name__ == "__main__":
    main()
