"""Six small classifiers, trained on scikit-learn's digits (1797 images of 8 x 8, shipped inside the package)."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexray.errors import UsageError

NAMES = ("logistic", "svm", "neighbours", "forest", "extra-trees", "network")
"""The models, in the order they are trained and shown."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One model on disk.

    Attributes:
        name: one of ``NAMES``.
        kind: scikit-learn's class.
        module: where that class is, which a server imports before it loads the model.
        path: the pickle that a server loads.
        size: bytes of that file.
        accuracy: part of the test images it gets right, in [0, 1].
        expected: its answer to each test image, computed here; what a server must answer too.
    """

    name: str
    kind: str
    module: str
    path: Path
    size: int
    accuracy: float
    expected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """The models and the test images requests are drawn from (each a row of 64 numbers)."""

    models: tuple[TrainedModel, ...]
    images: tuple[Any, ...]


def check_installed() -> None:
    """Raises UsageError, saying what to install, where scikit-learn is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the demo trains its models with scikit-learn, which is not installed here ({error}); "
            'get it with: pip install "flexray-runtime[demo]"'
        ) from None


def train(folder: Path, seed: int, trained: Callable[[], None] = lambda: None) -> Trained:
    """Train the six models and write each to a file of its own.

    Args:
        folder: an existing directory for the files.
        seed: fixes the split of the data and what is random in training.
        trained: called after each model.
    """
    check_installed()
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, digits = load_digits(return_X_y=True)
    fit_x, test_x, fit_y, test_y = train_test_split(
        images / 16.0, digits, test_size=0.25, random_state=seed, stratify=digits
    )
    models = []
    for name, model in _classifiers(seed).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the network stops before it has converged; its accuracy is shown
            model.fit(fit_x, fit_y)
        path = folder / f"{name}.pickle"
        path.write_bytes(pickle.dumps(model, protocol=5))
        answers = tuple(int(answer) for answer in model.predict(test_x))
        right = sum(answer == int(digit) for answer, digit in zip(answers, test_y, strict=True))
        cls, size = type(model), path.stat().st_size
        models.append(TrainedModel(name, cls.__name__, cls.__module__, path, size, right / len(answers), answers))
        trained()
    return Trained(tuple(models), tuple(test_x))


def _classifiers(seed: int) -> dict[str, Any]:
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    models = (
        LogisticRegression(max_iter=300),
        SVC(),
        KNeighborsClassifier(5),
        RandomForestClassifier(150, random_state=seed),
        ExtraTreesClassifier(150, random_state=seed),
        MLPClassifier((64,), max_iter=40, random_state=seed),
    )
    return dict(zip(NAMES, models, strict=True))
