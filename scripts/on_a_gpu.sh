#!/usr/bin/env bash
# Everything that needs an NVIDIA card, in one go: what doctor finds; every operation against the f64 reference, the same bits
# twice, ten updates and whole models against the processor, recorded steps and draws; the memory checker and the race checker
# once; updates beside PyTorch, and generation. The result is one JSON under docs/measurements/, named after the card; it appears
# when all of it is there.
#
#   scripts/on_a_gpu.sh [MODEL] [SEQUENCES PER MICRO-BATCH]      (gpt2-124m and 16)
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi
model=${1:-gpt2-124m} b=${2:-16}
case $b in '' | *[!0-9]*) echo "SEQUENCES PER MICRO-BATCH is a number, not '$b'" >&2; exit 2 ;; esac
# Before anything is downloaded or built: the driver makes one of these (the last under Windows).
if ! compgen -G '/dev/nvidia[0-9]*' > /dev/null && [ ! -e /dev/dxg ]; then
    echo "no CUDA device: there is no /dev/nvidia0; nothing was run, nothing written" >&2
    exit 1
fi
# PyTorch brings CUDA's libraries; where they are installed otherwise, those are found too.
[ -x .venv/bin/python ] || scripts/venv.sh
export VIRTUAL_ENV=$PWD/.venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo build --release
corella=target/release/corella
if ! "$corella" doctor --json --device cuda > "$work/doctor.txt"; then
    echo "no CUDA device that can be used (see above); nothing was run, nothing written" >&2
    exit 1
fi
tail -1 "$work/doctor.txt" > "$work/doctor.json"

# Each test writes its name and how it ended; a failure does not keep the others from running.
tests() {
    local name=$1 state
    shift
    if "$@" > "$work/$name.log" 2>&1; then state=passed; else state=failed; fi
    if grep -q '^skipped' "$work/$name.log"; then state=skipped; fi
    echo "$name: $state"
    [ $state = passed ] || tail -20 "$work/$name.log"
    echo "{\"name\": \"$name\", \"state\": \"$state\"}" >> "$work/tests.jsonl"
}
suite() { cargo test --release -p corella-cuda --test on_a_card -- --nocapture --test-threads 1 --exact "$1"; }
# Every test of the file, by its own name.
names=$(cargo test --release -p corella-cuda --test on_a_card -- --list | sed -n 's/: test$//p')
for name in $names; do tests "$name" suite "$name"; done
if command -v compute-sanitizer > /dev/null; then
    binary=$(cargo test --release -p corella-cuda --test on_a_card --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*on_a_card[^"]*\)".*/\1/p' | tail -1)
    tests memory_checker compute-sanitizer --error-exitcode 1 "$binary" --test-threads 1 every_operation
    tests race_checker compute-sanitizer --tool racecheck --error-exitcode 1 "$binary" --test-threads 1 every_operation
else
    for name in memory_checker race_checker; do
        echo "$name: skipped, no compute-sanitizer (it comes with the CUDA toolkit)"
        echo "{\"name\": \"$name\", \"state\": \"skipped\"}" >> "$work/tests.jsonl"
    done
fi

# The last line of a command is its JSON; what it says before goes to the terminal.
measured() {
    local name=$1
    shift
    "$@" | tee "$work/$name.txt"
    tail -1 "$work/$name.txt" > "$work/$name.json"
}
update() { measured "$1" "$corella" bench train --device cuda --model "$model" --micro-batch "$b" --dtype bf16 --repeat 20; }
# PyTorch between two of ours, so that a card that slows down shows.
update train
measured pytorch .venv/bin/python scripts/pytorch_train.py --model "$model" --micro-batch "$b" --steps 20
update again
measured generate "$corella" bench generate --device cuda --model "$model" --repeat 3

.venv/bin/python - "$work" "$(git rev-parse --short HEAD)" "$0 $model $b" <<'PYTHON'
import json, pathlib, re, sys
work, commit, command = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
read = lambda name: json.loads((work / f"{name}.json").read_text())
doctor = read("doctor")
card = doctor["gpus"][0]["name"]
document = {
    "card": card,
    "commit": commit,
    "command": command,
    "doctor": doctor,
    "tests": [json.loads(line) for line in (work / "tests.jsonl").read_text().splitlines()],
    "train": [read("train"), read("again")],
    "pytorch": read("pytorch"),
    "generate": read("generate"),
}
folder = pathlib.Path("docs/measurements")
folder.mkdir(parents=True, exist_ok=True)
path = folder / (re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") + ".json")
unfinished = path.with_suffix(".tmp")
unfinished.write_text(json.dumps(document, indent=1) + "\n")
unfinished.rename(path)
print(path)
sys.exit(any(test["state"] == "failed" for test in document["tests"]))
PYTHON
