"""The table and the figure of a record of `time_to_loss.py`, from its JSON alone.

    python benchmarks/draw.py RECORD.json --figure FIGURE.png

The table goes to standard output as Markdown. Its seconds are those of the best setting for each level; its last
columns and the figure are those of the setting that came furthest.
"""

import argparse
import json
import math
from pathlib import Path

_NAMES = {
    "concordax-dual": "concordax, `Dual()`",
    "naive": "naive dual step",
    "scikit-learn": "scikit-learn MLP (own network)",
}


def table(results: list[dict]) -> str:
    """One workload: a row a peer, the fastest first, with seconds to each level and the final loss."""
    about = next((each for each in results if "levels" in each), None)
    if about is None:
        return "\n".join(f"{each['peer']}: {each['error']}" for each in results)
    levels = about["levels"]
    lines = [
        f"**{about['workload']}**: {about['title']}; {about['parameters']} parameters, loss at the start "
        f"{about['start_loss']:.2g}. Seconds to a training loss:",
        "",
        "| | " + " | ".join(f"{level:g}" for level in levels) + " | final loss | steps | settings |",
        "|---|" + "---|" * (len(levels) + 3),
    ]
    for each in sorted((each for each in results if "error" not in each), key=_order):
        cells = ["" if seconds is None else _seconds(seconds) for seconds in _best_times(each)]
        settings = ", ".join(f"{key} {value}" for key, value in each["settings"].items() if value is not None)
        numbers = f"{each['final_loss']:.1e} | {each['steps']}"
        lines.append(f"| {_name(each)} | " + " | ".join(cells) + f" | {numbers} | {settings} |")
    notes = [f"- {_name(each)}: {each['error']}" for each in results if "error" in each]
    notes += [f"- {_name(each)}: {each['note']}" for each in results if each.get("note") and "error" not in each]
    return "\n".join([*lines, "", *notes]) + "\n"


def markdown(record: dict) -> str:
    """The tables of all workloads."""
    return "\n".join(table(each) for each in _by_workload(record).values())


def _by_workload(record: dict, names: list[str] | None = None) -> dict[str, list[dict]]:
    results = record["results"]
    names = names or list(dict.fromkeys(each["workload"] for each in results))
    return {name: [each for each in results if each["workload"] == name] for name in names}


def _name(result: dict) -> str:
    return _NAMES.get(result["peer"], result["peer"])


def _order(result: dict) -> tuple:
    reached = [each for each in result["times"] if each is not None]
    return -len(reached), reached[-1] if reached else math.inf, result["final_loss"]


def _best_times(result: dict) -> list[float | None]:
    """Each level at the setting that was best for it: a peer is not made to choose one for all."""
    # The median of the repeated setting counts in place of its first run, unless another setting was faster.
    others = [each["times"] for each in result["tried"] if "times" in each and each["settings"] != result["settings"]]
    columns = zip(result["times"], *others, strict=True)
    return [min((each for each in column if each is not None), default=None) for column in columns]


def _seconds(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def figure(by_workload: dict[str, list[dict]], path: Path) -> None:
    """Loss against seconds, both logarithmic, a panel a workload; points before a millisecond are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    width = len(by_workload)
    canvas, axes = pyplot.subplots(1, width, figsize=(6.0 * width, 5.0), squeeze=False, layout="constrained")
    peers = list(dict.fromkeys(each["peer"] for results in by_workload.values() for each in results))
    colours = {peer: pyplot.get_cmap("tab20")(2 * index % 20 + index // 10) for index, peer in enumerate(peers)}
    for panel, (name, results) in zip(axes[0], by_workload.items(), strict=True):
        for each in (each for each in results if "trace" in each):
            points = [p for p in zip(each["trace"]["seconds"], each["trace"]["losses"], strict=True) if p[0] > 1e-3]
            ours = each["peer"] == "concordax"
            panel.plot(
                *zip(*points, strict=True), label=each["peer"], color="black" if ours else colours[each["peer"]],
                linewidth=2.4 if ours else 1.3, marker="o", markersize=3.5 if ours else 1.5,
            )  # fmt: skip
        title = next((each["title"] for each in results if "title" in each), "")
        panel.set(xscale="log", yscale="log", xlabel="seconds, one core, warm", ylabel="training loss")
        panel.set_title(f"{name}: {title}", fontsize=9)
        panel.grid(alpha=0.25)
    handles = {label: line for panel in axes[0] for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    canvas.savefig(path, dpi=150)


def main() -> None:
    """Prints the tables and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--workloads", nargs="+", help="these alone")
    arguments = parser.parse_args()
    by_workload = _by_workload(json.loads(arguments.record.read_text()), arguments.workloads)
    print("\n".join(table(each) for each in by_workload.values()))
    if arguments.figure:
        figure(by_workload, arguments.figure)


if __name__ == "__main__":
    main()
