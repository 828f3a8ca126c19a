"""From vector code to a callable address, once per process and key.

LLVM's own just-in-time compiler does the work, without Numba: a kernel takes some tens of milliseconds.  No
pass of the optimiser runs, because the generators write the code as it should be; LLVM selects
instructions, allocates registers and schedules.  Nothing is written to disk, and machine code is never
freed: a thread may be inside it until the process ends.
"""

import functools

import llvmlite.binding as llvm
from llvmlite import ir

from convbench import forks

_addresses = {}


@functools.cache
def _initialise():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()


def _machine(target, assembly=False):
    _initialise()
    triple = llvm.Target.from_default_triple()
    options = {} if assembly else {"jit": True}
    return triple.create_target_machine(cpu=target.cpu, features=target.features, opt=3, **options)


def _parsed(write, target):
    module = ir.Module()
    module.triple = llvm.get_default_triple()
    write(module)
    return llvm.parse_assembly(str(module))


def address(name, key, target, write):
    """Address of the compiled function `name`.

    Parameters
    ----------
    name : str
        A function that `write` defines.
    key : hashable
        With `name`, `target` and which function `write` is, it tells what is compiled: once for equal keys.
    target : Target
    write : callable
        ``write(module)`` defines the function in an empty ``llvmlite.ir.Module``.

    Returns
    -------
    int
        To be called from other generated code or through ``ctypes.CFUNCTYPE``; valid until the process ends.
    """
    key = name, key, target, write.__module__, write.__qualname__
    found = _addresses.get(key)
    if found is None:
        with forks.held_off:
            if key not in _addresses:
                _addresses[key] = _compile(name, target, write)
            found = _addresses[key]
    return found


def _compile(name, target, write):
    module = _parsed(write, target)
    engine = llvm.create_mcjit_compiler(module, _machine(target))
    engine.finalize_object()
    found = engine.get_function_address(name)
    module.detach()
    engine.detach()
    return found


def assembly(target, write):
    """The assembly text that `write` leads to, for looking at a slow kernel."""
    return _machine(target, assembly=True).emit_assembly(_parsed(write, target))


def compiled_count():
    """How many functions this process has compiled."""
    return len(_addresses)
