"""What scripts/gpu-check makes of its steps' output.

    gpu_report.py summary WORK            a line per kernel, of WORK's check-*.json
    gpu_report.py tests WORK              the outcome of WORK's tests-*.txt
    gpu_report.py write WORK RESULTS      WORK's files as one RESULTS/gpu-<device>.json
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys


NOTES = ["compute-sanitizer's racecheck sees little of cuda.sm90 kernels, which copy and multiply in the background: "
         "their races are looked for by the tests GpuRaces",
         "racecheck leaves out cuda.sm90.backward, of which it does not see what a warp's lanes learn from the one that "
         "waits for a barrier",
         "initcheck leaves out cuda.sm80.decode and cuda.sm90.forward, whose counts of blocks and tiles may start as "
         "anything, and cuda.sm90.backward, where it does not see what the copy engine writes"]


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def load(path: pathlib.Path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")] if path.exists() else []


def checks(work: pathlib.Path) -> dict:
    """The shards of `strobe check` as one."""
    whole = {"kernels": {}, "unserved": {}, "failures": [], "results": []}
    for path in sorted(work.glob("check-*.json")):
        shard = load(path)
        if shard is None:
            whole["failures"].append({"kernel": "(none)", "what": f"{path.name} holds no result", "case": ""})
            continue
        for kernel in shard["kernels"]:
            known = whole["kernels"].setdefault(kernel["kernel"], kernel | {"cases": 0, "failed": 0, "worst": 0})
            known["cases"] += kernel["cases"]
            known["failed"] += kernel["failed"]
            known["worst"] = max(known["worst"], kernel["worst"])
        for why, count in shard.get("unserved", {}).items():
            whole["unserved"][why] = whole["unserved"].get(why, 0) + count
        whole["failures"] += shard["failures"]
        whole["results"] += shard.get("results", [])
    whole["kernels"] = list(whole["kernels"].values())
    return whole


def summary(check: dict) -> None:
    for kernel in check["kernels"]:
        print(f"{kernel['kernel']:28} {kernel['cases']:6} cases, {kernel['failed']} failed, "
              f"largest error {kernel['worst']:.3f} of what is allowed")
    for why, count in check["unserved"].items():
        print(f"{count} cases did not run: must be {why}")
    for failure in check["failures"][:20]:
        print(f"FAILED {failure['kernel']}: {failure['what']}\n  strobe check --device cuda --case \"{failure['case']}\"")
    print(f"{len(check['failures'])} failures")


def tests_of(work: pathlib.Path) -> dict:
    """GoogleTest's outcomes in WORK's tests-*.txt, and the names of what failed or never ended."""
    counts, failed = {"OK": 0, "SKIPPED": 0, "FAILED": 0}, []
    for path in sorted(work.glob("tests-*.txt")):
        begun = ""
        for line in path.read_text(errors="replace").splitlines():
            if found := re.match(r"\[ RUN      \] (\S+)", line):
                begun = found[1]
            elif found := re.match(r"\[ +(OK|SKIPPED|FAILED) +\] ([^\s,]+).* \(\d+ ms\)$", line):
                begun = ""
                counts[found[1]] += 1
                if found[1] == "FAILED":
                    failed.append(found[2])
        if begun:
            counts["FAILED"] += 1
            failed.append(begun + " (did not end)")
    return {"passed": counts["OK"], "skipped": counts["SKIPPED"], "failed": counts["FAILED"], "names": failed}


def print_tests(work: pathlib.Path) -> None:
    outcome = tests_of(work)
    for name in outcome["names"]:
        print("FAILED", name)
    print("{passed} passed, {skipped} skipped, {failed} failed".format(**outcome))
    for path in sorted(work.glob("tests-*.txt")) if outcome["failed"] else []:
        print("".join(line + "\n" for line in path.read_text(errors="replace").splitlines()
                      if not re.match(r"\[ *(OK|RUN|-+)", line))[-2000:])


def write(work: pathlib.Path, results: pathlib.Path) -> None:
    query = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    device, driver = (query[0].split(", ") if query else ["unknown", "unknown"])[:2]
    commit = os.environ.get("STROBE_COMMIT") or output_of("git", "rev-parse", "HEAD") or "unknown"
    steps = (work / "steps.txt").read_text().splitlines() if (work / "steps.txt").exists() else []
    check = checks(work)
    bench = [row for path in sorted(work.glob("bench-*.jsonl")) for row in lines(path)]
    report = {"device": device, "driver": driver, "commit": commit,
              "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
              "steps": steps, "notes": NOTES, "tests": tests_of(work), "kernels": check["kernels"],
              "unserved": check["unserved"], "failures": check["failures"],
              "accuracy": check["results"], "speed": bench}
    name = re.sub(r"[^a-z0-9]+", "-", device.lower().replace("nvidia", "").strip()).strip("-")
    path = results / f"gpu-{name}.json"
    rows = lambda values: "[\n" + ",\n".join("    " + json.dumps(value) for value in values) + "\n  ]"
    fields = [f'  "{key}": ' + (rows(value) if isinstance(value, list) and value else json.dumps(value))
              for key, value in report.items()]
    path.write_text("{\n" + ",\n".join(fields) + "\n}\n")
    print(path)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "summary":
        summary(checks(pathlib.Path(sys.argv[2])))
    elif len(sys.argv) == 3 and sys.argv[1] == "tests":
        print_tests(pathlib.Path(sys.argv[2]))
    elif len(sys.argv) == 4 and sys.argv[1] == "write":
        write(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        sys.exit(__doc__)
