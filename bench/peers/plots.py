#!/usr/bin/env python3
"""Plots of what cuda.py and train.py measured, as the papers' figures have it: speed over length, memory over length, the
roofline, and losses over steps. Colours are Okabe and Ito's, which colour-blind readers tell apart; lines differ by their
markers too.

    python bench/peers/plots.py bench/results/peers-NAME.jsonl [--png]      # with matplotlib; writes NAME-forward.svg, ...
    python bench/peers/plots.py bench/results/train-NAME.json
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402

# Name in the rows -> (label, colour, marker).
LOOKS = {
    None: ("Strobe", "#D55E00", "o"),
    "strobe, any order": ("Strobe, not deterministic", "#E69F00", "v"),
    "cuDNN": ("cuDNN", "#009E73", "s"),
    "FlashAttention-2": ("FlashAttention-2", "#0072B2", "^"),
    "FlexAttention": ("FlexAttention", "#CC79A7", "D"),
    "standard attention": ("standard attention", "#666666", "X"),
    "pytorch": ("PyTorch", "#0072B2", "^"),
    "onnxruntime": ("ONNX Runtime", "#009E73", "s"),
}
STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 8, "legend.frameon": False,
         "svg.fonttype": "none", "svg.hashsalt": "strobe", "savefig.dpi": 160}


def short(length: int) -> str:
    return f"{length // 1024}k" if length >= 1024 else str(length)


def peers_of(rows: list[dict]) -> list[str | None]:
    return [peer for peer in LOOKS if any(row["peer"] == peer for row in rows)]


def legend(figure: Figure, peers: list[str | None], markers: bool) -> None:
    """Below the panels: everyone who is in one of them."""
    looks = [LOOKS[peer] for peer in peers]
    handles = [Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=1.2, label=label) if markers
               else Patch(color=colour, label=label) for label, colour, marker in looks]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def speed(rows: list[dict], kind: str, device: str) -> Figure | None:
    """Bars of TFLOP/s (on a CPU GFLOP/s) over the length, a panel for each type, head dimension and mask."""
    rows = [row for row in rows if row["pass"] == kind and row["ms"] is not None]
    if not rows:
        return None
    unit, scale = ("GFLOP/s", 1e3) if rows[0]["backend"] == "cpu" else ("TFLOP/s", 1.0)
    peers, columns = peers_of(rows), sorted({(row["dtype"], row["head_dim"]) for row in rows})
    figure, panels = pyplot.subplots(2, len(columns), figsize=(max(3.2 * len(columns), 4.8), 4.6), sharex=True, squeeze=False,
                                     layout="constrained")
    for (dtype, dim), column in zip(columns, panels.T):
        for causal, axes in zip((False, True), column):
            of_panel = [row for row in rows if (row["dtype"], row["head_dim"], row["causal"]) == (dtype, dim, causal)]
            lengths = sorted({row["query_length"] for row in of_panel})
            for place, peer in enumerate(peers):
                found = {row["query_length"]: scale * row["tflops"] for row in of_panel if row["peer"] == peer}
                width = 0.84 / len(peers)
                axes.bar([at - 0.42 + width * (place + 0.5) for at, length in enumerate(lengths) if length in found],
                         [found[length] for length in lengths if length in found], width, color=LOOKS[peer][1])
            axes.set_xticks(range(len(lengths)), list(map(short, lengths)))
            axes.set_title(f"{dtype}, head dimension {dim}, {'causal' if causal else 'full'}")
            axes.grid(axis="y", linewidth=0.3)
            axes.set_axisbelow(True)
    for axes in panels[:, 0]:
        axes.set_ylabel(unit)
    for axes in panels[-1]:
        axes.set_xlabel("sequence length")
    figure.suptitle(f"{kind.capitalize()} pass, {device}")
    legend(figure, peers, markers=False)
    return figure


def memory(rows: list[dict], device: str) -> Figure | None:
    """Memory and time of a training step of one layer over the length."""
    rows = [row for row in rows if row["pass"] == "training" and row["batch"] == 1 and row.get("memory_bytes")]
    if not rows:
        return None
    figure, panels = pyplot.subplots(1, 2, figsize=(7.2, 3), layout="constrained")
    for axes, quantity, unit, title in ((panels[0], "memory_bytes", 2**-30, "memory beyond the inputs, GiB"),
                                        (panels[1], "ms", 1.0, "time, ms")):
        for place, peer in enumerate(peers_of(rows)):
            points = sorted((row["query_length"], row[quantity] * unit) for row in rows
                            if row["peer"] == peer and row["ms"] is not None)
            _, colour, marker = LOOKS[peer]
            size = max(7 - 1.5 * place, 2.5)  # so that those behind are seen where lines coincide
            axes.plot(*zip(*points), color=colour, marker=marker, markersize=size, linewidth=size / 3)
        lengths = sorted({row["query_length"] for row in rows})
        axes.set(xscale="log", yscale="log", title=title, xlabel="sequence length")
        axes.set_xticks(lengths, list(map(short, lengths)))
        axes.minorticks_off()
        axes.grid(linewidth=0.3)
    figure.suptitle(f"Forward and backward, {rows[0]['query_heads']} heads of dimension {rows[0]['head_dim']}, causal, {device}")
    legend(figure, peers_of(rows), markers=True)
    return figure


def roofline(rows: list[dict], machine: dict) -> Figure | None:
    """Strobe's TFLOP/s over the operations for each byte that has to be moved, under what the card reaches."""
    kinds = {"forward": ("#D55E00", "o"), "backward": ("#0072B2", "s"), "decode": ("#009E73", "^")}
    rows = [row for row in rows if row["peer"] is None and row["pass"] in kinds and row["ms"] is not None and row.get("bytes_moved")]
    if not rows or "matmul_tflops" not in machine:
        return None
    figure, axes = pyplot.subplots(figsize=(5.4, 3.4), layout="constrained")
    top, slope = machine["matmul_tflops"], machine["copy_gbps"] * 1e-3  # TFLOP/s, TB/s
    intensity = lambda row: row["tflops"] * 1e12 * row["ms"] * 1e-3 / row["bytes_moved"]
    least, most = min(map(intensity, rows)) / 2, 2 * max(map(intensity, rows))
    roof = [least, top / slope, most]
    axes.plot(roof, [min(top, slope * x) for x in roof], color="black", linewidth=1)
    axes.annotate(f"matrix product {top:.0f} TFLOP/s", (most, top), ha="right", va="bottom")
    middle = (least * roof[1]) ** 0.5
    axes.annotate(f"copy {machine['copy_gbps']:.0f} GB/s", (middle, slope * middle), xytext=(6, -2), textcoords="offset points",
                  va="top")
    for kind, (colour, marker) in kinds.items():
        of_kind = [row for row in rows if row["pass"] == kind]
        if of_kind:
            axes.scatter(list(map(intensity, of_kind)), [row["tflops"] for row in of_kind], s=14, color=colour, marker=marker,
                         label=kind, linewidths=0, zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte of inputs and results", ylabel="TFLOP/s",
             title=f"Strobe on {machine['device']}", ylim=(None, 2 * top))
    axes.grid(linewidth=0.3)
    axes.legend(loc="lower right")
    return figure


