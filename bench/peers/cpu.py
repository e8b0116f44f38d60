#!/usr/bin/env python3
"""Strobe, PyTorch and ONNX Runtime on the same inputs, in turn, in one process, on the CPU.

Every case is timed in rounds; in a round each contender rests, warms up and runs, one after the other. Figures are medians over
the rounds, the spread is (largest - smallest) / median. Before that, the results are compared. Tables and JSON lines go to
bench/results; a run of some cases (--only) replaces these and keeps the others. bench/peers/run sets everything up.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import re
import statistics
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--library", type=pathlib.Path, required=True, help="libstrobe.so")
parser.add_argument("--only", default="", help="a regular expression: run the cases whose name it matches")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--seconds", type=float, default=8, help="about how long a case may take; at least 3 rounds are made")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1] / "results")
parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
arguments = parser.parse_args()

# Both pools read these when they are made.
os.environ["STROBE_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(arguments.threads)

import onnxruntime  # noqa: E402
import torch  # noqa: E402

from cases import Case, Prepared, largest_difference  # noqa: E402
from contenders import OnnxRuntime, Torch, TorchGroupsAsRows  # noqa: E402
from strobe_abi import Strobe  # noqa: E402

REST_SECONDS = 0.05
SHORT_CALL_SECONDS = 0.03  # calls up to this are warmed up by one more, and repeated

CASES = [
    *(Case("forward", dtype, length, dim, causal) for dtype in ("float32", "bfloat16") for causal in (False, True)
      for dim in (64, 128) for length in (1024, 4096)),
    *(Case("backward", dtype, length, dim, causal) for dtype in ("float32", "bfloat16") for causal in (False, True)
      for dim in (64, 128) for length in (1024, 4096)),
    *(Case("decode", dtype, 32768, 128, False, query_heads=32, kv_heads=8, query_length=1) for dtype in ("float32", "bfloat16")),
]


def target_ratio(case: Case) -> float:
    """How many times the better peer Strobe aims to be."""
    if case.kind == "decode":
        return 3.0
    if case.kind == "backward":
        return 1.5
    return 1.8 if case.dtype == "float32" and case.causal else 1.2


def make_tensors(case: Case) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(20)
    normal = lambda heads, length: torch.randn(case.batch, heads, length, case.dim, generator=generator).to(case.torch_dtype)
    return {"query": normal(case.query_heads, case.queries), "key": normal(case.kv_heads, case.length),
            "value": normal(case.kv_heads, case.length), "grad_output": normal(case.query_heads, case.queries)}


def time_once(prepared: Prepared) -> float:
    """Seconds of one call, after a rest; short calls are warmed up and repeated."""
    time.sleep(REST_SECONDS)
    begin = time.perf_counter()
    prepared.run()
    first = time.perf_counter() - begin
    if first > SHORT_CALL_SECONDS:
        return first
    repeats = []
    while len(repeats) < 3 or sum(repeats) < SHORT_CALL_SECONDS:
        begin = time.perf_counter()
        prepared.run()
        repeats.append(time.perf_counter() - begin)
    return statistics.median(repeats)


def measure(case: Case, contenders: list) -> list[dict]:
    tensors = make_tensors(case)
    prepared = {}
    for contender in contenders:
        outcome = contender.prepare(case, tensors)
        if isinstance(outcome, Prepared):
            outcome.run()
            prepared[contender.name] = outcome
    ours = prepared["strobe"].results()
    tolerance = 1e-4 if case.dtype == "float32" else 2e-2
    differences = {name: largest_difference(ours, peer.results()) for name, peer in prepared.items()}
    for name, difference in differences.items():
        if not difference <= tolerance:
            sys.exit(f"{case.name}: results differ from {name} by {difference:.2g} of the largest value")

    times: dict[str, list[float]] = {name: [] for name in prepared}
    begin = time.perf_counter()
    for done in range(arguments.rounds):
        if done >= 3 and time.perf_counter() - begin > arguments.seconds:
            break
        for name, contender in prepared.items():
            times[name].append(time_once(contender))

    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for name, contender in prepared.items():
        seconds = medians[name]
        rows.append({
            "case": case.name, "backend": "cpu", "kernel": contender.kernel, "pass": case.kind, "dtype": case.dtype,
            "head_dim": case.dim, "value_dim": case.dim, "batch": case.batch, "query_heads": case.query_heads,
            "kv_heads": case.kv_heads, "query_length": case.queries, "key_length": case.length, "causal": case.causal,
            "threads": arguments.threads, "ms": seconds * 1e3, "spread": (max(times[name]) - min(times[name])) / seconds,
            "tflops": case.flops / seconds * 1e-12, "gbps": case.bytes_of_keys_and_values / seconds * 1e-9,
            "peak": None, "peak_fraction": None, "peer": None if name == "strobe" else name,
            "ratio": None if name == "strobe" else seconds / medians["strobe"],
            "difference": differences[name], "rounds": len(times[name]),
        })
    return rows


def machine() -> str:
    model = platform.processor() or platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} processors, {arguments.threads} threads"


def table_of(rows: list[dict]) -> str:
    """One line a case: what Strobe takes, what each peer takes, and the ratio to the better one."""
    lines = [
        "# Strobe and its peers on the CPU", "",
        f"{machine()}; {pathlib.Path(arguments.library).name} by its C interface, PyTorch {torch.__version__}, "
        f"ONNX Runtime {onnxruntime.__version__}.",
        "Milliseconds, medians of alternating rounds (spread in per cent), made by bench/peers/run. Storage (batch, heads, length, dim) for",
        "Strobe and PyTorch, which is PyTorch's own; (batch, length, heads x dim) for ONNX Runtime, as its operator demands, and a cache",
        "(batch, heads, length, dim) for its decoding. Backward is timed alone. In decoding PyTorch is the better of enable_gqa and",
        "groups passed as rows.", "",
        "| case | Strobe | rate | PyTorch | ONNX Runtime | ratio to the better | target | met |", "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        of_case = {row["peer"] or "strobe": row for row in rows if row["case"] == case.name}
        if "strobe" not in of_case:
            continue
        ours = of_case.pop("strobe")
        show = lambda row: f"{row['ms']:.3g} ({100 * row['spread']:.0f}%)" if row else "-"
        torch_rows = [row for name, row in of_case.items() if name.startswith("pytorch")]
        ratio = min(row["ratio"] for row in of_case.values())
        rate = f"{ours['gbps']:.1f} GB/s" if case.kind == "decode" else f"{1e3 * ours['tflops']:.0f} GFLOP/s"
        lines.append(f"| {case.name} | {show(ours)} | {rate} | {show(min(torch_rows, key=lambda row: row['ms']))} | "
                     f"{show(of_case.get('onnxruntime'))} | {ratio:.2f} | {target_ratio(case)} | "
                     f"{'yes' if ratio >= target_ratio(case) else 'no'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    chosen = [case for case in CASES if re.search(arguments.only, case.name)]
    if arguments.list:
        print("\n".join(case.name for case in chosen))
        return
    torch.set_num_threads(arguments.threads)
    contenders = [Strobe(arguments.library), Torch(), TorchGroupsAsRows(), OnnxRuntime(arguments.threads)]

    arguments.results.mkdir(parents=True, exist_ok=True)
    json_path = arguments.results / "peers-cpu.jsonl"
    names = {case.name for case in chosen}
    rows = [row for row in map(json.loads, json_path.read_text().splitlines() if json_path.exists() else []) if row["case"] not in names]
    for case in chosen:
        measured = measure(case, contenders)
        rows += measured
        ratio = min(row["ratio"] for row in measured if row["ratio"] is not None)
        print(f"{case.name}: {measured[0]['ms']:.3g} ms, {ratio:.2f} times the better peer (target {target_ratio(case)})", flush=True)
    order = {case.name: position for position, case in enumerate(CASES)}
    rows.sort(key=lambda row: order.get(row["case"], len(order)))
    json_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (arguments.results / "peers-cpu.md").write_text(table_of(rows))
    print(f"{arguments.results / 'peers-cpu.md'} and {json_path.name} written")
    if importlib.util.find_spec("matplotlib"):
        import plots
        print("plots: " + ", ".join(plots.draw(json_path)))


if __name__ == "__main__":
    main()
