#!/usr/bin/env python3
"""Strobe and PyTorch's FlashAttention-2 and cuDNN on the same tensors, in turn, in one process, on a GPU.

--preset names the cases (cases.py): fa2-fig7, the FlashAttention papers' grid, forward and backward; fa3-fig5, its forward
half; fa1-fig2, a layer of GPT-2 medium; fa1-memory, lengths up to 64k, for their memory; decode; fa3-table3, errors against
float64 (accuracy.py). Results are compared first; a peer whose results differ is not timed against. Then come rounds: in each,
every contender rests, warms up and is timed call by call with CUDA events: queued behind a read of more memory than the L2 cache holds, so that no input waits there and the host's time is
hidden, or with --clock alone from an idle GPU, host time included. A round's figure is the median of its calls, a case's the
mean over rounds; the spread is (largest - smallest round) / mean. Ratios are the peer's time over Strobe's. The backward pass
comes in both of Strobe's modes. Memory is what a call allocates at its peak, results included. A table, plots and JSON lines
go to bench/results, the lines after every case, so that a run that is stopped leaves what it has; cases that are there from an
earlier run on the same machine stay. bench/peers/run sets everything up.

With --device cpu and few --tokens the whole script can be tried without a GPU; its figures mean nothing then.
"""

import argparse
import importlib.util
import json
import math
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

from cases import ANY_ORDER, BYTES, NOT_THIS_PASS, PRESETS, Case, Prepared, largest_difference, preset, quick

PASSES = ("forward", "backward", "training", "decode")
QUEUED, ALONE = "queued", "alone"  # the clocks
LARGEST_DIFFERENCE = 2e-2  # of bfloat16 results, over the largest value
WARM_UPS = 5


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=(*PRESETS, "fa3-table3"), action="append",
                        help="these cases; may be given several times; fa2-fig7 and decode unless given")
    parser.add_argument("--peers", default="", help="a regular expression: the contenders, beside Strobe, whose name it matches")
    parser.add_argument("--only", choices=PASSES, action="append", help="this pass; may be given several times")
    parser.add_argument("--filter", default="", help="a regular expression: the cases whose name it matches")
    parser.add_argument("--quick", action="store_true", help="three lengths, head dimensions 64 and 128, one round")
    parser.add_argument("--rounds", type=int, help="2 unless given, with --quick 1")
    parser.add_argument("--clock", choices=(QUEUED, ALONE), action="append",
                        help="queued: each call behind a read that empties the L2 cache, which hides the time of the host; alone: "
                             "each from an idle GPU, with the time of the host and what the caches hold; may be given twice; "
                             "queued unless given")
    parser.add_argument("--repeats", type=int, default=30, help="timed calls in a round")
    parser.add_argument("--rest", type=float, default=0.2, help="seconds of rest before a contender is timed")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no case after this time")
    parser.add_argument("--tokens", type=int, default=16384, help="batch x length of the papers' grid")
    parser.add_argument("--hidden", type=int, default=2048, help="heads x head dimension of the papers' grid")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1] / "results")
    parser.add_argument("--dry-run", action="store_true", help="print the cases and stop; needs neither PyTorch nor a GPU")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 2)
    arguments.preset = arguments.preset or ["fa2-fig7", "decode"]
    arguments.clock = list(dict.fromkeys(arguments.clock or [QUEUED]))
    return arguments


def chosen_cases(arguments: argparse.Namespace) -> list[Case]:
    presets = [name for name in arguments.preset if name in PRESETS]
    cases = list(dict.fromkeys(case for name in presets for case in preset(name, arguments.tokens, arguments.hidden)))
    if arguments.quick:
        cases = quick(cases)
    return [case for case in cases if case.kind in (arguments.only or PASSES) and re.search(arguments.filter, case.name)]


def print_cases(cases: list[Case]) -> None:
    for case in cases:
        work = f"{case.bytes_of_keys_and_values * 1e-9:9.3f} GB" if case.kind == "decode" else f"{case.flops * 1e-12:9.3f} TFLOP"
        print(f"{case.name:48} {work}")
    print(f"{len(cases)} cases")


def make_tensors(case: Case, device: str) -> dict:
    import torch

    generator = torch.Generator(device).manual_seed(20)
    normal = lambda heads, length: torch.randn(case.batch, length, heads, case.dim, generator=generator, device=device,
                                               dtype=case.torch_dtype)
    return {"query": normal(case.query_heads, case.queries), "key": normal(case.kv_heads, case.length),
            "value": normal(case.kv_heads, case.length), "grad_out": normal(case.query_heads, case.queries)}


