"""``convbench calibrate``: measure the machine's profile, so that predictions fit it."""

from __future__ import annotations

from convbench.commands.given import InputError
from convbench.commands.output import add_json, print_json, progress, steps

SUMMARY = "measure this machine once, so that predictions fit it"
EXAMPLES = """
examples:
  convbench calibrate                      a quarter of a minute; keep the machine quiet meanwhile
  convbench calibrate --show               what predictions go by now
"""


def add(parser) -> None:
    """Add the arguments."""
    parser.add_argument("--show", action="store_true", help="measure nothing, print the profile in use")
    add_json(parser)


def run(args) -> int:
    """Measure and keep the profile, or show it."""
    from convbench import profile

    found, kept = (profile.load(), None) if args.show else _measured()
    if args.json:
        print_json({"profile": found, "written": kept})
        return 0
    print(f"{found.measured}: {found.hertz / 1e9:.2f} GHz, copies {found.bandwidth / 1e9:.0f} GB/s a thread")
    for name, factor in found.factors.items():
        print(f"  {name:<24} takes {factor:5.2f} times what its model says")
    if kept:
        print(f"Kept in {kept}")
    return 0


def _measured():
    from convbench import calibration, profile

    with progress() as bars:
        panel = calibration.PANEL
        found = calibration.calibrate(panel, calibration.SECONDS, progress=steps(bars, len(panel) + 1))
    try:
        return found, profile.save(found)
    except OSError as error:
        raise InputError(f"the profile can't be kept: {profile.path()} ({error.strerror or error})") from None
