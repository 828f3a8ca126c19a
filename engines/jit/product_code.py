"""Generated code that sums channels: at every frequency a small complex matrix times the tiles' spectra.

    Y[o, t] = sum over c of K[o, c] · X[c, t],      at each frequency; lanes are frequencies

A few outputs times a few tiles are summed in registers, so that what is loaded serves several products.  The inputs of
a few frequencies are first gathered into scratch, where they lie one after the other.
"""

from .pool_code import FRAME_HEAD
from .transform import load_element, store_element
from .vector import Value

#: Words of a frame behind its head.  A "plane" is the spectrum of one channel's tile; planes are a worker's own where
#: `inputs_bytes` and `outputs_bytes` are not 0.
FRAME = (
    "inputs",
    "outputs",
    "inputs_bytes",
    "outputs_bytes",
    "kernels",
    "scratch",
    "scratch_bytes",
    "plane_bytes",
    "slots",
    "tiles",
    "tile_blocks",
    "channels",
    "filters",
    "filter_blocks",
    "elements",
    "elements_per_task",
    "tasks_per_group",
)


def blocking(registers, tiles):
    """Outputs and tiles summed at once: complex sums, one kernel element, and one input per tile fit the registers."""
    columns = min(tiles, 3 if registers >= 32 else 2)
    columns = -(-tiles // -(-tiles // columns))
    return (registers - 4 - 2 * columns) // (2 * columns) if columns > 1 else (8 if registers >= 32 else 4), columns


def write_task(code, dtype, filters, tiles):
    """``task(frame, index, worker)``: some frequencies of one group, `filters` × `tiles` sums at once."""
    frame, index, worker = code.arguments
    kind = code.vector(dtype)
    element = 2 * kind.bytes
    word = {name: (frame + 8 * (FRAME_HEAD + n)).load() for n, name in enumerate(FRAME)}

    def pointer(name):
        return Value(code, code.builder.inttoptr(word[name].ir, frame.ir.type))

    group, part = index // word["tasks_per_group"], index % word["tasks_per_group"]
    first = part * word["elements_per_task"]
    count = word["elements_per_task"].least(word["elements"] - first)
    packed = pointer("scratch") + worker * word["scratch_bytes"]
    block_bytes = word["channels"] * (tiles * element)
    frequency_bytes = word["tile_blocks"] * block_bytes
    channel_bytes = word["slots"] * word["plane_bytes"]
    inputs = pointer("inputs") + worker * word["inputs_bytes"] + group * word["channels"] * channel_bytes
    inputs = inputs + first * element
    _gather(code, kind, word, inputs, channel_bytes, packed, (block_bytes, frequency_bytes), count, tiles)
    kernel_bytes = word["filter_blocks"] * word["channels"] * (filters * element)
    kernels = pointer("kernels") + (group * word["elements"] + first) * kernel_bytes
    outputs = pointer("outputs") + worker * word["outputs_bytes"] + group * word["filters"] * channel_bytes
    outputs = outputs + first * element

    def frequency(e, kernel):
        block = packed + e * frequency_bytes

        def filter_block(f, kernel):
            def tile_block(t):
                sums = _sums(code, kind, kernel, block + t * block_bytes, word["channels"], filters, tiles)
                for i in range(filters):
                    for j in range(tiles):
                        o, n = f * filters + i, t * tiles + j
                        there = o.compare("<", word["filters"]) & n.compare("<", word["tiles"])
                        with code.when(there):
                            at = outputs + o * channel_bytes + n * word["plane_bytes"] + e * element
                            store_element(at, sums[i * tiles + j])

            code.loop(word["tile_blocks"], tile_block)
            return (kernel + word["channels"] * (filters * element),)

        code.loop(word["filter_blocks"], filter_block, (kernel,))
        return (kernel + kernel_bytes,)

    code.loop(count, frequency, (kernels,))
    code.finish()


def _gather(code, kind, word, inputs, channel_bytes, packed, steps, count, tiles):
    """Lay `count` frequencies of all inputs together: blocks of `tiles` tiles, `steps` apart as the frequencies are."""
    element, (block_bytes, frequency_bytes) = 2 * kind.bytes, steps

    def channel(c):
        source = inputs + c * channel_bytes

        def tile(t):
            at = source + t * word["plane_bytes"]
            to = packed + (t // tiles) * block_bytes + (c * tiles + t % tiles) * element

            def frequency(_, at, to):
                store_element(to, load_element(at, kind))
                return at + element, to + frequency_bytes

            code.loop(count, frequency, (at, to))

        code.loop(word["tiles"], tile)

    code.loop(word["channels"], channel)


def _sums(code, kind, kernel, block, channels, filters, tiles):
    """The complex sums over channels of `filters` × `tiles` products."""
    element = 2 * kind.bytes

    def channel(_, kernel, at, *sums):
        sums = list(sums)
        inputs = [load_element(at + j * element, kind) for j in range(tiles)]
        minus = [Value(code, code.builder.fneg(b.ir)) for _, b in inputs]
        for i in range(filters):
            c, s = load_element(kernel + i * element, kind)
            for j, (a, b) in enumerate(inputs):
                n = 2 * (i * tiles + j)
                sums[n] = sums[n].fma(a, c).fma(minus[j], s)
                sums[n + 1] = sums[n + 1].fma(a, s).fma(b, c)
        return kernel + filters * element, at + tiles * element, *sums

    zeros = [code.zero(kind)] * (2 * filters * tiles)
    sums = code.loop(channels, channel, (kernel, block, *zeros))[2:]
    return list(zip(sums[::2], sums[1::2], strict=True))
