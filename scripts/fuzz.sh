#!/usr/bin/env bash
# Runs a fuzz target, guided by coverage: scripts/fuzz.sh TARGET SECONDS
#
# What `cargo fuzz run` does, with the flags of its coverage but without its nightly toolchain and address sanitizer (the
# readers are safe Rust). SECONDS are of processor time. New inputs are kept in fuzz/corpus/TARGET, failing ones in
# fuzz/artifacts. `scripts/fuzz_seeds.py DATA` writes inputs to start from, fuzz/seeds/TARGET.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
target=$1 seconds=$2
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$flags cargo build --release --target "$host" --bin "$target"
mkdir -p "corpus/$target" "seeds/$target" artifacts
"target/$host/release/$target" -max_len=100000 -timeout=300 -rss_limit_mb=2048 -artifact_prefix="artifacts/$target-" \
    -print_final_stats=1 "corpus/$target" "seeds/$target" &
fuzzer=$!
trap 'kill $fuzzer 2>/dev/null' EXIT INT TERM
used() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print int(($12 + $13) / hz) }' "/proc/$fuzzer/stat" 2>/dev/null; }
while now=$(used) && [ "${now:-$seconds}" -lt "$seconds" ]; do sleep 2; done
# libFuzzer ends after the input in hand, and prints its figures.
kill -USR1 $fuzzer 2>/dev/null || true
status=0
wait $fuzzer || status=$?
trap - EXIT
exit $status
