"""Values of generated code, with operators: what lets a kernel generator read like the algorithm that it emits.

`Code` writes one function.  It hands out `Value`s: 64-bit integers, pointers, floating-point scalars, and
vectors of them as long as the target's registers.  ``a + b`` emits an addition; ``total.fma(a, b)`` one
fused multiply-add; ``p + 8`` on a pointer moves by bytes; ``p.load(kind)`` and ``p.store(value)`` touch
memory at any alignment, under a mask where asked.

>>> def axpy(module):                                                    # doctest: +SKIP
...     code = Code(module, "axpy", target, "ppi")
...     x, y, blocks = code.arguments
...     kind = code.vector("float32")
...     def body(i):
...         at = i * kind.bytes
...         (y + at).store((y + at).load(kind).fma(code.splat(2.0, kind), (x + at).load(kind)))
...     code.loop(blocks, body)
...     code.finish()
"""

import contextlib
import dataclasses
import functools

import numpy as np
from llvmlite import ir

POINTER = ir.PointerType()
INT = ir.IntType(64)
BOOL = ir.IntType(1)
_ELEMENTS = {
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
    "float16": ir.HalfType(),
    **{f"{sign}int{bits}": ir.IntType(bits) for bits in (8, 16, 32, 64) for sign in ("", "u")},
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """Type of a value: `lanes` elements of `dtype`, a scalar if `lanes` is None."""

    dtype: str
    lanes: int | None = None

    @property
    def ir(self):
        """The LLVM type."""
        element = _ELEMENTS[self.dtype]
        return element if self.lanes is None else ir.VectorType(element, self.lanes)

    @property
    def itemsize(self):
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize

    @property
    def bytes(self):
        """Bytes of the whole value in memory."""
        return self.itemsize * (self.lanes or 1)

    @property
    def scalar(self):
        """The kind of one element."""
        return Kind(self.dtype)


INDEX = Kind("int64")


class Value:
    """A value of the function being written; operators emit instructions."""

    __slots__ = ("code", "ir")

    def __init__(self, code, value):
        self.code, self.ir = code, value

    def _binary(self, name, other):
        prefix = "f" if _is_float(self.ir.type) else ""
        other = self.code.value(other, self.ir.type).ir
        return Value(self.code, getattr(self.code.builder, prefix + name)(self.ir, other))

    def __add__(self, other):
        if self.ir.type != POINTER:
            return self._binary("add", other)
        if isinstance(other, int) and other == 0:
            return self
        offset = self.code.value(other).ir
        return Value(self.code, self.code.builder.gep(self.ir, [offset], source_etype=ir.IntType(8)))

    def __sub__(self, other):
        return self._binary("sub", other)

    def __mul__(self, other):
        return self._binary("mul", other)

    def __floordiv__(self, other):
        return Value(self.code, self.code.builder.sdiv(self.ir, self.code.value(other).ir))

    def __mod__(self, other):
        return Value(self.code, self.code.builder.srem(self.ir, self.code.value(other).ir))

    def __and__(self, other):
        return Value(self.code, self.code.builder.and_(self.ir, self.code.value(other, self.ir.type).ir))

    def __rshift__(self, bits):
        return Value(self.code, self.code.builder.lshr(self.ir, self.code.value(bits).ir))

    def __lshift__(self, bits):
        return Value(self.code, self.code.builder.shl(self.ir, self.code.value(bits).ir))

    def compare(self, operator, other):
        """The truth value of, say, ``a.compare("<", b)``, signed."""
        return Value(
            self.code, self.code.builder.icmp_signed(operator, self.ir, self.code.value(other, self.ir.type).ir)
        )

    def choose(self, yes, no):
        """`yes` where this truth value holds, `no` elsewhere."""
        yes = self.code.value(yes)
        return Value(self.code, self.code.builder.select(self.ir, yes.ir, self.code.value(no, yes.ir.type).ir))

    def least(self, other):
        """The smaller of two integers."""
        return self.compare("<", other).choose(self, other)

    def most(self, other):
        """The larger of two integers."""
        return self.compare(">", other).choose(self, other)

    def fma(self, a, b):
        """``self + a * b``, rounded once where the target can; integers wrap."""
        if not _is_float(self.ir.type):
            return self + a * b
        name = "llvm.fma" if self.code.target.fma else "llvm.fmuladd"
        return self.code.intrinsic(name, self.ir.type, [a, b, self], [self.ir.type])

    def shuffle(self, other, lanes):
        """Lanes picked by number from this vector followed by `other`."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
        return Value(self.code, self.code.builder.shuffle_vector(self.ir, other.ir, mask))

    def lane(self, index):
        """One element."""
        return Value(self.code, self.code.builder.extract_element(self.ir, ir.Constant(ir.IntType(32), index)))

    def load(self, kind=INDEX, mask=None, align=None):
        """What this pointer points at; lanes outside `mask` are not touched and read as zero."""
        align = align or kind.itemsize
        if mask is None:
            return Value(self.code, self.code.builder.load(self.ir, typ=kind.ir, align=align))
        zero = self.code.zero(kind)
        arguments = [self, self.code.int32(align), mask, zero]
        return self.code.intrinsic("llvm.masked.load", kind.ir, arguments, [kind.ir, POINTER])

    def store(self, value, mask=None, align=None):
        """Write `value` where this pointer points; memory outside `mask` is not touched."""
        value = self.code.value(value)
        kind = value.ir.type
        element = kind.element if isinstance(kind, ir.VectorType) else kind
        align = align or element.get_abi_size(self.code.layout)
        if mask is None:
            self.code.builder.store(value.ir, self.ir, align=align)
        else:
            self.code.intrinsic(
                "llvm.masked.store", ir.VoidType(), [value, self, self.code.int32(align), mask], [kind, POINTER]
            )

    def stream(self, value):
        """Write a whole vector past the caches to this pointer, which must be a multiple of its length."""
        length = value.ir.type.count * value.ir.type.element.get_abi_size(self.code.layout)
        written = self.code.builder.store(value.ir, self.ir, align=length)
        written.set_metadata("nontemporal", self.code.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))

    def number(self):
        """This pointer as an integer."""
        return Value(self.code, self.code.builder.ptrtoint(self.ir, INT))

    def broadcast(self, kind):
        """A vector that holds the scalar at this pointer in every lane."""
        return self.code.splat(self.load(kind.scalar), kind)

    def load_pointer(self):
        """The pointer stored at this pointer."""
        return Value(self.code, self.code.builder.load(self.ir, typ=POINTER, align=8))


def _is_float(kind):
    return isinstance(getattr(kind, "element", kind), (ir.FloatType, ir.DoubleType, ir.HalfType))


class Code:
    """Writes one function without result into `module`.

    Parameters
    ----------
    module : llvmlite.ir.Module
    name : str
    target : Target
    arguments : str
        One letter each: ``p`` a pointer, ``i`` a 64-bit integer.  They are `arguments`, as `Value`s, in order.
    result : bool
        Whether the function returns a pointer (given to `finish`).
    """

    def __init__(self, module, name, target, arguments, result=False):
        kinds = [POINTER if letter == "p" else INT for letter in arguments]
        self.function = ir.Function(module, ir.FunctionType(POINTER if result else ir.VoidType(), kinds), name)
        self.function.attributes.add("nounwind")
        self.builder = ir.IRBuilder(self.function.append_basic_block())
        self.target, self.module = target, module
        self.layout = _layout()
        self.arguments = tuple(Value(self, argument) for argument in self.function.args)

    def vector(self, dtype):
        """The kind of a full vector register of `dtype`."""
        return Kind(dtype, self.target.lanes(dtype))

    def value(self, value, kind=INT):
        """`value` itself, or a Python number as a constant of LLVM type `kind`."""
        if isinstance(value, Value):
            return value
        if isinstance(kind, ir.VectorType):
            return Value(self, ir.Constant(kind, [value] * kind.count))
        return Value(self, ir.Constant(INT if kind == POINTER else kind, value))

    def int32(self, number):
        """A 32-bit constant."""
        return Value(self, ir.Constant(ir.IntType(32), number))

    def widen(self, value):
        """A signed integer as one of 64 bits."""
        return Value(self, self.builder.sext(value.ir, INT))

    def narrow(self, value):
        """An integer of 64 bits as an int of C."""
        return Value(self, self.builder.trunc(value.ir, ir.IntType(32)))

    def zero(self, kind):
        """Zero in every lane."""
        return Value(self, ir.Constant(kind.ir, None))

    def anything(self, kind):
        """A vector whose contents do not matter."""
        return Value(self, ir.Constant(kind.ir, ir.Undefined))

    def pointer(self, address):
        """What lies at an address: a constant, or a number that the code computes."""
        return Value(self, self.builder.inttoptr(self.value(address).ir, POINTER))

    def splat(self, scalar, kind):
        """The scalar in every lane."""
        scalar = self.value(scalar, kind.scalar.ir)
        first = self.builder.insert_element(
            ir.Constant(kind.ir, ir.Undefined), scalar.ir, ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), None)
        return Value(self, self.builder.shuffle_vector(first, ir.Constant(kind.ir, ir.Undefined), zeros))

    def mask(self, count, kind, first=None):
        """The mask of the lanes from `first` to before `count`, which may both exceed the lanes or be negative."""
        numbers = Kind("int64", kind.lanes)
        lanes = Value(self, ir.Constant(numbers.ir, list(range(kind.lanes))))
        below = lanes.compare("<", self.splat(count, numbers))
        return below if first is None else below & lanes.compare(">=", self.splat(first, numbers))

    def intrinsic(self, name, result, arguments, overloads):
        """Call an LLVM intrinsic, its name completed by the overloaded types."""
        name = ".".join([name, *map(_mangle, overloads)])
        values = [argument.ir for argument in arguments]
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(result, [value.type for value in values]), name)
        return Value(self, self.builder.call(function, values))

    def call(self, function, arguments, result=None):
        """Call a pointer to a function, whose result is nothing, an int of C (``i``) or a pointer (``p``)."""
        values = [self.value(argument).ir for argument in arguments]
        returned = {None: ir.VoidType(), "i": ir.IntType(32), "p": POINTER}[result]
        kind = ir.FunctionType(returned, [value.type for value in values])
        number = self.builder.ptrtoint(function.ir, INT)
        found = Value(self, self.builder.call(self.builder.inttoptr(number, kind.as_pointer()), values))
        return {None: lambda _: None, "i": self.widen, "p": lambda pointer: pointer}[result](found)

    def external(self, name, arguments):
        """Call the C function `name` of this process, whose result is an int."""
        values = [self.value(argument).ir for argument in arguments]
        function = self.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(ir.IntType(32), [value.type for value in values])
            function = ir.Function(self.module, kind, name)
        return Value(self, self.builder.call(function, values))

    def stack(self, size):
        """A pointer to `size` bytes that live until the function returns, 64-byte aligned."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(ir.ArrayType(ir.IntType(8), size))
            slot.align = 64
            slot.type = POINTER
        return Value(self, slot)

    def assembly(self, text):
        """An instruction without operands, in the processor's own language."""
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), text, "", [], True)

    def reload(self):
        """Forget what is in memory: no value loaded so far is kept in a register to save a load to come."""
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)

    def prefetch(self, pointer, write=False, cache=1):
        """Ask for the cache line at `pointer`, which may be any address, to read it or to write to it.

        It comes into the cache of that level.
        """
        flags = [self.int32(int(write)), self.int32(4 - cache), self.int32(1)]
        self.intrinsic("llvm.prefetch", ir.VoidType(), [pointer, *flags], [POINTER])

    def loop(self, count, body, carried=(), start=0, step=1):
        """Run ``body(i, *carried)`` for i in ``range(start, count, step)``.

        Parameters
        ----------
        count, start, step : int or Value
        body : callable
            Returns the carried values of the next round.
        carried : sequence of Value

        Returns
        -------
        list of Value
            The carried values after the last round.
        """
        count, start = self.value(count), self.value(start)
        before = self.builder.block
        head, inside, after = (self.function.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        values = [Value(self, self.builder.phi(value.ir.type)) for value in (start, *carried)]
        for value, first in zip(values, (start, *carried), strict=True):
            value.ir.add_incoming(first.ir, before)
        self.builder.cbranch(values[0].compare("<", count).ir, inside, after)
        self.builder.position_at_end(inside)
        following = [values[0] + step, *(body(*values) or ())]
        for value, update in zip(values, following, strict=True):
            value.ir.add_incoming(update.ir, self.builder.block)
        self.builder.branch(head)
        self.builder.position_at_end(after)
        return values[1:]

    def repeat(self, body):
        """Run ``body()`` again and again while it returns true."""
        block, after = self.function.append_basic_block(), self.function.append_basic_block()
        self.builder.branch(block)
        self.builder.position_at_end(block)
        again = body()
        self.builder.cbranch(again.ir, block, after)
        self.builder.position_at_end(after)

    @contextlib.contextmanager
    def when(self, condition):
        """``with code.when(condition):`` writes code that runs only if the condition holds."""
        with self.builder.if_then(condition.ir):
            yield

    @contextlib.contextmanager
    def either(self, condition):
        """``with code.either(condition) as (yes, no):`` and then ``with yes:``, ``with no:``."""
        with self.builder.if_else(condition.ir) as branches:
            yield branches

    def finish(self, result=None):
        """End the function."""
        if result is None:
            self.builder.ret_void()
        else:
            self.builder.ret(result.ir)


@functools.cache
def _layout():
    """LLVM's default layout, for ever: freeing it takes llvmlite's lock, at any time and in any thread."""
    import llvmlite.binding as llvm

    return llvm.create_target_data("")


def _mangle(kind):
    if kind == POINTER:
        return "p0"
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_mangle(kind.element)}"
    return {ir.FloatType(): "f32", ir.DoubleType(): "f64", ir.HalfType(): "f16"}.get(kind) or f"i{kind.width}"
