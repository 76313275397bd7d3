"""From samples to figures. A sample is a dictionary with scenario, peer, round and what was measured."""

import random
import statistics

import peers

RESAMPLES = 4000


def of(samples, scenario, peer):
    """The samples of one peer in one scenario, by round."""
    return {s["round"]: s for s in samples if s["scenario"] == scenario and s["peer"] == peer}


def peers_of(samples):
    """Who took part, in the order of the tables."""
    names = {sample["peer"] for sample in samples}
    return sorted(names, key=lambda name: (peers.ORDER.index(name) if name in peers.ORDER else len(peers.ORDER), name))


def scenarios_of(samples):
    return list(dict.fromkeys(sample["scenario"] for sample in samples))


def ratios(samples, scenario, peer, reference, what="us"):
    """Within each round, this peer's over the reference's: what disturbs a round disturbs both."""
    mine, theirs = of(samples, scenario, peer), of(samples, scenario, reference)
    return [sample[what] / theirs[number][what] for number, sample in sorted(mine.items()) if number in theirs]


def rows(samples, reference="bare"):
    """One for each scenario and peer: medians, and the spread of the ratios."""
    found = []
    for scenario in scenarios_of(samples):
        for peer in peers_of(samples):
            mine = of(samples, scenario, peer).values()
            if mine:
                spread = ratios(samples, scenario, peer, reference)
                found.append({
                    "scenario": scenario, "peer": peer, "us": median(mine, "us"), "per_second": median(mine, "per_second"),
                    "busy": median(mine, "busy"),
                    "ratio": statistics.median(spread) if spread else None,
                    "least": min(spread, default=None), "most": max(spread, default=None)})
    return found


def median(samples, what):
    return statistics.median(sample[what] for sample in samples)


def change(before, after, resamples=RESAMPLES, seed=1):
    """How the median of `after` compares to that of `before`: the ratio, and the interval in which it lies in 99 of 100
    cases, by bootstrap: rounds are drawn again and again with replacement, and the medians of the draws compared. With few
    rounds the interval comes to the whole spread, so that few rounds never prove anything that they do not show.
    """
    draw = random.Random(seed)
    found = sorted(statistics.median(draw.choices(after, k=len(after))) / statistics.median(draw.choices(before, k=len(before)))
                   for _ in range(resamples))
    at = resamples // 200
    return statistics.median(after) / statistics.median(before), found[at], found[-1 - at]


def percentile_medians(reports):
    """Of several reports of the generator, the median of each percentile."""
    columns = zip(*(report["latency"] for report in reports))
    return [[column[0][0], statistics.median(value for _, value in column)] for column in columns]


def at(percentiles, wanted):
    """The value of one percentile of a report."""
    return next(value for percent, value in percentiles if percent == wanted)


def trend(points):
    """The slope of a line through (x, y) that outliers do not move: the median of the slopes between all pairs."""
    points = points[::max(1, len(points) // 300)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1:] if b[0] > a[0]]
    return statistics.median(slopes) if slopes else 0.0