class CudaClock:
    """Times calls by events on the current stream: as `name` says, queued or alone.

    Queued, the L2 cache has been filled with something else before a call. That something is read, not written: the cache
    would write it back to memory while the call is timed.
    """

    def __init__(self, name: str = QUEUED):
        import torch

        self.name, self.torch = name, torch
        # Reading it also takes longer than the host does to put the call on the stream, whose time is not what is meant.
        self.other = torch.zeros((1 << 30) // BYTES["float32"], device="cuda")
        self.total = torch.zeros((), device="cuda")

    def seconds(self, run, repeats: int) -> list[float]:
        cuda = self.torch.cuda
        events = [(cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for begin, end in events:
            if self.name == ALONE:
                cuda.synchronize()
            else:
                self.torch.sum(self.other, dim=0, out=self.total)
            begin.record()
            run()
            end.record()
        cuda.synchronize()
        return [begin.elapsed_time(end) * 1e-3 for begin, end in events]

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def peak_bytes(self, run) -> int:
        """What a call allocates at its peak, beyond what was there."""
        cuda = self.torch.cuda
        cuda.synchronize()
        before = cuda.memory_allocated()
        cuda.reset_peak_memory_stats()
        run()
        cuda.synchronize()
        return cuda.max_memory_allocated() - before

    def ceilings(self) -> dict:
        """What the card reaches at large matrix products in bfloat16, and at copies, reads and writes counted."""
        torch, size = self.torch, 8192
        left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        product, copy = torch.empty_like(left), torch.empty_like(self.other)
        self.seconds(lambda: torch.mm(left, right, out=product), WARM_UPS)
        multiply = statistics.median(self.seconds(lambda: torch.mm(left, right, out=product), 20))
        move = statistics.median(self.seconds(lambda: copy.copy_(self.other), 20))
        return {"matmul_tflops": 2e-12 * size**3 / multiply, "copy_gbps": 2e-9 * self.other.nbytes / move}

    def machine(self) -> dict:
        torch = self.torch
        driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True,
                                text=True, check=False).stdout.splitlines()
        cudnn = torch.backends.cudnn.version()  # 91900 is 9.19.0
        return {"device": torch.cuda.get_device_name(), "driver": driver[0] if driver else "unknown", "cuda": torch.version.cuda,
                "cudnn": f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}", **self.ceilings()}


class CpuClock:
    """To try the script without a GPU, where every call is alone."""

    def __init__(self, name: str = QUEUED):
        self.name = name

    def seconds(self, run, repeats: int) -> list[float]:
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        return times

    def wait(self) -> None:
        pass

    def peak_bytes(self, run) -> None:
        run()

    def machine(self) -> dict:
        return {"device": f"CPU ({platform.machine()})"}


def prepare(case: Case, contenders: list, tensors: dict) -> tuple[dict[str, Prepared], dict[str, str]]:
    """Those that can run the case, and why the others cannot."""
    ready, refused = {}, {}
    for contender in contenders:
        outcome = contender.prepare(case, tensors)
        if isinstance(outcome, Prepared):
            ready[contender.name] = outcome
        else:
            refused[contender.name] = outcome
    return ready, refused


def measure(case: Case, contenders: list, clock, arguments: argparse.Namespace) -> list[dict]:
    """A row for every contender; `ms` is None for one that did not run or whose results differ, and `why` tells."""
    ready, why = prepare(case, contenders, make_tensors(case, arguments.device))
    differences, memory = {}, {}
    for name, prepared in ready.items():
        with prepared.setting():
            memory[name] = clock.peak_bytes(prepared.run)
    if "strobe" in ready:
        ours = ready["strobe"].results()
        differences = {name: largest_difference(ours, prepared.results()) for name, prepared in ready.items()}
        for name, difference in differences.items():
            if not difference <= LARGEST_DIFFERENCE:
                why[name] = f"results differ from Strobe's by {difference:.2g} of the largest value"
                del ready[name]

    medians: dict[str, list[float]] = {name: [] for name in ready}
    for turn in range(arguments.rounds):
        for name, prepared in list(ready.items())[:: 1 if turn % 2 == 0 else -1]:  # nobody is always the first
            with prepared.setting():
                clock.wait()
                time.sleep(arguments.rest)
                clock.seconds(prepared.run, WARM_UPS)
                medians[name].append(statistics.median(clock.seconds(prepared.run, arguments.repeats)))

    rows = []
    for contender in contenders:
        name, seconds = contender.name, None
        row = {"case": case.name, "backend": arguments.device, "kernel": None, "pass": case.kind, "dtype": case.dtype,
               "head_dim": case.dim, "value_dim": case.dim, "batch": case.batch, "query_heads": case.query_heads,
               "kv_heads": case.kv_heads, "query_length": case.queries, "key_length": case.length, "causal": case.causal,
               "ms": None, "spread": None, "tflops": None, "gbps": None, "peer": None if name == "strobe" else name,
               "ratio": None, "clock": clock.name, "memory_bytes": memory.get(name),
               "bytes_moved": case.bytes_moved, "difference": differences.get(name), "rounds": arguments.rounds, "why": why.get(name)}
        if name in ready:
            seconds = statistics.mean(medians[name])
            row |= {"kernel": ready[name].kernel, "ms": seconds * 1e3, "tflops": case.flops / seconds * 1e-12,
                    "spread": (max(medians[name]) - min(medians[name])) / seconds,
                    "gbps": case.bytes_of_keys_and_values / seconds * 1e-9}
            if name != "strobe" and "strobe" in ready:
                row["ratio"] = seconds / statistics.mean(medians["strobe"])
        rows.append(row)
    return rows


def clock_of(row: dict) -> str:
    return row.get("clock", QUEUED)


def heading_of(row: dict) -> str:
    """The table that a row belongs to: its pass, and how it was timed."""
    return row["pass"] + (", each call alone" if clock_of(row) == ALONE else "")


def geometric_means(rows: list[dict]) -> dict[tuple[str, str], tuple[float, int]]:
    """(pass and clock, peer) -> the geometric mean of the ratios, and over how many cases. Where Strobe has another mode, that
    mode and each peer give a ratio more."""
    ratios: dict[tuple[str, str], list[float]] = {}
    any_order = {(row["case"], clock_of(row)): row["ratio"] for row in rows
                 if row["peer"] == ANY_ORDER and row["ratio"] is not None}
    for row in rows:
        if row["ratio"] is not None:
            heading, measured = heading_of(row), (row["case"], clock_of(row))
            ratios.setdefault((heading, row["peer"]), []).append(row["ratio"])
            if measured in any_order and row["peer"] != ANY_ORDER:
                ratios.setdefault((f"{heading}, any order", row["peer"]), []).append(row["ratio"] / any_order[measured])
    return {key: (math.exp(statistics.fmean(map(math.log, values))), len(values)) for key, values in ratios.items()}


def rate_of(row: dict) -> str:
    if row["ms"] is None:
        return "-"
    if row["pass"] == "decode":
        return f"{row['gbps']:.4g} GB/s"
    memory = f", {row['memory_bytes'] / 2**20:,.0f} MiB" if row["pass"] == "training" and row["memory_bytes"] else ""
    return f"{row['tflops']:.3g}{memory}"


def cell_of(row: dict | None) -> str:
    """A contender's rate, and the ratio; empty if it was not asked."""
    if row is None:
        return ""
    return rate_of(row) + (f" ({row['ratio']:.2f})" if row["ratio"] is not None else "")


def line_of(rows: list[dict]) -> str:
    """A case as a line: Strobe's rate, and for every peer its rate and the ratio."""
    return "  ".join([rows[0]["case"], *(cell_of(row) for row in rows if row["why"] != NOT_THIS_PASS)])


def accuracy_lines(rows: list[dict]) -> list[str]:
    """The table of errors: a line a type, a column a contender."""
    shape = " x ".join(str(rows[0][axis]) for axis in ("batch", "query_length", "query_heads", "head_dim"))
    names = list(dict.fromkeys(row["peer"] or "Strobe" for row in rows))
    lines = [f"| RMSE, {shape} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        found = {row["peer"] or "Strobe": row["rmse"] for row in rows if row["dtype"] == dtype}
        cells = (f"{found[name]:.2g}" if found.get(name) is not None else "-" for name in names)
        lines.append(f"| {dtype} | " + " | ".join(cells) + " |")
    return lines


def table_of(rows: list[dict], machine: dict) -> str:
    facts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in machine.items())
    lines = ["# Strobe and its peers on a GPU", "", ", ".join(facts) + ".",
             "bfloat16, storage (batch, length, heads, dim). TFLOP/s (decode: GB/s of keys and values read) by bench/peers/cuda.py,",
             "and in brackets how many times as fast Strobe is. Backward, Strobe is deterministic; \"any order\" is without.",
             "Calls are timed behind a read that empties the L2 cache; \"each call alone\" is from an idle GPU, host time included."]
    headings = dict.fromkeys(heading_of({"pass": kind, "clock": clock}) for kind in PASSES for clock in (QUEUED, ALONE))
    for heading in headings:
        of_pass = [row for row in rows if heading_of(row) == heading]
        if not of_pass:
            continue
        peers = list(dict.fromkeys(row["peer"] for row in of_pass if row["peer"] and row["why"] != NOT_THIS_PASS))
        lines += ["", f"| {heading} | Strobe | " + " | ".join(peers) + " |", "|---" * (len(peers) + 2) + "|"]
        for name in dict.fromkeys(row["case"] for row in of_pass):
            of_case = {row["peer"]: row for row in of_pass if row["case"] == name}
            lines.append(" | ".join([f"| {name}", *(cell_of(of_case.get(peer)) for peer in (None, *peers))]) + " |")
    if errors := [row for row in rows if row["pass"] == "accuracy"]:
        lines += ["", "Errors against float64, entries N(0, 1) + N(0, 100) * Bernoulli(0.001):", "", *accuracy_lines(errors)]
    rows = [row for row in rows if row["pass"] in PASSES]
    lines += ["", "Geometric means of these ratios:", ""]
    lines += [f"- {heading}: {mean:.2f} times {peer} ({count} cases)"
              for (heading, peer), (mean, count) in geometric_means(rows).items()]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["why"] not in (None, NOT_THIS_PASS):
            reasons.setdefault((row["peer"] or "Strobe", row["why"]), []).append(row["case"])
    if reasons:
        lines += ["", "Not counted:", ""]
        lines += [f"- {name}, {len(names)} cases ({names[0]}{', ...' if names[1:] else ''}): {why}"
                  for (name, why), names in reasons.items()]
    return "\n".join(lines) + "\n"


def results_file(machine: dict, folder: pathlib.Path) -> pathlib.Path:
    name = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower().replace("nvidia", "")).strip("-")
    return folder / f"peers-{name}.jsonl"


def earlier_rows(path: pathlib.Path, now: set[tuple[str, str]]) -> list[dict]:
    """Rows of an earlier run, without those (case, clock) that run now."""
    if not path.exists():
        return []
    return [row for row in map(json.loads, path.read_text().splitlines()[1:]) if (row["case"], clock_of(row)) not in now]


def write(rows: list[dict], machine: dict, path: pathlib.Path) -> None:
    """The table and the JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in [machine, *rows]))
    path.with_suffix(".md").write_text(table_of(rows, machine))


def main() -> int:
    arguments = parse_arguments()
    cases = chosen_cases(arguments)
    if arguments.dry_run:
        print_cases(cases)
        return 0
    import strobe
    import torch

    import accuracy
    from cuda_contenders import all_contenders

    clocks = [(CudaClock if arguments.device == "cuda" else CpuClock)(name) for name in arguments.clock]
    machine = clocks[0].machine() | {"torch": torch.__version__, "strobe": strobe.__version__}
    print(json.dumps(machine))
    ours, *peers = all_contenders()
    contenders = [ours, *(peer for peer in peers if re.search(arguments.peers, peer.name))]
    path, rows = results_file(machine, arguments.results), []
    if "fa3-table3" in arguments.preset:
        rows += accuracy.measure(min(arguments.tokens, accuracy.LONGEST), arguments.device)
        print("\n".join(accuracy_lines(rows)), flush=True)
    kept = earlier_rows(path, {(row["case"], clock_of(row)) for row in rows} |
                        {(case.name, clock.name) for case in cases for clock in clocks})
    print("case, strobe, " + ", ".join(f"{contender.name} (ratio)" for contender in contenders[1:]))
    begin = time.monotonic()
    for done, case in enumerate(cases):
        if time.monotonic() - begin > arguments.seconds:
            print(f"stopped after {arguments.seconds:g} s: {done} of {len(cases)} cases")
            break
        for clock in clocks:
            rows += measure(case, contenders, clock, arguments)
            print(line_of(rows[-len(contenders):]), f" [{clock.name}]", flush=True)
            write(kept + rows, machine, path)
    write(kept + rows, machine, path)
    table = table_of(rows, machine)
    print(table[table.index("Geometric means"):])
    if importlib.util.find_spec("matplotlib"):
        import plots
        print("plots: " + (", ".join(plots.draw(path)) or "none, these cases have none"))
    else:
        print("no plots, since matplotlib is not there: python bench/peers/plots.py", path)
    return 1 if any("results differ" in (row["why"] or "") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
