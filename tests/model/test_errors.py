"""The error tree: what its drawing says, and the way through pickle."""

from __future__ import annotations

import concurrent.futures
import pickle
import re

import pytest

from flexray import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


def drawn() -> dict[str, tuple[str, str]]:
    """Name -> (parent in the drawing, other base named in it)."""
    tree, path = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"^ {4}((?:│   |    )*(?:├── |└── )?)([A-Z]\w+)(?: \((\w+)\))?\s", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            also = re.search(r"\(also an? ([\w.]+)\)", line)
            tree[match[2]] = (path[depth - 1] if depth else "Exception", match[3] or (also[1] if also else ""))
    return tree


def test_the_drawing_is_the_tree() -> None:
    tree = drawn()
    assert sorted(tree) == sorted(errors.__all__) == errors.__all__
    named = {"ValueError": ValueError, "TimeoutError": TimeoutError, "": Exception}
    named["concurrent.futures.CancelledError"] = concurrent.futures.CancelledError
    for cls in CLASSES:
        parent, other = tree[cls.__name__]
        assert cls.__bases__[0].__name__ == parent and issubclass(cls, named[other])
        assert cls.__doc__


def test_nothing_is_left_out() -> None:
    defined = {n for n, c in vars(errors).items() if isinstance(c, type) and c.__module__ == errors.__name__}
    assert defined == set(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_pickles(cls: type[errors.FlexrayError]) -> None:
    error = cls("what happened")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls and str(back) == "what happened" and back.args == error.args
    assert isinstance(back, errors.FlexrayError)


def test_what_errors_carry_survives() -> None:
    back = pickle.loads(pickle.dumps(errors.Infeasible("no", {"type": 3, "memory": 1})))
    assert back.removed == {"type": 3, "memory": 1}
    assert errors.Infeasible("no").removed == {}
    back = pickle.loads(pickle.dumps(errors.TaskError("boom", "Traceback ...")))
    assert (str(back), back.remote_traceback) == ("boom", "Traceback ...")


@pytest.mark.parametrize(
    ("cls", "also"),
    [
        (errors.WaitTimeout, TimeoutError),
        (errors.TaskTimeout, TimeoutError),
        (errors.Cancelled, concurrent.futures.CancelledError),
        (errors.InvalidRequest, ValueError),
        (errors.UnknownPolicy, errors.UsageError),
    ],
)
def test_caught_as_what_people_know(cls: type[Exception], also: type[Exception]) -> None:
    with pytest.raises(also):
        raise cls("x")
