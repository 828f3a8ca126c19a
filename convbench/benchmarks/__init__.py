"""The asv suite: ``asv.conf.json`` and ``convbench bench`` point at this directory.

`convolution` holds the benchmarks, `contest` measures one problem, `session` says what is
measured.  In a checkout of the repository::

    asv check --python=same
    asv run --python=same --launch-method spawn --set-commit-hash HEAD    # what is installed
    asv run --bench "Memory.*resnet" HEAD^!                               # a build of its own

Problems can be told apart in ``--bench`` by their names.  ``--quick`` saves nothing and measures
the times as long as without it: they come from one process (`convolution`), not from repetitions.
"""
