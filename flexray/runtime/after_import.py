"""Do something right after a module is imported, whoever imports it, without importing it first."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_log = logging.getLogger(__name__)


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call ``action(module)``, now if it is imported already. What it raises is logged: the import succeeds."""
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        _call(action, module)
    else:
        sys.meta_path.insert(0, _Finder(name, action))


def _call(action: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        action(module)
    except Exception:
        _log.warning("what was to follow the import of %s failed; it goes on without", module.__name__, exc_info=True)


class _Finder(MetaPathFinder):
    """Finds one module as everybody else does, with a loader that does one thing more."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self._name, self._action = name, action
        self._looking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(self, spec.loader, self._action)
        return spec


class _Loader(Loader):
    def __init__(self, finder: _Finder, loader: Loader, action: Callable[[ModuleType], None]) -> None:
        self._finder, self._loader, self._action = finder, loader, action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module sees the loader it would have had: packages read their files through it.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _call(self._action, module)
