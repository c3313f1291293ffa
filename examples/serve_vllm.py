r"""Language models behind OpenAI's protocol: vLLM engines side by side on parts of devices, or on several devices.

    python serve_vllm.py small=/models/qwen-0.5b@0.25 large=/models/llama-3-8b@0.75 --port 8000 -- --max-model-len 4096

    curl http://127.0.0.1:8000/v1/completions -H 'content-type: application/json' \
         -d '{"model": "small", "prompt": "Slices are", "max_tokens": 32, "stream": true}'
    curl http://127.0.0.1:8000              # the engines: where they are, how often they were started

A model is NAME=MODEL@PART: a folder or a name of Hugging Face's, and a part of a device; ``@2`` is two whole devices of
a node, over which vLLM spreads it. ``*3`` behind the part makes three engines of it. What follows ``--`` is for vLLM.

Each engine's memory, cache and threads are worked out from its slice, on GPUs and, with vLLM's build for CPUs, on CPU
stand-ins. An engine that dies is started again where it was, while the others go on; one whose slice is lost comes
up on another. ``--engine "/venv/bin/python -m vllm.entrypoints.openai.api_server"`` takes vLLM from elsewhere.

Needs vLLM and Ray Serve: pip install vllm "flexray-runtime[serve]"
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import socket
import sys
import threading

from ray import serve

import flexray as flex


def declared(text: str, options: argparse.Namespace) -> flex.serving.EngineModel:
    """The model that a word of the command line describes."""
    name, _, rest = text.partition("=")
    model, _, size = rest.rpartition("@")
    part, _, engines = size.partition("*")
    more = {"command": shlex.split(options.engine)} if options.engine else {}
    return flex.serving.vllm(
        name,
        model,
        arguments=options.arguments,
        replicas=int(engines or 1),
        accelerator=float(part) if float(part) < 1 else int(part),
        memory=options.memory,
        **more,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve language models with vLLM on slices of the pool.")
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL@PART", help="such as small=/models/qwen@0.25")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--memory", help="of each device, for each engine; default: the same part as of its compute")
    parser.add_argument("--engine", help="what starts the engine instead of this Python's vLLM")
    own, _, for_vllm = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    options = parser.parse_args(shlex.split(own), argparse.Namespace(arguments=shlex.split(for_vllm)))

    flex.init()
    with socket.socket() as free:
        free.bind(("127.0.0.1", options.port))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
    serve.run(flex.serving.openai(*(declared(text, options) for text in options.models)))
    print(f"serving at http://127.0.0.1:{port}/v1", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    serve.shutdown()
    flex.shutdown()


if __name__ == "__main__":
    main()
