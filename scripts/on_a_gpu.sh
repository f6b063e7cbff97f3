#!/usr/bin/env bash
# Everything that needs an NVIDIA card, in one go: what doctor finds, every operation against the f64 reference, the same bits
# twice, ten updates against the processor, the memory checker once, updates beside PyTorch. The result is one JSON under
# docs/measurements/, named after the card.
#
#   scripts/on_a_gpu.sh [MODEL] [SEQUENCES PER MICRO-BATCH]      (gpt2-124m and 16)
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:-gpt2-124m} b=${2:-16}
# PyTorch brings CUDA's libraries; where they are installed otherwise, those are found too.
[ -x .venv/bin/python ] || scripts/venv.sh
export VIRTUAL_ENV=$PWD/.venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo build --release
corella=target/release/corella
"$corella" doctor --json --device cuda | tail -1 > "$work/doctor.json"

# Each test writes its name and how it ended; a failure does not keep the others from running.
tests() {
    local name=$1
    shift
    if "$@" > "$work/$name.log" 2>&1; then state=passed; else state=failed; fi
    if grep -q '^skipped' "$work/$name.log"; then state=skipped; fi
    echo "$name: $state"
    [ $state = passed ] || tail -20 "$work/$name.log"
    echo "{\"name\": \"$name\", \"state\": \"$state\"}" >> "$work/tests.jsonl"
}
suite() { cargo test --release -p corella-cuda --test on_a_card -- --nocapture --test-threads 1 "$1"; }
tests operations suite every_operation_agrees_with_the_reference
tests same_bits suite two_runs_give_the_same_bits
tests ten_updates suite ten_updates_go_as_on_the_processor
tests inference suite every_operation_of_inference_agrees_with_the_reference
tests inference_same_bits suite two_runs_of_inference_give_the_same_bits
tests batch_invariance suite rows_do_not_depend_on_the_batch_where_that_is_promised
if command -v compute-sanitizer > /dev/null; then
    binary=$(cargo test --release -p corella-cuda --test on_a_card --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*on_a_card[^"]*\)".*/\1/p' | tail -1)
    tests memory_checker compute-sanitizer --error-exitcode 1 "$binary" --test-threads 1 every_operation
else
    echo "memory_checker: skipped, no compute-sanitizer (it comes with the CUDA toolkit)"
    echo '{"name": "memory_checker", "state": "skipped"}' >> "$work/tests.jsonl"
fi

"$corella" bench train --device cuda --model "$model" --micro-batch "$b" --dtype bf16 --repeat 20 | tee "$work/bench.txt"
tail -1 "$work/bench.txt" > "$work/corella.json"
.venv/bin/python scripts/pytorch_train.py --model "$model" --micro-batch "$b" --steps 20 | tee "$work/torch.txt"
tail -1 "$work/torch.txt" > "$work/torch.json"
"$corella" bench train --device cuda --model "$model" --micro-batch "$b" --dtype bf16 --repeat 20 | tail -1 > "$work/again.json"

.venv/bin/python - "$work" "$(git rev-parse --short HEAD)" "$0 $model $b" <<'PYTHON'
import json, pathlib, re, sys
work, commit, command = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
read = lambda name: json.loads((work / name).read_text())
doctor = read("doctor.json")
card = doctor["gpus"][0]["name"]
document = {
    "card": card,
    "commit": commit,
    "command": command,
    "doctor": doctor,
    "tests": [json.loads(line) for line in (work / "tests.jsonl").read_text().splitlines()],
    "train": [read("corella.json"), read("again.json")],
    "pytorch": read("torch.json"),
}
folder = pathlib.Path("docs/measurements")
folder.mkdir(parents=True, exist_ok=True)
path = folder / (re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") + ".json")
path.write_text(json.dumps(document, indent=1) + "\n")
print(path)
sys.exit(any(test["state"] == "failed" for test in document["tests"]))
PYTHON
