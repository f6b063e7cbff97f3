#!/usr/bin/env bash
# Runs a fuzz target: scripts/fuzz.sh TARGET SECONDS [SEEDS…]
#
# What `cargo fuzz run` does, with the flags of its coverage but without its nightly toolchain and address sanitizer (the
# readers are safe Rust). New inputs are kept in fuzz/corpus/TARGET, failing ones in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
target=$1 seconds=$2
shift 2
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$flags cargo build --release --target "$host" --bin "$target"
mkdir -p "corpus/$target" artifacts
exec "target/$host/release/$target" -max_total_time="$seconds" -max_len=100000 -timeout=20 -rss_limit_mb=2048 \
    -artifact_prefix=artifacts/ -print_final_stats=1 "corpus/$target" "$@"
