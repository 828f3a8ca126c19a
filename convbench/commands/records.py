"""``convbench records``: see, carry away, bring in and clear what was measured."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from convbench.commands.given import InputError, add_command, add_problem, read_problems, reading_input
from convbench.commands.output import add_json, print_json

SUMMARY = "see, export, import and clear what was measured"
EXAMPLES = """
examples:
  convbench records show
  convbench records export mine.json
  convbench records import mine.json --into app/records --pin
  convbench records prune --dry-run
"""
SHOW_EXAMPLES = """
examples:
  convbench records show                   of this environment
  convbench records show resnet50-stem
  convbench records show --all --json
"""
EXPORT_EXAMPLES = """
examples:
  convbench records export mine.json       of this environment
  convbench records export - --all | gzip > everything.json.gz
"""
IMPORT_EXAMPLES = """
examples:
  convbench records import mine.json       what the user has measured stays
  convbench records import mine.json --replace
  convbench records import mine.json --into app/records
  convbench records import mine.json --into app/records --pin

An application ships a folder made with --into, and names it in CONVBENCH_SHIPPED_RECORDS. Records of
an environment help where processor, vector instructions, cores, threads and library versions are the
same. Pinned ones (--pin) hold everywhere and go before what the user has measured, so that one engine
is picked on every machine; export them again when convbench is updated, because timings of an engine
of another version do not count.
"""
CLEAR_EXAMPLES = """
examples:
  convbench records clear                  asks first
  convbench records clear --yes
"""
PRUNE_EXAMPLES = """
examples:
  convbench records prune --dry-run        what would go, and why
  convbench records prune
"""


def add(parser) -> None:
    """Add the actions and their arguments."""
    actions = parser.add_subparsers(metavar="action", required=True)
    for name, summary, examples, arguments, action in (
        ("show", "list what was measured", SHOW_EXAMPLES, _add_show, show),
        ("export", "write one portable file", EXPORT_EXAMPLES, _add_export, export),
        ("import", "bring in a portable file", IMPORT_EXAMPLES, _add_import, import_),
        ("clear", "remove every record", CLEAR_EXAMPLES, _add_clear, clear),
        ("prune", "remove what can't be used any more", PRUNE_EXAMPLES, _add_prune, prune),
    ):
        command = add_command(actions, name, summary, examples)
        arguments(command)
        add_json(command)
        command.set_defaults(action=action)


def run(args) -> int:
    """Run one of the actions."""
    return args.action(args)


def _add_show(parser):
    add_problem(parser, "problem", metavar="PROBLEM", nargs="*", help="only of these (default: all)")
    parser.add_argument("--all", action="store_true", help="of every environment")


def show(args) -> int:
    """List records: the user's, then those that an application ships."""
    from convbench import archive, records

    with reading_input():
        wanted = {problem.text for problem in read_problems(args.problem)} if args.problem else None
    shown, hidden, broken = [], 0, {}
    for origin, base in (("user", records.directory()), *(("shipped", b) for b in records.shipped_directories())):
        found, damaged = archive.stored(base)
        broken |= damaged
        for path, record in found.items():
            pinned = origin == "shipped" and record.environment == records.ANY
            if wanted is not None and record.problem not in wanted:
                continue
            if args.all or pinned or record.environment == records.environment():
                shown.append((origin, path, record))
            else:
                hidden += 1
    if args.json:
        print_json({"records": [_as_data(*each) for each in shown], "hidden": hidden, "damaged": broken})
    else:
        print(_listing(shown, hidden, broken))
    return 0


def _as_data(origin, path, record):
    from convbench import archive, records

    old = archive.outdated(record)
    return {
        "problem": record.problem,
        "origin": origin,
        "path": path,
        "environment": record.environment,
        "environment_hash": records.hash_of(record.environment),
        "timings": {
            name: {**asdict(timing), "outdated": old.get(name)} for name, timing in _fastest_first(record).items()
        },
    }


def _listing(shown, hidden, broken) -> str:
    from convbench import archive, records

    parts = []
    heading = None
    for origin, path, record in shown:
        title = f"{origin}, {path.parent}:\n{archive.describe(record.environment)}"
        if title != heading:
            parts.append(title)
            heading = title
        parts.append(_table(record, archive.outdated(record)))
    parts += [f"damaged, counts as missing: {path} ({reason})" for path, reason in broken.items()]
    if hidden:
        parts.append(f"{_plural(hidden, 'record')} of other environments (--all shows them)")
    return "\n\n".join(parts or [f"no records in {records.directory()}"])


def _table(record, old) -> str:
    from convbench import display

    rows = [
        (
            name,
            display.seconds(timing.median),
            f"{display.seconds(timing.q1)} – {display.seconds(timing.q3)}",
            str(timing.samples),
            display.size(timing.workspace_bytes),
            "-" if timing.error is None else f"{timing.error:.1e}",
            timing.version,
            f"ignored: {old[name]}" if name in old else "",
        )
        for name, timing in _fastest_first(record).items()
    ]
    header = ("engine", "median", "quartiles", "samples", "workspace", "error", "version", "")
    return f"{record.problem}\n{display.table(header, rows)}"


