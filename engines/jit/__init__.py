"""Vector code generated with LLVM for the processor at hand: the layers that the fast engines are written in.

``target`` says what the processor has, ``vector`` writes code with operators on vector values, ``compile``
turns it into machine code once per process, ``parallel`` spreads tasks over threads, ``dense`` and ``wide``
are the convolution kernels.
"""