def losses(report: dict) -> Figure | None:
    """The losses of eager attention and of Strobe's on one another, and their difference below."""
    rows = {row["attention"]: row["losses"] for row in report["rows"] if not row["compiled"] and row.get("losses")}
    if not {"eager", "Strobe"} <= rows.keys() or len(rows["Strobe"]) < 10:
        return None
    count = min(len(rows["eager"]), len(rows["Strobe"]))
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(5.4, 3.8), height_ratios=(3, 1), sharex=True, layout="constrained")
    steps = range(1, count + 1)
    above.plot(steps, rows["eager"][:count], color=LOOKS["standard attention"][1], linewidth=3, alpha=0.5, label="eager attention")
    above.plot(steps, rows["Strobe"][:count], color=LOOKS[None][1], linewidth=1, label="Strobe")
    below.plot(steps, [ours - other for ours, other in zip(rows["Strobe"], rows["eager"][:count])], color="black", linewidth=0.8)
    above.set(ylabel="loss, nats a byte", title=f"{report['model']}, {report['batch']} x {report['length']} bytes, {report['device']}")
    below.set(xlabel="step", ylabel="difference")
    above.legend()
    for axes in (above, below):
        axes.grid(linewidth=0.3)
    return figure


def figures_of(path: pathlib.Path) -> dict[str, Figure | None]:
    """Suffix of the file -> figure."""
    if path.suffix == ".json":
        return {"losses": losses(json.loads(path.read_text()))}
    machine, *rows = map(json.loads, path.read_text().splitlines())
    if "device" not in machine:  # what cpu.py writes has rows only
        machine, rows = {"device": "CPU"}, [machine, *rows]
    device = machine["device"].replace("NVIDIA ", "")
    alone = [row for row in rows if row.get("clock") == "alone"]
    rows = [row for row in rows if row.get("clock") != "alone"]
    return {"forward": speed(rows, "forward", device), "backward": speed(rows, "backward", device),
            "forward-alone": speed(alone, "forward", f"each call alone, {device}"),
            "backward-alone": speed(alone, "backward", f"each call alone, {device}"), "memory": memory(rows, device), "roofline": roofline(rows, machine)}


def draw(path: pathlib.Path, formats: tuple[str, ...] = ("svg",)) -> list[str]:
    """Writes the figures that the rows of `path` suffice for beside it; gives the files' names."""
    written = []
    with pyplot.rc_context(STYLE):
        for suffix, figure in figures_of(path).items():
            if figure is None:
                continue
            for form in formats:
                file = path.with_name(f"{path.stem}-{suffix}.{form}")
                figure.savefig(file, metadata={"Date": None} if form == "svg" else None)
                written.append(file.name)
            pyplot.close(figure)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, nargs="+")
    parser.add_argument("--png", action="store_true", help="pictures too")
    arguments = parser.parse_args()
    for path in arguments.results:
        print(", ".join(draw(path, ("svg", "png") if arguments.png else ("svg",))) or f"{path}: nothing to draw")
    return 0


if __name__ == "__main__":
    sys.exit(main())
