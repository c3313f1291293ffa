"""What users get wrong: each is an error of flexray's, says what to do, and leaves the pool working."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import flexray as flex
from flexray import errors
from runtime.sample import add, echo

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]
WAIT = 60

OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"gpu": 0}, errors.InvalidRequest, "above 0"),
    ({"gpu": -1}, errors.InvalidRequest, "above 0"),
    ({"gpu": float("nan")}, errors.InvalidRequest, "finite"),
    ({"gpu": float("inf")}, errors.InvalidRequest, "finite"),
    ({"gpu": 1.5}, errors.InvalidRequest, "ask for gpu=2"),
    ({"gpu": 0.0001}, errors.InvalidRequest, "smallest share"),
    ({"gpu": "0.5"}, errors.InvalidRequest, "must be a number"),
    ({"gpu": True}, errors.InvalidRequest, "must be a number"),
    ({"gpu": None}, errors.InvalidRequest, "say how much"),
    ({}, errors.InvalidRequest, "say how much"),
    ({"gpu": (0.5, 0.25)}, errors.InvalidRequest, "burst"),
    ({"gpu": (0.1, 0.2, 0.3)}, errors.InvalidRequest, "pair"),
    ({"gpu": 0.5, "npu": 0.5}, errors.InvalidRequest, "one of gpu="),
    ({"gpu": 0.5, "memory": "4 gigs"}, errors.InvalidRequest, '"4GiB"'),
    ({"gpu": 0.5, "memory": "-1GiB"}, errors.InvalidRequest, "positive"),
    ({"gpu": 0.5, "memory": 0}, errors.InvalidRequest, "less than 1 MiB"),
    ({"gpu": 0.5, "types": 7}, errors.InvalidRequest, "types="),
    ({"gpu": 0.5, "queue": 7}, errors.InvalidRequest, "name of a queue"),
    ({"gpu": 0.5, "priority": 1.5}, errors.InvalidRequest, "whole number"),
    ({"gpu": 0.5, "retries": -1}, errors.InvalidRequest, "0 or more"),
    ({"gpu": 0.5, "timeout": 0}, errors.InvalidRequest, "above 0"),
    ({"gpu": 0.5, "runtime": -1}, errors.InvalidRequest, "above 0"),
    ({"gpu": 0.5, "cpus": -1}, errors.InvalidRequest, "negative"),
    ({"gpu": 0.5, "memry": "1GiB"}, errors.InvalidRequest, "mean 'memory'"),
    ({"gpu": 0.5, "request": "half"}, errors.InvalidRequest, r"flex\.Request"),
]


@pytest.mark.parametrize(("options", "error", "says"), OPTIONS, ids=lambda value: str(value)[:40])
def test_a_wrong_option_fails_at_once(options: dict[str, Any], error: type[Exception], says: str) -> None:
    for decorate in (flex.task, flex.actor):
        with pytest.raises(error, match=says) as info:
            decorate(**options)
        assert isinstance(info.value, errors.FlexrayError) and isinstance(info.value, ValueError)
    if options and "gpu" in options and options["gpu"] is not None:
        with pytest.raises(error, match=says):
            echo.options(**options)


def one() -> int:
    return 1


IMPOSSIBLE: list[tuple[dict[str, Any], type[Exception], str, dict[str, int]]] = [
    ({"gpu": 0.5, "memory": "900GiB"}, errors.Infeasible, "memory", {"memory": 2}),
    ({"gpu": 0.5, "types": "nvidia/*"}, errors.Infeasible, "type", {"type": 2}),
    ({"gpu": 3}, errors.Infeasible, "count", {"count": 2}),
    ({"gpu": 0.5, "cpus": 10_000}, errors.Infeasible, "cpus", {"cpus": 2}),
    ({"gpu": 0.5, "queue": "prod"}, errors.UnknownQueue, "'prod'.*default", {}),
]


@pytest.mark.parametrize(("options", "error", "says", "removed"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_what_this_pool_can_never_do_fails_the_future(
    options: dict[str, Any], error: type[Exception], says: str, removed: dict[str, int]
) -> None:
    futures = [flex.task(**options)(one).remote() for _ in range(3)]
    for future in futures:
        with pytest.raises(error, match=says) as info:
            future.result(WAIT)
        assert isinstance(info.value, errors.FlexrayError)
        if removed:
            assert info.value.removed == removed
    assert echo.remote("still works").result(WAIT) == "still works"


def test_an_impossible_actor_fails_its_calls() -> None:
    @flex.actor(gpu=0.5, types="nvidia/*")
    class Never:
        def f(self) -> int:
            return 1

    actor = Never.remote()
    with pytest.raises(errors.Infeasible):
        actor.f.remote().result(WAIT)


def test_a_function_that_cannot_be_pickled() -> None:
    lock = threading.Lock()

    @flex.task(gpu=0.25)
    def locked() -> None:
        with lock:
            pass

    for _ in range(2):
        with pytest.raises(errors.NotSerializable, match=r"locked.*inside the function") as info:
            locked.remote()
        assert info.value.__cause__ is not None
    assert echo.remote(1).result(WAIT) == 1


def test_a_class_that_cannot_be_pickled() -> None:
    lock = threading.Lock()

    @flex.actor(gpu=0.25)
    class Locked:
        held = lock

    with pytest.raises(errors.NotSerializable, match="Locked"):
        Locked.remote()


def test_an_argument_that_cannot_be_pickled() -> None:
    for arguments in ((threading.Lock(), 1), (1, [threading.Lock()])):
        with pytest.raises(errors.NotSerializable, match=r"argument of add.*lock"):
            add.remote(*arguments)
    with pytest.raises(errors.NotSerializable):
        list(add.stream(threading.Lock(), 1))
    assert add.remote(1, 2).result(WAIT) == 3


def test_wrong_arguments_are_the_tasks_own_error() -> None:
    with pytest.raises(TypeError, match="missing"):
        add.remote(1).result(WAIT)


@pytest.mark.parametrize("wrong", [7, "text", b"bytes", None, object()], ids=lambda x: type(x).__name__)
def test_get_refuses_what_is_not_a_future(wrong: Any) -> None:
    with pytest.raises(errors.UsageError, match=type(wrong).__name__):
        flex.get(wrong)
    with pytest.raises(errors.UsageError, match=type(wrong).__name__):
        flex.get([echo.remote(1), wrong])


def test_get_of_a_ray_reference_names_ray_get() -> None:
    import ray

    with pytest.raises(errors.UsageError, match=r"ray\.get"):
        flex.get(ray.put(1))


def test_get_of_nothing() -> None:
    assert flex.get([]) == []
    assert list(flex.as_completed([])) == []


def test_a_second_init_checks_that_it_asks_for_the_same(pool: str) -> None:
    flex.init()
    flex.init(pool)
    flex.init(config={"cpu_devices": 2, "linger_seconds": 0.02, "grace_seconds": 0.5})
    with pytest.raises(errors.ConfigMismatch, match=r"cpu_devices: the pool has 2, asked for 7"):
        flex.init(config={"cpu_devices": 7, "linger_seconds": 0.02, "grace_seconds": 0.5})
    with pytest.raises(errors.UsageError, match=r"flex\.shutdown"):
        flex.init("10.0.0.1:6379")
    assert echo.remote(1).result(WAIT) == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"cpu_device": 1}, "cpu_device.*Known fields: .*cpu_devices"),
        ({"cpu_devices": -1}, "cpu_devices"),
        ({"policy": 7}, "policy"),
        ("/no/such/file.json", "cannot read"),
    ],
    ids=["unknown", "negative", "type", "file"],
)
def test_a_wrong_configuration(config: Any, says: str) -> None:
    with pytest.raises(errors.UsageError, match=says):
        flex.init(config=config)


def test_the_first_call_connects_and_shutdown_is_final_until_init(script: Callable[..., Any]) -> None:
    done = script(
        """
        import flexray as flex

        @flex.task(gpu=0.25)
        def f(x):
            return x + 1

        def outcome(use):
            try:
                return use()
            except flex.errors.FlexrayError as error:
                return type(error).__name__, "flex.init" in str(error)

        print(f.remote(1).result(60))
        unfinished = f.remote(f.remote(2))
        flex.shutdown()
        flex.shutdown()
        print(outcome(lambda: f.remote(1)), outcome(flex.pool))
        print(unfinished.done(), type(unfinished.exception(5)).__name__ in ("NotConnected", "NoneType"))
        flex.init()
        print(f.remote(3).result(60))
        """
    )
    expected = ["2", "('NotConnected', True) ('NotConnected', True)", "True True", "4"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_shutdown_does_not_end_a_ray_that_the_user_started(script: Callable[..., Any]) -> None:
    done = script(
        """
        import ray
        import flexray as flex

        ray.init()
        flex.init()
        flex.shutdown()
        print(ray.is_initialized(), ray.get(ray.put(5)))
        """
    )
    assert done.stdout.splitlines()[-1:] == ["True 5"], done.stderr


def test_addresses_that_do_not_work(script: Callable[..., Any]) -> None:
    done = script(
        """
        import time
        import flexray as flex

        for address in ("127.0.0.1:1", "ray://127.0.0.1:10001", "127.0.0.1:http"):
            began = time.monotonic()
            try:
                flex.init(address=address)
            except flex.errors.FlexrayError as error:
                print(type(error).__name__, time.monotonic() - began < 20)
        """
    )
    expected = ["ClusterUnreachable True", "UsageError True", "UsageError True"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_a_script_that_ends_with_unfinished_tasks_ends(script: Callable[..., Any]) -> None:
    done = script(
        """
        import time
        import flexray as flex

        @flex.task(gpu=1)
        def nap():
            time.sleep(600)

        futures = [nap.remote() for _ in range(20)]
        flex.wait(futures, timeout=1.0)
        print("end")
        """
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, ["end"]), done.stderr
