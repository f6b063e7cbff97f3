#!/bin/bash
# Runs the kernel tests with AddressSanitizer, and on the AVX2 and the portable path under valgrind where it is installed
# (valgrind knows no AVX-512).
#
#   scripts/sanitize_kernels.sh [asan|valgrind]
#
# What it builds lies in target/asan and target/valgrind.
# AddressSanitizer sees every load and store that the compiler makes, vector intrinsics included; not those inside assembly
# blocks (tiles of AMX, dot products of VNNI, multiply-adds of AVX2 for many rows). The pinned compiler has its runtime, behind RUSTC_BOOTSTRAP.
set -eu
what=${1:-asan}
cd "$(dirname "$0")/.."
work=$PWD/target
target=x86_64-unknown-linux-gnu
case $what in
asan)
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="$work/asan" \
        cargo test -p corella-ops --lib --tests --target $target
    ;;
valgrind)
    CARGO_TARGET_DIR="$work/valgrind" cargo test -p corella-ops --test conformance --test infer --no-run --target $target
    run() {
        test=$(ls -t "$work/valgrind/$target/debug/deps/$1"-* | grep -v '\.d$' | head -1)
        shift
        # Paths that valgrind cannot run are left out by the processor that it shows to the program.
        valgrind --error-exitcode=1 --fair-sched=yes "$test" --test-threads 1 "$@"
    }
    run conformance special smallest alone
    run infer special without_columns
    ;;
*)
    echo "asan or valgrind" >&2
    exit 2
    ;;
esac
