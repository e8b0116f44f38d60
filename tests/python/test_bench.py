"""bench/peers without a GPU: lists of cases, arithmetic, and whole small runs on the CPU."""

import json
import pathlib
import subprocess
import sys

import pytest

PEERS = pathlib.Path(__file__).resolve().parents[2] / "bench/peers"
sys.path.append(str(PEERS))

import cases  # noqa: E402
import cuda  # noqa: E402
import train  # noqa: E402


def test_papers_grid():
    grid = cases.papers_grid()
    assert len(grid) == 2 * 3 * 2 * 6
    assert {case.batch * case.length for case in grid} == {16384}
    assert {case.query_heads * case.dim for case in grid} == {2048}
    full, causal = (case for case in grid if case.kind == "forward" and case.dim == 64 and case.length == 16384)
    assert full.flops == 4 * 16384**2 * 64 * 32 == 2 * causal.flops
    backward = next(case for case in grid if case.kind == "backward" and case.dim == 64 and case.length == 16384)
    assert backward.flops == 2.5 * full.flops


def test_decode_cases():
    assert [(case.batch, case.length) for case in cases.decode_cases()] == [
        (1, 8192), (1, 131072), (16, 8192), (64, 4096), (128, 8192)]
    assert cases.decode_cases()[0].bytes_of_keys_and_values == 2 * 8192 * 8 * 128 * 2


def test_names_are_unique():
    names = [case.name for case in cases.papers_grid() + cases.decode_cases()]
    assert len(names) == len(set(names))


def test_geometric_means_count_what_ran():
    rows = [{"case": case, "pass": "forward", "peer": "cuDNN", "ratio": ratio} for case, ratio in zip("abc", (0.5, 2.0, None))]
    assert cuda.geometric_means(rows) == {("forward", "cuDNN"): (pytest.approx(1.0), 2)}


def test_peers_are_set_against_both_modes_of_backward():
    ratios = {None: None, cases.ANY_ORDER: 0.8, "cuDNN": 1.2}
    rows = [{"case": "a", "pass": "backward", "peer": peer, "ratio": ratio} for peer, ratio in ratios.items()]
    assert cuda.geometric_means(rows) == {("backward", cases.ANY_ORDER): (pytest.approx(0.8), 1),
                                          ("backward", "cuDNN"): (pytest.approx(1.2), 1),
                                          ("backward, any order", "cuDNN"): (pytest.approx(1.5), 1)}


def test_clocks_are_told_apart():
    rows = [{"case": "a", "pass": "backward", "peer": peer, "ratio": ratio, "clock": clock}
            for clock, scale in ((cuda.QUEUED, 1), (cuda.ALONE, 2)) for peer, ratio in ((cases.ANY_ORDER, 0.5), ("cuDNN", scale))]
    means = {key: mean for key, (mean, _) in cuda.geometric_means(rows).items()}
    assert means["backward", "cuDNN"] == pytest.approx(1) and means["backward, any order", "cuDNN"] == pytest.approx(2)
    alone = "backward, each call alone"
    assert means[alone, "cuDNN"] == pytest.approx(2) and means[f"{alone}, any order", "cuDNN"] == pytest.approx(4)


def test_table_of_cases_with_other_peers():
    row = {"pass": "forward", "ms": 1.0, "tflops": 300.0, "memory_bytes": None, "why": None, "ratio": None}
    rows = [row | {"case": case, "peer": peer, "ratio": 1.5 if peer else None}
            for case, peers in {"a": (None, "cuDNN"), "b": (None, "FlexAttention")}.items() for peer in peers]
    table = cuda.table_of(rows, {"device": "X"})
    assert "| forward | Strobe | cuDNN | FlexAttention |" in table
    assert "| a | 300 | 300 (1.50) |  |" in table and "| b | 300 |  | 300 (1.50) |" in table


def run(*options):
    return subprocess.run([sys.executable, PEERS / "cuda.py", *options], capture_output=True, text=True, check=False)


def test_dry_run():
    whole, decode = run("--dry-run"), run("--dry-run", "--only", "decode")
    assert whole.stdout.splitlines()[-1] == "77 cases"
    assert decode.stdout.splitlines()[-1] == "5 cases"
    presets = {name: run("--dry-run", "--preset", name).stdout.splitlines() for name in cases.PRESETS}
    assert {name: lines[-1] for name, lines in presets.items()} == {
        "fa1-fig2": "1 cases", "fa1-memory": "8 cases", "fa2-fig7": "72 cases", "fa3-fig5": "36 cases", "decode": "5 cases"}
    assert presets["fa1-memory"][-2].split()[0] == "training-bfloat16-d64-n65536-h16-causal"


