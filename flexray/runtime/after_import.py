"""Does something when a module is imported, without importing it: torch takes seconds, and not every slice needs it."""

from __future__ import annotations

import importlib.abc
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_log = logging.getLogger(__name__)

Action = Callable[[ModuleType], object]


def after_import(name: str, action: Action) -> None:
    """Call ``action`` with the module: now if it is imported already, else as soon as somebody has imported it.

    An action that fails is logged and does not fail the import.
    """
    module = sys.modules.get(name)
    if module is not None:
        _do(action, module)
        return
    finder = next((f for f in sys.meta_path if isinstance(f, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.actions.setdefault(name, []).append(action)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the others find a module, and has its actions done after it has run."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}
        self._within = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.actions or getattr(self._within, "name", "") == fullname:
            return None
        self._within.name = fullname
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._within.name = ""
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.actions)
        return spec


class _Loader(importlib.abc.Loader):
    """A module's own loader, and what is to be done afterwards."""

    def __init__(self, inner: importlib.abc.Loader, actions: dict[str, list[Action]]) -> None:
        self._inner = inner
        self._actions = actions

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module must look as if we had never been there: some read their own loader.
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._inner
        self._inner.exec_module(module)
        for action in self._actions.pop(module.__name__, []):
            _do(action, module)


def _do(action: Action, module: ModuleType) -> None:
    try:
        action(module)
    except Exception:  # whoever imports it must not suffer
        _log.warning("what was to be done after the import of %s failed", module.__name__, exc_info=True)
