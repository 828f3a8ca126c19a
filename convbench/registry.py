"""Which engines there are: the built-in table, installed plug-ins, and what a program registers.

Nothing is imported before it is used; a plug-in that cannot be imported is left out with one
warning, a built-in one raises.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType

from convbench import forks
from convbench.engine import Engine

ENTRY_POINT_GROUP = "convbench.engines"
_METHODS = (
    "why_unsupported",
    "plan",
    "for_weight",
    "circular",
    "takes_channels_last",
    "workspace_bytes",
    "error_bound",
    "predict_seconds",
)

# What importing someone else's broken code raises; anything else is a bug here and propagates.
_PLUGIN_ERRORS = (
    *(ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError),
    *(LookupError, OSError, RuntimeError),
)

_engines: dict[str, Engine] | None = None
_loading: dict[str, Engine] | None = None
_lock = forks.held_off  # engines are imported under it
_watchers: list[Callable[[], None]] = []


def register(engine: Engine | type[Engine], *, replace: bool = False) -> Engine | type[Engine]:
    """Add an engine to the registry.  Usable as a class decorator.

    Parameters
    ----------
    engine : Engine or subclass of Engine
        A class is instantiated without arguments.
    replace : bool, default False
        Whether an engine of the same name gives way.

    Returns
    -------
    The argument.

    Raises
    ------
    TypeError
        Not an engine.
    ValueError
        Its name is not usable, or taken.

    Examples
    --------
    >>> @convbench.register
    ... class Mine(convbench.Engine):
    ...     name = "mine"
    ...     def why_unsupported(self, spec):
    ...         return None if spec.ndim == 1 else "mine computes 1-D problems only"
    ...     def plan(self, spec, weight): ...
    """
    instance = _instance(engine)
    with _lock:
        table = _table()
        if instance.name in table and not replace:
            raise ValueError(f"an engine named {instance.name!r} exists; pass replace=True to take its place")
        table[instance.name] = instance
        _changed()
    return engine


def unregister(name: str) -> None:
    """Take an engine out of the registry; ValueError where there is none of that name."""
    with _lock:
        get(name)
        del _table()[name]
        _changed()


def engines() -> Mapping[str, Engine]:
    """Every engine by name, in order of preference: built-in, plug-ins, registered by the program."""
    with _lock:
        return MappingProxyType(dict(_table()))


def get(name: str) -> Engine:
    """The engine of that name; ValueError with the names there are."""
    table = _engines if _engines is not None else engines()
    try:
        return table[name]
    except (KeyError, TypeError):
        raise ValueError(f"engine {name!r} is unknown; auto, {', '.join(table)} are accepted") from None


def when_changed(tell) -> None:
    """Have `tell()` called after every change of the registry."""
    _watchers.append(tell)


def _changed():
    for tell in _watchers:
        tell()


def _table() -> dict[str, Engine]:
    global _engines, _loading
    with _lock:
        if _engines is None and _loading is None:
            try:
                _loading = _builtin()
                _add_plugins(_loading)
                _engines = _loading
            finally:
                _loading = None
        # Not yet complete where a plug-in registers an engine while it is imported.
        return _engines if _engines is not None else _loading


def _builtin():
    table = importlib.import_module("convbench.engines").BUILTIN
    found = {}
    for name, target in table.items():
        module, _, attribute = target.partition(":")
        instance = _instance(getattr(importlib.import_module(module), attribute))
        found[name] = instance
    return found


def _add_plugins(table):
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            instance = _instance(point.load())
        except _PLUGIN_ERRORS as error:
            _leave_out(point, f"{type(error).__name__}: {error}")
            continue
        known = table.setdefault(instance.name, instance)
        if type(known) is not type(instance):
            _leave_out(point, f"an engine named {instance.name!r} exists")


def _leave_out(point, reason):
    message = f"the engine plug-in {point.name!r} ({point.value}) is left out: {reason}"
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _instance(engine) -> Engine:
    instance = engine() if isinstance(engine, type) else engine
    missing = [name for name in _METHODS if not callable(getattr(instance, name, None))]
    if missing:
        raise TypeError(f"{engine!r} is not an engine: it lacks {', '.join(missing)}; derive from convbench.Engine")
    name = getattr(instance, "name", "")
    if not isinstance(name, str) or not name or name != name.lower() or " " in name or name == "auto":
        raise ValueError(f"engine name {name!r} is not accepted; a lower-case word other than 'auto' is")
    return instance
