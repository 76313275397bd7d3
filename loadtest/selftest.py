#!/usr/bin/env python3
"""Tests of what turns samples into figures, verdicts and plots. They start nothing and take a few seconds."""

import sys

sys.dont_write_bytecode = True

import pathlib
import random
import tempfile
import unittest
import xml.etree.ElementTree

from suite import baseline, drive, figures, plot, report, scenarios


def run(slow_by=1.0, rounds=5, noise=0.03, seed=1):
    """A run whose rounds are disturbed together, as those of a busy machine are, and each sample by itself a little."""
    draw, samples = random.Random(seed), []
    for number in range(1, rounds + 1):
        disturbed = draw.uniform(1.0, 1.5)
        for peer, us in (("bare", 30.0), ("tollgate", 24.0 * slow_by), ("nginx", 17.0)):
            us *= disturbed * draw.uniform(1 - noise, 1 + noise)
            samples.append({"round": number, "scenario": "plain-1k", "peer": peer, "us": us, "per_second": 1e6 / us, "busy": 0.99})
    return {"samples": samples}


def verdict(before, after, tolerance=0.03):
    rows = baseline.compare(before, after, tolerance)
    return [row["verdict"] for row in rows]


class Baseline(unittest.TestCase):
    def test_the_same_again_is_the_same(self):
        told = [verdict(run(seed=seed), run(seed=seed + 1000)) for seed in range(50)]
        self.assertLessEqual(told.count(["SLOWER"]), 1)

    def test_a_fifth_slower_is_told_through_noise_of_half(self):
        told = [verdict(run(seed=seed), run(1.2, seed=seed + 1000)) for seed in range(20)]
        self.assertEqual(told, [["SLOWER"]] * 20)

    def test_faster_is_told_and_is_no_failure(self):
        rows = baseline.compare(run(), run(0.8, seed=7), 0.03)
        self.assertEqual((rows[0]["verdict"], baseline.slower(rows)), ("faster", []))

    def test_what_is_tolerated_does_not_count(self):
        self.assertNotEqual(verdict(run(noise=0.001), run(1.02, noise=0.001, seed=2)), ["SLOWER"])

    def test_two_rounds_prove_nothing(self):
        self.assertEqual(verdict(run(rounds=2), run(2.0, rounds=2)), ["too few rounds to tell"])

    def test_without_the_reference_times_are_compared(self):
        without = [{"samples": [s for s in run(by, noise=0.01)["samples"] if s["peer"] != "bare"]} for by in (1.0, 2.0)]
        rows = baseline.compare(*without, 0.03)
        self.assertEqual((rows[0]["unit"], rows[0]["verdict"]), ("µs", "SLOWER"))
        self.assertEqual(baseline.compare(without[0], run(), 0.03), [], "times are not compared with ratios")


class Figures(unittest.TestCase):
    def test_ratios_are_of_the_same_round(self):
        samples = [{"scenario": "s", "peer": peer, "round": number, "us": us} for peer, number, us in
                   (("bare", 1, 10.0), ("bare", 2, 100.0), ("t", 1, 20.0), ("t", 2, 200.0), ("t", 3, 1.0))]
        self.assertEqual(figures.ratios(samples, "s", "t", "bare"), [2.0, 2.0])

    def test_a_trend_is_not_moved_by_outliers(self):
        points = [(x, 2.0 * x + (1000 if x % 10 == 0 else 0)) for x in range(100)]
        self.assertAlmostEqual(figures.trend(points), 2.0)
        self.assertEqual(figures.trend([(1, 1)]), 0.0)

    def test_percentiles_over_rounds(self):
        reports = [{"latency": [[50.0, value], [99.0, value * 2]]} for value in (1, 5, 3)]
        self.assertEqual(figures.percentile_medians(reports), [[50.0, 3], [99.0, 6]])


class Written(unittest.TestCase):
    def result(self):
        latency = [[percent, 100.0 + percent] for percent in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0)]
        told = {"requests": 10, "failed": 0, "retried": 1, "reasons": {}, "latency": latency, "late_p99": 5.0}
        return {**run(), "rounds": 5, "seconds": 1, "command": "loadtest/run", "versions": {"nginx": "1"},
                "machine": {"cpu": "c", "cores": 2, "kernel": "6", "commit": "abc", "date": "2026-01-01T00:00:00Z", "load": 0.1},
                "again": ["nginx in plain-1k: has not ended"], "left_out": {"envoy": {"plain-1k": "not\ninstalled", "grpc": "not\ninstalled"}},
                "paced": [{"round": 1, "scenario": "plain-1k", "peer": "tollgate", "rate": 1000, **told}],
                "changes": [{"peer": "tollgate", "change": "reload", "count": 5, "took": 0.1,
                             "quiet": {"kept": told, "new": told}, "during": {"kept": told, "new": told}}]}

    def test_everything_is_written_and_plots_are_well_formed(self):
        with tempfile.TemporaryDirectory() as folder:
            report.write(pathlib.Path(folder) / "a", self.result())
            files = {path.name: path.read_text() for path in pathlib.Path(folder, "a").iterdir()}
        self.assertEqual(sorted(files), ["cpu.svg", "latency-plain-1k.svg", "results.json", "results.md"])
        for name in ("cpu.svg", "latency-plain-1k.svg"):
            root = xml.etree.ElementTree.fromstring(files[name])
            self.assertIn("tollgate", "".join(root.itertext()))
            self.assertIn("prefers-color-scheme: dark", files[name])
        for wanted in ("![cpu.svg](cpu.svg)", "(× 0.8", "5 × reload", "envoy (plain-1k, grpc): not installed", "| 1,000 |", "- nginx in plain-1k"):
            self.assertIn(wanted, files["results.md"])

    def test_lines_over_time(self):
        drawn = plot.over_time("a & b", [("memory", [(0, 1), (1, 2)], str), ("nothing", [], str)])
        self.assertIn("a & b", xml.etree.ElementTree.fromstring(drawn)[0].text)

    def test_nines_take_equal_room(self):
        self.assertEqual([round(plot.nines(percent), 6) for percent in (0, 90, 99, 99.9, 99.99, 100)], [0, 0.25, 0.5, 0.75, 1, 1])


class Scenarios(unittest.TestCase):
    def test_names_are_unique_and_known(self):
        self.assertEqual(len(scenarios.BY_NAME), len(scenarios.ALL))
        for name in (*scenarios.PACED, *scenarios.QUICK, *scenarios.QUICK_PACED):
            self.assertIn(name, scenarios.BY_NAME)

    def test_a_scenario_that_is_not_what_it_says_is_refused(self):
        running = type("", (), {"server": type("", (), {"name": "x"})})
        kept, new = scenarios.BY_NAME["plain-1k"], scenarios.BY_NAME["connection-per-request"]
        drive.require_connections(kept, running, 0.01)
        drive.require_connections(new, running, 1.0)
        with self.assertRaises(drive.Failed):
            drive.require_connections(new, running, 0.01)


if __name__ == "__main__":
    unittest.main()
