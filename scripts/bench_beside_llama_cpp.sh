#!/usr/bin/env bash
# Prefill and decode of one GGUF file: corella and llama.cpp in turns, because a shared machine drifts by ±12 % within
# minutes. Needs llama-cpp-python (pip install llama-cpp-python numpy) in the Python that PYTHON names.
#
#   scripts/bench_beside_llama_cpp.sh MODEL.gguf [ROUNDS]
set -euo pipefail
model=$1 rounds=${2:-3}
cd "$(dirname "$0")/.."
corella=target/release/corella
peer=${PEER:-../shared/bench/llama_cpp_generate.py}
python=${PYTHON:-.venv/bin/python}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for round in $(seq "$rounds"); do
  "$corella" bench generate "$model" --repeat 3 --json | tail -1 > "$out/corella.$round.json"
  "$python" "$peer" "$model" --reps 3 | tail -1 > "$out/peer.$round.json"
done
"$python" - "$out" <<'PY'
import glob, json, statistics, sys
ours, peer = ([json.load(open(f)) for f in sorted(glob.glob(f"{sys.argv[1]}/{who}.*.json"))] for who in ("corella", "peer"))
def median(values): return statistics.median(values)
def rate(run, start): return [r["tokens_per_second"] for r in run["results"] if r["name"].startswith(start)]
prefill = median([rate(run, "prefill")[0] for run in ours])
decode = [median(column) for column in zip(*(rate(run, "decode") for run in ours))]
theirs = median([run["pp512"] for run in peer]), median([run["tg64"] for run in peer])
print(f"prefill 512: {prefill:.1f} tok/s beside {theirs[0]:.1f}: {prefill / theirs[0]:.2f}×")
print(f"decode 1: {decode[0]:.1f} tok/s beside {theirs[1]:.1f}: {decode[0] / theirs[1]:.2f}×")
print("decode of 8 and 32 sequences: " + ", ".join(f"{rate:.1f} tok/s" for rate in decode[1:]))
print(json.dumps({"corella": ours, "llama_cpp": peer}))
PY
