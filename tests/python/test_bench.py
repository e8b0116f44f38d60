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


def run(*options):
    return subprocess.run([sys.executable, PEERS / "cuda.py", *options], capture_output=True, text=True, check=False)


def test_dry_run():
    whole, decode = run("--dry-run"), run("--dry-run", "--only", "decode")
    assert whole.stdout.splitlines()[-1] == "77 cases"
    assert decode.stdout.splitlines()[-1] == "5 cases"


def test_small_run_on_the_cpu(tmp_path):
    pytest.importorskip("torch")
    done = run("--device", "cpu", "--tokens", "128", "--hidden", "64", "--repeats", "1", "--rest", "0", "--quick",
               "--results", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (lines,) = tmp_path.glob("*.jsonl")
    machine, *rows = map(json.loads, lines.read_text().splitlines())
    assert machine["torch"] and {row["pass"] for row in rows} == {"forward", "backward", "decode"}
    flash = [row for row in rows if row["peer"] == "FlashAttention-2"]
    assert all(row["ratio"] > 0 and row["difference"] < 2e-2 for row in flash)
    assert all(row["ms"] is None and row["why"] for row in rows if row["peer"] == "cuDNN")  # which is not for CPUs
    (table,) = tmp_path.glob("*.md")
    assert "Not counted" in table.read_text() and "forward: " in table.read_text()


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
    losses = [train.train(train.MODELS["tiny"], attentions[name], 4, "cpu", False)["losses"] for name in ("eager", "Strobe")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2) and losses[1][-1] < losses[1][0]
