"""A layer's call without Python: what a call like the last one does, as one function that Python calls.

Of a small convolution most of the time is the interpreter's: the key of the plan, the lock, the frame, the conversion
of arguments.  Hot that is 3 us; with caches cold, as between two calls of a program that does other things, it is
some 50 us for 45 of the convolution's own, because each object and each piece of the interpreter is fetched from
memory.  A shortcut compares the array with the one that the plan was made for, has the output made, and runs
the plan's jobs.  Anything else it leaves to the caller, by answering None.

It is called with the interpreter held, and lets go of it where the problem is not small.  What it reads of Python's
objects is their types and, of arrays, what NumPy's binary interface promises of them; `_is_as_read` looks whether
that holds here before the first is made.
"""

import ctypes
import functools
import sys
import sysconfig

import numpy as np

from convbench import settings
from convbench.outputs import ARRAY_DATA

from . import records
from .atomics import put, swap_if
from .compile import address
from .target import target
from .vector import Code, Kind

#: Of a NumPy array object, behind its data's address: the number of dimensions (an int of C), the addresses of its
#: sizes and its strides, and its dtype.  Of any object: its type.
ARRAY_NDIM, ARRAY_SIZES, ARRAY_STRIDES, ARRAY_DTYPE = (ARRAY_DATA + 8 * i for i in (1, 2, 3, 5))
OBJECT_TYPE = object.__basicsize__ - 8
#: Multiply-adds from which the interpreter is let go of meanwhile: fewer take some microseconds.
LONG_MACS = 1_000_000
_TAKES_ONE_ARGUMENT = 8  # CPython's ``METH_O``

#: What the code calls of CPython's interface.
_PYTHON = {
    "call_object": "PyObject_CallNoArgs",
    "add_reference": "Py_IncRef",
    "drop_reference": "Py_DecRef",
    "let_go": "PyEval_SaveThread",
    "take_back": "PyEval_RestoreThread",
}
_STATE = records.slots(
    "type dtype ndim sizes strides scope_of scope epoch_at epoch make_output summon call jobs count struck "
    f"struck_count long busy calls none {' '.join(_PYTHON)}"
)
_INT = Kind("int32")


class _State(np.ndarray):
    """The words of a shortcut, which it gets as its ``self``, and the objects whose addresses they hold."""

    kept = ()


