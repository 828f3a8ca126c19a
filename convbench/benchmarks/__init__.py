"""The asv suite: ``asv.conf.json`` and ``convbench bench`` point at this directory.

`convolution` holds the benchmarks, `contest` measures one problem, `session` says what is
measured.  In a checkout of the repository::

    asv check --python=same
    asv run --python=same --launch-method spawn --set-commit-hash HEAD    # what is installed
    asv run --bench "Memory.*resnet" HEAD^!                               # a build of its own
    asv compare HEAD~1 HEAD
    asv publish                                                           # pages in .asv/html

Problems can be told apart in ``--bench`` by their names.  The times come from one process
(`convolution`), not from repetitions: it measures every problem whatever ``--bench`` selects, and
``--quick``, which saves nothing, changes nothing.  A session file does: with
``CONVBENCH_SESSION=session.json`` in the environment, and in the file ::

    {"problems": [["room-4801", "mb1ic1iw300oc1ow300kw31pw15"]], "engines": ["direct", "fft"], "seconds": 0.2}

asv knows only that problem and these engines.
"""
