"""The commands of ``convbench``, a module each.

A module has `SUMMARY` and `EXAMPLES` for ``--help``, ``add(parser)``, which adds its arguments, and
``run(args)``, which returns the exit code.  What a command computes with is imported by its `run`,
so ``--help`` and completion answer at once.
"""

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes beside 0

# In the order of ``convbench --help``; the module of the same name is `convbench.commands.<name>`.
COMMANDS = ("bench", "report", "compare", "run", "explain", "verify", "engines", "calibrate", "records", "completion")
