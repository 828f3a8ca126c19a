"""Words that several threads read and write: one 64-bit integer at a time, in the same order for all of them."""

from .vector import INT, Value


def get(pointer):
    """What `pointer` holds."""
    code = pointer.code
    return Value(code, code.builder.load_atomic(pointer.ir, "seq_cst", 8, typ=INT))


def put(pointer, value):
    """Store `value`."""
    code = pointer.code
    code.builder.atomic_rmw("xchg", pointer.ir, code.value(value).ir, "seq_cst")


def add(pointer, value):
    """Add to what `pointer` holds, and return what that was."""
    code = pointer.code
    return Value(code, code.builder.atomic_rmw("add", pointer.ir, code.value(value).ir, "seq_cst"))


def swap_if(pointer, old, new):
    """Whether `pointer` held `old`, and now holds `new`."""
    code = pointer.code
    pair = code.builder.cmpxchg(pointer.ir, code.value(old).ir, code.value(new).ir, "seq_cst", "seq_cst")
    return Value(code, code.builder.extract_value(pair, 1))
