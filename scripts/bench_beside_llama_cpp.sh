#!/usr/bin/env bash
# Prefill and decode of one GGUF file: corella and llama.cpp in turns, because a shared machine drifts by ±12 % within
# minutes. Needs llama-cpp-python (CC=clang CXX=clang++ CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python numpy)
# in the Python that PYTHON names. CORELLA names another program than the release build, REPEAT the repetitions of a round.
#
#   scripts/bench_beside_llama_cpp.sh MODEL.gguf [ROUNDS]
set -euo pipefail
model=$(realpath "$1") rounds=${2:-3} repeat=${REPEAT:-3}
cd "$(dirname "$0")/.."
corella=${CORELLA:-target/release/corella}
peer=${PEER:-../shared/bench/llama_cpp_generate.py}
python=${PYTHON:-.venv/bin/python}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for round in $(seq "$rounds"); do
  # A figure above the ceiling fails the command; it is printed all the same.
  "$corella" bench generate "$model" --repeat "$repeat" --json > "$out/lines" || true
  tail -1 "$out/lines" > "$out/corella.$round.json"
  "$python" "$peer" "$model" --reps "$repeat" | tail -1 > "$out/peer.$round.json"
  "$python" scripts/llama_cpp_batched.py "$model" --reps "$repeat" | tail -1 > "$out/batched.$round.json"
done
"$python" - "$out" <<'PY'
import glob, json, statistics, sys
def runs(who): return [json.load(open(f)) for f in sorted(glob.glob(f"{sys.argv[1]}/{who}.*.json"))]
ours, peer, batched = runs("corella"), runs("peer"), runs("batched")
def median(values): return statistics.median(values)
def rates(run, start): return [r["tokens_per_second"] for r in run["results"] if r["name"].startswith(start)]
def line(name, ours, theirs): print(f"{name}: {ours:.1f} tok/s beside {theirs:.1f}: {ours / theirs:.2f}×")
line("prefill 512", median([rates(run, "prefill")[0] for run in ours]), median([run["pp512"] for run in peer]))
one, *many = [median(column) for column in zip(*(rates(run, "decode") for run in ours))]
line("decode 1", one, median([run["tg64"] for run in peer]))
for n, rate in zip(("8", "32"), many):
    line(f"decode {n}", rate, median([run["sequences"][n] for run in batched]))
print(json.dumps({"corella": ours, "llama_cpp": peer, "llama_cpp_batched": batched}))
PY
