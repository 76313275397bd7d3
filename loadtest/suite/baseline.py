"""Two runs compared, with their noise."""

from suite import figures

ROUNDS_NEEDED = 3


def compare(before, after, tolerance):
    """A row for everything that both runs have measured of tollgate. Compared are ratios to `bare` of the same round, which a
    slower machine does not change; where it is missing, the times themselves."""
    rows = []
    for scenario in figures.scenarios_of(after["samples"]):
        for peer in figures.peers_of(after["samples"]):
            if peer.startswith("tollgate"):
                pair = [values(run["samples"], scenario, peer) for run in (before, after)]
                if pair[0] and pair[1] and pair[0][0] == pair[1][0]:
                    rows.append(row(scenario, peer, pair[0], pair[1][1], tolerance))
    return rows


def values(samples, scenario, peer):
    """What is compared, and the values; None if there are none."""
    relative = figures.ratios(samples, scenario, peer, "bare")
    absolute = [sample["us"] for sample in figures.of(samples, scenario, peer).values()]
    return ("× bare", relative) if relative else ("µs", absolute) if absolute else None


def row(scenario, peer, before, after, tolerance):
    unit, before = before
    change, low, high = figures.change(before, after)
    return {"scenario": scenario, "peer": peer, "unit": unit, "change": change, "low": low, "high": high,
            "verdict": verdict(min(len(before), len(after)), change, low, high, tolerance)}


def verdict(rounds, change, low, high, tolerance):
    """A change counts when it is larger than what is tolerated and the whole interval lies on its side of 1."""
    if rounds < ROUNDS_NEEDED:
        return "too few rounds to tell"
    if change > 1 + tolerance and low > 1:
        return "SLOWER"
    if change < 1 - tolerance and high < 1:
        return "faster"
    return "same" if high < 1 + 3 * tolerance else "cannot tell: too noisy"


def slower(rows):
    return [row for row in rows if row["verdict"] == "SLOWER"]


def table(rows):
    """As text for a terminal."""
    lines = [f"{'scenario':24} {'peer':10} {'compared':9} {'now / then':>10}   99 % interval    verdict"]
    lines += [f"{r['scenario']:24} {r['peer']:10} {r['unit']:9} {r['change']:10.3f}   {r['low']:.3f} … {r['high']:.3f}    {r['verdict']}"
              for r in rows]
    return "\n".join(lines)
