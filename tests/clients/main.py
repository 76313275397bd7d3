"""Runs the scenarios and prints how each client fared: `main.py FOLDER [PART…]`."""

import sys
import time
import traceback
from pathlib import Path

import browser
import commands
import rpc
import sockets
from house import House

PARTS = {"browser": browser, "sockets": sockets, "rpc": rpc, "commands": commands}


def main():
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"there is no part {unknown[0]!r}, but {', '.join(PARTS)}")
    failed = 0
    with House(folder) as house:
        for name in names:
            failed += run(PARTS[name], house)
        failed += house.is_broken()
    print(f"\n{failed} failed" if failed else "\nall good")
    sys.exit(1 if failed else 0)


def run(part, house):
    """Runs one part; gives how many of its scenarios failed."""
    failed = 0
    for client, what, scenario in part.SCENARIOS.all(house):
        began = time.monotonic()
        try:
            told, trace = scenario(house) or "", None
        except Exception as error:
            failed += 1
            told, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        took = time.monotonic() - began
        print(f"{client:<12} {what:<68} {'FAILED' if trace else 'ok':<6} {took:6.2f} s  {told}", flush=True)
        if trace:
            print(trace, file=sys.stderr, flush=True)
    return failed


main()
