"""A batch job: a script that runs unchanged here and as a Ray job, with a module of its own beside it.

    python job_batch.py [--items 40]                                          # here, on a local Ray
    ray job submit --working-dir examples -- python job_batch.py --items 40   # on a cluster

``flex.init()`` joins the pool that runs on the cluster, or starts one. ``job_steps`` is
imported on the slices too: a job's working directory goes where its tasks go.
"""

from __future__ import annotations

import argparse
import time

import job_steps

import flexray as flex


@flex.task(accelerator=0.25, retries=3, timeout=60)
def work(number: int, rounds: int) -> tuple[str, float, str]:
    """One item; a slice or node that dies costs a retry, not the job."""
    value, seconds = job_steps.timed_digest(number, rounds)
    return value, seconds, flex.current().device.id


def main() -> None:
    parser = argparse.ArgumentParser(description="Hash numbers on slices of the pool.")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=20_000, help="work per item")
    options = parser.parse_args()

    flex.init()
    began = time.perf_counter()
    futures = [work.remote(number, options.rounds) for number in range(options.items)]
    for count, _ in enumerate(flex.as_completed(futures), start=1):
        if count % 10 == 0:
            print(f"{count} of {options.items} done", flush=True)
    results = flex.get(futures)
    seconds = time.perf_counter() - began

    assert results[0][0] == job_steps.digest(0, options.rounds), "the slices computed something else"
    devices = sorted({device.rsplit("/", 1)[-1] for _, _, device in results})
    print(f"first digest {results[0][0][:16]}, last {results[-1][0][:16]}")
    busy = sum(spent for _, spent, _ in results)
    print(f"{len(results)} items on {', '.join(devices)}: {busy:.1f} s of work in {seconds:.1f} s")
    flex.shutdown()


if __name__ == "__main__":
    main()
