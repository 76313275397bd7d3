"""What a run leaves behind: JSON with every sample, tables in Markdown, plots."""

import json

from suite import figures, plot, scenarios

PERCENTS = (50.0, 90.0, 99.0, 99.9, 100.0)


def write(folder, result):
    """Writes everything into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result, indent=None, ensure_ascii=False, separators=(",", ":")) + "\n")
    plots = []
    if result["samples"]:
        plots.append("cpu.svg")
        (folder / "cpu.svg").write_text(cpu_plot(result["samples"]))
    for scenario in figures.scenarios_of(result["paced"]):
        plots.append(f"latency-{scenario}.svg")
        (folder / plots[-1]).write_text(latency_plot(scenario, result["paced"]))
    (folder / "results.md").write_text(markdown(result, plots))


def says(name):
    return scenarios.BY_NAME[name].says if name in scenarios.BY_NAME else name


def cpu_plot(samples):
    panels = []
    rows = figures.rows(samples)
    for scenario in figures.scenarios_of(samples):
        entries = [(row["peer"], row["us"], cell(row)) for row in rows if row["scenario"] == scenario]
        panels.append((scenario, entries))
    return plot.bars("CPU time of the proxy for each request, µs (× bare Pingora in the same round)", panels)


def latency_plot(scenario, reports):
    panels = []
    for rate in dict.fromkeys(r["rate"] for r in reports if r["scenario"] == scenario):
        lines = {peer: figures.percentile_medians(of) for peer, of in by_peer(reports, scenario, rate).items()}
        panels.append((f"{rate:,} requests/s", lines))
    return plot.percentiles(f"{scenario}: latency from when a request was due, by percentile", panels)


def by_peer(reports, scenario, rate):
    found = {}
    for report in reports:
        if (report["scenario"], report["rate"]) == (scenario, rate):
            found.setdefault(report["peer"], []).append(report)
    return {peer: found[peer] for peer in figures.peers_of(reports) if peer in found}


def cell(row):
    ratio = f" (× {row['ratio']:.2f})" if row["ratio"] and row["peer"] != "bare" else ""
    return f"{row['us']:.1f}{ratio}"


def markdown(result, plots):
    parts = ["# Load test", machine(result), *[f"![{name}]({name})" for name in plots]]
    if result["samples"]:
        parts += ["## CPU time for each request", closed_says(result), overview(result["samples"]), "## Spread", spread(result["samples"])]
    if result["paced"]:
        parts += ["## Latency at fixed rates", "Milliseconds from when a request was due to the last byte of its answer, medians over the rounds.",
                  paced(result["paced"])]
    if result["changes"]:
        parts += ["## During changes", "2,000 requests/s over kept connections and 200 over new ones. *Resent* counts requests that were sent "
                  "a second time because the server had closed the kept connection unused, as any client does.", changes(result["changes"])]
    if result["left_out"]:
        parts += ["## Left out", "\n".join(f"- {line}" for line in left_out(result["left_out"]))]
    if result["again"]:
        parts += ["## Taken again", "Samples that failed once and were measured a second time.",
                  "\n".join(f"- {line[:300]}" for line in result["again"])]
    return "\n\n".join(parts) + "\n"


def machine(result):
    machine = result["machine"]
    lines = [f"`{result['command']}` at {machine['commit']}, {machine['date']}.", "",
             f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, load {machine['load']} at the start.",
             "", "; ".join(f"{name} {version}" for name, version in result["versions"].items()) + "."]
    return "\n".join(lines)


def closed_says(result):
    return (f"Microseconds of user and system time of the proxy, medians of {result['rounds']} interleaved rounds of {result['seconds']} s; "
            "in brackets the median of the ratios to `bare` within each round.")


def overview(samples):
    rows, peers = figures.rows(samples), figures.peers_of(samples)
    cells = {(row["scenario"], row["peer"]): cell(row) for row in rows}
    return table(["scenario", *peers], [[f"`{scenario}`: {says(scenario)}", *(cells.get((scenario, peer), "") for peer in peers)]
                                        for scenario in figures.scenarios_of(samples)])


def spread(samples):
    return table(["scenario", "peer", "µs/request", "× bare", "least…most", "requests/s", "busy"],
                 [[row["scenario"], row["peer"], f"{row['us']:.1f}", *ratio(row), f"{row['per_second']:,.0f}", f"{row['busy']:.0%}"]
                  for row in figures.rows(samples)])


def ratio(row):
    return [f"{row['ratio']:.3f}", f"{row['least']:.2f}…{row['most']:.2f}"] if row["ratio"] else ["", ""]


def paced(reports):
    rows = []
    for scenario in figures.scenarios_of(reports):
        for rate in dict.fromkeys(r["rate"] for r in reports if r["scenario"] == scenario):
            for peer, of in by_peer(reports, scenario, rate).items():
                line = figures.percentile_medians(of)
                rows.append([scenario, f"{rate:,}", peer, *(f"{figures.at(line, p) / 1000:.3f}" for p in PERCENTS),
                             sum(r["failed"] for r in of), note(of)])
    return table(["scenario", "rate", "peer", *(f"p{p:g}" if p < 100 else "most" for p in PERCENTS), "failed", ""], rows)


def note(reports):
    """Where the generator itself was late, the latency is partly its own."""
    late = figures.median(reports, "late_p99")
    return f"generator late: p99 {late / 1000:.1f} ms" if late > 1000 else ""


def changes(rows):
    found = []
    for row in rows:
        for kind in ("kept", "new"):
            quiet, during = row["quiet"][kind], row["during"][kind]
            latency = [f"{figures.at(report['latency'], p) / 1000:.2f}" for p in (50.0, 99.0, 100.0) for report in (quiet, during)]
            found.append([row["peer"], f"{row['count']} × {row['change']}", kind, *latency, f"{during['requests']:,}",
                          during["failed"] or "none", during["retried"] or "none"])
    heads = [f"{name} {when}" for name in ("p50", "p99", "most") for when in ("quiet", "during")]
    return table(["peer", "change", "connections", *heads, "requests", "lost", "resent"], found)


def left_out(reasons):
    """One line for each peer and reason."""
    for peer, scenarios in reasons.items():
        for reason in dict.fromkeys(scenarios.values()):
            names = [name for name, why in scenarios.items() if why == reason]
            yield f"{peer} ({', '.join(names)}): {' '.join(reason.split())[-300:]}"


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(part) for part in line) + " |" for line in lines)


def terminal(result):
    """The table that a run prints."""
    lines = [f"{'scenario':24} {'peer':10} {'µs/request':>10} {'requests/s':>10} {'busy':>5} {'× bare':>7}   least…most"]
    for row in figures.rows(result["samples"]):
        ratio, least, most = (row[k] or 0 for k in ("ratio", "least", "most"))
        lines.append(f"{row['scenario']:24} {row['peer']:10} {row['us']:10.1f} {row['per_second']:10.0f} {row['busy']:5.0%} "
                     f"{ratio:7.2f}   {least:.2f}…{most:.2f}")
    for report in result["paced"]:
        p50, p99, most = (figures.at(report["latency"], p) / 1000 for p in (50.0, 99.0, 100.0))
        lines.append(f"{report['scenario']:24} {report['peer']:10} {report['rate']:6,}/s   p50 {p50:.3f} ms, p99 {p99:.3f} ms, most {most:.2f} ms"
                     f", failed {report['failed']}")
    for row in result["changes"]:
        for kind in ("kept", "new"):
            during, quiet = row["during"][kind], row["quiet"][kind]
            lines.append(f"{row['change']:24} {row['peer']:10} {kind}: p99 {figures.at(during['latency'], 99.0) / 1000:.2f} ms (quiet "
                         f"{figures.at(quiet['latency'], 99.0) / 1000:.2f}), most {figures.at(during['latency'], 100.0) / 1000:.2f} ms; "
                         f"{during['requests']:,} requests, lost {during['failed']}, resent {during['retried']}")
    return "\n".join(lines)