def _fastest_first(record):
    return dict(sorted(record.timings.items(), key=lambda item: item[1].median))


def _add_export(parser):
    parser.add_argument("file", metavar="FILE", help="the file to write, or - for standard output")
    parser.add_argument("--all", action="store_true", help="of every environment (default: of this one)")


def export(args) -> int:
    """Write one portable file of the user's records."""
    from convbench import archive, records

    found, broken = archive.stored(records.directory())
    here = records.environment()
    kept = [record for record in found.values() if args.all or record.environment == here]
    _tell_damaged(broken)
    with reading_input():
        if args.json and args.file == "-":
            raise ValueError("--json and FILE - would both write to standard output; give a file's name")
        text = archive.packed(kept)
        if args.file == "-":
            sys.stdout.write(text)
            return 0
        _in_words(records.write_whole, Path(args.file), text)
    timings = sum(len(record.timings) for record in kept)
    told = {"file": args.file, "records": len(kept), "timings": timings}
    _tell(args, told, f"{args.file}: {_plural(len(kept), 'record')}, {_plural(timings, 'timing')}")
    return 0


def _add_import(parser):
    parser.add_argument("file", metavar="FILE", help="what 'convbench records export' wrote, or - for standard input")
    parser.add_argument("--into", metavar="DIR", type=Path, help="a folder to ship (default: the user's records)")
    parser.add_argument("--pin", action="store_true", help="in the form that holds on every machine; with --into")
    parser.add_argument("--replace", action="store_true", help="where both have a timing, take the file's")


def import_(args) -> int:
    """Merge a portable file into records, all or nothing."""
    from convbench import archive, records

    base = args.into or records.directory()
    with reading_input():
        if args.pin and args.into is None:
            raise ValueError("--pin without --into DIR: only records that an application ships can be pinned")
        try:
            text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
            found = archive.unpacked(text)
            found = archive.pin(found) if args.pin else found
        except ValueError as error:
            raise ValueError(f"{args.file}: {error}") from None
        changed = _in_words(archive.merge, found, base, prefer_new=args.replace)
    told = {"file": args.file, "into": base, "records": len(found), "changed": list(changed)}
    _tell(args, told, f"{base}: {len(changed)} of {_plural(len(found), 'record')} in {args.file} brought something new")
    return 0


def _add_clear(parser):
    parser.add_argument("--yes", action="store_true", help="don't ask")


def clear(args) -> int:
    """Remove every record of the user's."""
    from convbench import archive, records

    base = records.directory()
    found = archive.everything(base)
    if found and not args.yes and not _agreed(f"Remove {_count(found)} in {base}?"):
        _tell(args, {"directory": base, "dry_run": False, "removed": []}, "nothing is removed")
        return 0
    return _remove(args, base, found)


def _agreed(question) -> bool:
    if not sys.stdin.isatty():
        raise InputError("'records clear' asks before it removes, and standard input is no terminal; give --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _add_prune(parser):
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def prune(args) -> int:
    """Remove what the judge can't use any more on this machine."""
    from convbench import archive, records

    base = records.directory()
    return _remove(args, base, archive.useless(base), dry_run=args.dry_run)


def _remove(args, base, found, dry_run=False) -> int:
    from convbench import archive

    if not dry_run:
        with reading_input():
            _in_words(archive.remove, found, after="what the list has before it is removed")
    if args.json:
        print_json({"directory": base, "dry_run": dry_run, "removed": found})
        return 0
    for removal in found:
        print(f"{removal.path}{', in part' if removal.timings else ''}: {removal.reason}")
    print(f"{'would remove' if dry_run else 'removed'} {_count(found)} from {base}")
    return 0


def _count(removals) -> str:
    files = _plural(sum(not removal.timings for removal in removals), "file")
    timings = sum(len(removal.timings) for removal in removals)
    return f"{files} and {_plural(timings, 'single timing')}" if timings else files


def _plural(count, noun) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _tell(args, told, words):
    """A line, or JSON where that was asked for."""
    if args.json:
        print_json(told)
    else:
        print(words)


def _tell_damaged(broken):
    for path, reason in broken.items():
        print(f"convbench: left out, {path} is damaged: {reason}", file=sys.stderr)


def _in_words(call, *arguments, after="nothing is changed", **keywords):
    """Call something that writes; where it can't, say where and why, and what that leaves."""
    from convbench import records

    try:
        return call(*arguments, **keywords)
    except OSError as error:
        place = Path(error.filename2 or error.filename or "the disk")
        place = place.parent if place.suffix == records.TEMPORARY else place  # whose name says nothing
        raise OSError(f"{place} can't be written ({error.strerror or error}); {after}") from None
