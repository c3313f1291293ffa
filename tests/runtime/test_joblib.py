"""joblib and scikit-learn on slices."""

from __future__ import annotations

import os
import time

import pytest

import flexray as flex
from flexray.errors import InvalidRequest

joblib = pytest.importorskip("joblib")
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("pool")]


@pytest.fixture(autouse=True)
def backend() -> None:
    import flexray.joblib

    flexray.joblib.register()


def busy(seconds: float) -> tuple[float, float, int]:
    begun = time.time()
    time.sleep(seconds)
    return begun, time.time(), os.getpid()


def share_of(number: int) -> float:
    if number == 3:
        raise ValueError("three is out of the question")
    return flex.current().share


def nested(number: int) -> list[int]:
    return joblib.Parallel(n_jobs=-1)(joblib.delayed(pow)(number, n) for n in range(3))


def test_so_many_run_at_a_time_as_n_jobs_says_and_results_are_in_order() -> None:
    with joblib.parallel_backend("flexray", accelerator=0.25):
        assert joblib.Parallel(n_jobs=-1)(joblib.delayed(pow)(n, 2) for n in range(50)) == [n * n for n in range(50)]
        runs = joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(busy)(0.1) for _ in range(8))
        assert joblib.Parallel()(joblib.delayed(nested)(n) for n in (2, 3)) == [[1, 2, 4], [1, 3, 9]]
        assert joblib.effective_n_jobs(-1) == 8 and joblib.effective_n_jobs(-2) == 7
    at_once = max(sum(begun <= at < ended for begun, ended, _ in runs) for at, _, _ in runs)
    assert at_once <= 2 and os.getpid() not in {pid for _, _, pid in runs}


def test_what_fails_ends_the_call_and_the_next_one_works() -> None:
    with joblib.parallel_backend("flexray", accelerator=0.25, memory="300MiB"):
        with pytest.raises(ValueError, match="out of the question"):
            joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(share_of)(n) for n in range(20))
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(share_of)(n) for n in (0, 1)) == [0.25, 0.25]
        with pytest.raises(InvalidRequest, match="n_jobs=0"):
            joblib.Parallel(n_jobs=0)(joblib.delayed(share_of)(n) for n in (0, 1))


def test_a_grid_search_runs_on_slices() -> None:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    x, y = load_iris(return_X_y=True)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2, n_jobs=-1)
    with joblib.parallel_backend("flexray", accelerator=0.5):
        search.fit(x, y)
    assert search.best_score_ > 0.9
    here = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2).fit(x, y)
    assert search.cv_results_["mean_test_score"].tolist() == here.cv_results_["mean_test_score"].tolist()