def test_small_run_on_the_cpu(tmp_path):
    pytest.importorskip("torch")
    small = ("--device", "cpu", "--tokens", "128", "--hidden", "64", "--repeats", "1", "--rest", "0", "--quick", "--peers",
             "Flash|cuDNN|standard|any order", "--results", str(tmp_path))
    done = run(*small)
    assert done.returncode == 0, done.stdout + done.stderr
    (lines,) = tmp_path.glob("*.jsonl")
    machine, *rows = map(json.loads, lines.read_text().splitlines())
    assert machine["torch"] and {row["pass"] for row in rows} == {"forward", "backward", "decode"}
    standard = [row for row in rows if row["peer"] == "standard attention" and row["pass"] != "decode"]
    assert all(row["ratio"] > 0 and row["difference"] < 2e-2 for row in standard)
    flash = [row for row in rows if row["peer"] == "FlashAttention-2"]
    assert all(row["ratio"] > 0 and row["difference"] < 2e-2 for row in flash)
    assert all(row["ms"] is None and row["why"] for row in rows if row["peer"] == "cuDNN")  # which is not for CPUs
    (table,) = tmp_path.glob("*.md")
    assert "Not counted" in table.read_text() and "forward: " in table.read_text()

    again = run(*small, "--preset", "fa1-fig2", "--preset", "fa3-table3")
    assert again.returncode == 0, again.stdout + again.stderr
    _, *more = map(json.loads, lines.read_text().splitlines())
    assert {row["case"] for row in rows} < {row["case"] for row in more}
    errors = {(row["dtype"], row["peer"]): row["rmse"] for row in more if row["pass"] == "accuracy"}
    assert errors["float16", None] < errors["float16", "standard attention"] < errors["bfloat16", None]
    assert errors["float32", None] < 1e-6 and errors["float8_e4m3", None] < 1.1 * errors["float8_e4m3", "inputs rounded, else exact"]
    assert "| float8_e4m3 | 0.0" in table.read_text()


def test_rows_of_another_clock_stay(tmp_path):
    pytest.importorskip("torch")
    small = ("--device", "cpu", "--tokens", "64", "--hidden", "64", "--repeats", "1", "--rest", "0", "--rounds", "1", "--peers",
             "standard", "--preset", "fa3-fig5", "--filter", "d64.*full", "--results", str(tmp_path))
    first = run(*small)
    assert first.returncode == 0, first.stdout + first.stderr
    (lines,) = tmp_path.glob("*.jsonl")
    _, *queued = map(json.loads, lines.read_text().splitlines())
    assert {row["clock"] for row in queued} == {"queued"}
    assert run(*small, "--clock", "alone").returncode == 0
    _, *both = map(json.loads, lines.read_text().splitlines())
    assert both[:len(queued)] == queued and {row["clock"] for row in both[len(queued):]} == {"alone"}
    assert {row["case"] for row in both} == {row["case"] for row in queued}
    (table,) = tmp_path.glob("*.md")
    assert "| forward | Strobe |" in table.read_text() and "| forward, each call alone | Strobe |" in table.read_text()
    together = run(*small, "--clock", "alone", "--clock", "queued")
    assert "[alone]" in together.stdout and "[queued]" in together.stdout


def test_flex_attention_takes_part():
    pytest.importorskip("torch")
    import cuda_contenders
    case = cases.Case("forward", "float32", 256, 64, True, query_heads=2, kv_heads=2)
    tensors = cuda.make_tensors(case, "cpu")
    prepared = [contender.prepare(case, tensors) for contender in (cuda_contenders.Flex(), cuda_contenders.Standard())]
    assert cases.largest_difference(*(each.results() for each in prepared)) < 1e-5


def rows_to_draw():
    for kind in ("forward", "backward", "training", "decode"):
        for peer in (None, "cuDNN", "FlashAttention-2"):
            for length in (512, 1024):
                yield {"case": f"{kind}-{length}", "pass": kind, "peer": peer, "backend": "cuda", "dtype": "bfloat16",
                       "head_dim": 64, "causal": True, "batch": 1, "query_heads": 16, "query_length": length, "ms": 1.0,
                       "tflops": 300.0, "memory_bytes": 1 << 20, "bytes_moved": 1e9}


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    import plots
    lines, losses = tmp_path / "peers-x.jsonl", tmp_path / "gpt2.json"
    machine = {"device": "NVIDIA X", "matmul_tflops": 700.0, "copy_gbps": 4000.0}
    lines.write_text("".join(json.dumps(row) + "\n" for row in [machine, *rows_to_draw()]))
    assert plots.draw(lines) == [f"peers-x-{name}.svg" for name in ("forward", "backward", "memory", "roofline")]
    rows = [{"attention": name, "compiled": None, "losses": [1.0 / step for step in range(1, 21)]} for name in ("eager", "Strobe")]
    losses.write_text(json.dumps({"model": "gpt2", "device": "X", "batch": 8, "length": 1024, "rows": rows}))
    assert plots.draw(losses, ("svg", "png")) == ["gpt2-losses.svg", "gpt2-losses.png"]
    assert all(1000 < file.stat().st_size < 150_000 for file in tmp_path.glob("*.svg"))
    alone = ({**row, "clock": "alone"} for row in rows_to_draw() if row["pass"] == "forward")
    lines.write_text("".join(json.dumps(row) + "\n" for row in [machine, *alone]))
    assert plots.draw(lines) == ["peers-x-forward-alone.svg"]


def test_host_time(monkeypatch):
    pytest.importorskip("torch")
    import host_time
    monkeypatch.setattr(host_time, "BURSTS", 1)
    monkeypatch.setattr(host_time, "CALLS", 2)
    figures = host_time.measure("cpu")
    assert set(host_time.TARGETS) < set(figures) and "empty call" not in figures


def test_training_learns_the_same_with_every_attention(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(train, "documentation", lambda: bytes(range(32, 126)) * 40)
    attentions = train.attentions(causal=True)
    losses = [train.train(train.MODELS["tiny"], attentions[name], 4, "cpu")["losses"] for name in ("eager", "Strobe")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2) and losses[1][-1] < losses[1][0]