class _Method(ctypes.Structure):
    """CPython's ``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Shortcut:
    """``call(x)``, which answers as `convbench.engine.Plan` says; the arguments are those of `make`."""

    def __init__(self, known, jobs, call, summon, struck, kept):
        jobs = np.array(jobs, np.int64)
        sizes, strides = (np.array(numbers, np.int64) for numbers in (known.shape, known.strides))
        python = ctypes.pythonapi
        words = {
            "type": id(np.ndarray),
            "dtype": id(known.dtype),
            "ndim": len(sizes),
            "sizes": sizes.ctypes.data,
            "strides": strides.ctypes.data,
            "scope_of": id(settings.scope),
            "scope": id(known.scope),
            "epoch_at": ctypes.addressof(settings.CHANGES),
            "epoch": known.epoch,
            "make_output": id(known.make_output),
            "summon": _address(summon) if known.summons else 0,
            "call": _address(call),
            "jobs": jobs.ctypes.data,
            "count": len(jobs),
            "struck": struck.ctypes.data,
            "struck_count": len(struck),
            "long": known.macs >= LONG_MACS,
            "none": id(None),
            **{name: _address(getattr(python, function)) for name, function in _PYTHON.items()},
        }
        self._state = np.array([words.get(name, 0) for name in _STATE], np.int64).view(_State)
        self._state.kept = known, settings.scope, jobs, struck, sizes, strides, kept
        new = python.PyCFunction_NewEx
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
        self.call = new(ctypes.addressof(_method()), self._state, None)

    @property
    def calls(self):
        """How many calls it has computed."""
        return int(self._state[_STATE["calls"] // 8])


def make(known, jobs, call, summon, struck=(), kept=None):
    """What runs a plan's jobs for the calls that are known, or None where Python's objects are not as expected.

    Parameters
    ----------
    known : convbench.engine.Known
    jobs : sequence of int
        Addresses of the frames to run one after the other, which no other call uses.
    call : callable
        `parallel.caller`'s.
    summon : callable or None
        `parallel.summoner`'s.
    struck : ndarray of int64, optional
        Words that are 0 after a call; if one is not, its result counts for nothing and the call is left to the layer.
    kept : object
        What owns the frames.
    """
    return _Shortcut(known, jobs, call, summon, np.asarray(struck, np.int64), kept) if _is_possible() else None


def _address(function):
    return ctypes.cast(function, ctypes.c_void_p).value


@functools.cache
def _method():
    """What every shortcut does, as CPython wants it described."""
    return _Method(b"shortcut", address("shortcut", (), target(), write), _TAKES_ONE_ARGUMENT, None)


@functools.cache
def _is_possible():
    """Whether this is CPython with its lock, and its arrays are as the code reads them."""
    return sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED") and _is_as_read()


def _is_as_read():
    probe = np.zeros((2, 3, 5), np.float32)[:, 1:]

    def word(offset):
        return ctypes.c_int64.from_address(id(probe) + offset).value

    def numbers(offset):
        return tuple((ctypes.c_int64 * 3).from_address(word(offset)))

    found = word(OBJECT_TYPE), word(ARRAY_DATA), word(ARRAY_NDIM) & 0xFFFFFFFF, word(ARRAY_DTYPE)
    if found != (id(np.ndarray), probe.__array_interface__["data"][0], 3, id(probe.dtype)):
        return False
    return numbers(ARRAY_SIZES) == probe.shape and numbers(ARRAY_STRIDES) == probe.strides


def write(module):
    """``PyObject *shortcut(PyObject *state, PyObject *x)``."""
    code = Code(module, "shortcut", target(), "pp", result=True)
    holder, x = code.arguments
    at = (holder + ARRAY_DATA).load_pointer()
    state, result = records.Record(at, _STATE), code.stack(8)
    result.store(state["none"])
    with code.when(_is_known(code, state, x)), code.when(_is_here(code, state, result)), code.when(_take(at)):
        _compute(code, state, x, result)
        put(at + _STATE["busy"], 0)
    with code.when(result.load().compare("==", state["none"])):
        code.call(state.pointer("add_reference"), [result.load_pointer()])
    code.finish(result.load_pointer())


def _is_known(code, state, x):
    """Whether `x` is an array like the one that the plan was made for, and the process' settings are as they were."""
    known = code.stack(8)
    known.store(0)
    with code.when((x + OBJECT_TYPE).load().compare("==", state["type"])):
        rank, dtype = code.widen((x + ARRAY_NDIM).load(_INT)), (x + ARRAY_DTYPE).load()
        alike = rank.compare("==", state["ndim"]) & dtype.compare("==", state["dtype"])
        unchanged = state.pointer("epoch_at").load().compare("==", state["epoch"])
        known.store((alike & unchanged).choose(1, 0))
    with code.when(known.load().compare("!=", 0)):

        def compare(i):
            for here, wanted in ((ARRAY_SIZES, "sizes"), (ARRAY_STRIDES, "strides")):
                found, expected = ((x + here).load_pointer() + i * 8).load(), (state.pointer(wanted) + i * 8).load()
                known.store(found.compare("==", expected).choose(known.load(), 0))

        code.loop(state["ndim"], compare)
    return known.load().compare("!=", 0)


def _take(at):
    """Whether no other call has the frames; then this one has."""
    return swap_if(at + _STATE["busy"], 0, 1)


def _is_here(code, state, result):
    """Whether the block's settings are those that the plan was made under; a failure goes into `result`."""
    scope = code.call(state.pointer("call_object"), [state.pointer("scope_of")], "p")
    with code.either(scope.number().compare("==", 0)) as (failed, found):
        with failed:
            result.store(0)
        with found:
            code.call(state.pointer("drop_reference"), [scope])
    return scope.number().compare("==", state["scope"])


def _compute(code, state, x, result):
    """The output into `result`, or 0 with an exception set, or what is there already."""
    with code.when(state["summon"].compare("!=", 0)):
        code.call(state.pointer("summon"), [])
    out = code.call(state.pointer("call_object"), [state.pointer("make_output")], "p")
    result.store(out)
    with code.when(out.number().compare("!=", 0)):
        thread = code.stack(8)
        thread.store(0)
        with code.when(state["long"].compare("!=", 0)):
            thread.store(code.call(state.pointer("let_go"), [], "p"))
        jobs, call = state.pointer("jobs"), state.pointer("call")
        code.loop(state["count"], lambda i: code.call(call, [(jobs + i * 8).load_pointer(), x, out]))
        with code.when(thread.load().compare("!=", 0)):
            code.call(state.pointer("take_back"), [thread.load_pointer()])
        with code.either(_is_struck(code, state)) as (yes, no):
            with yes:
                code.call(state.pointer("drop_reference"), [out])
                result.store(state["none"])
            with no:
                state["calls"] = state["calls"] + 1


def _is_struck(code, state):
    """Whether one of the words that must be 0 is not; they are 0 again."""
    struck, words = code.stack(8), state.pointer("struck")
    struck.store(0)

    def look(i):
        with code.when((words + i * 8).load().compare("!=", 0)):
            struck.store(1)
            (words + i * 8).store(0)

    code.loop(state["struck_count"], look)
    return struck.load().compare("!=", 0)
