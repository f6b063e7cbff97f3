#!/bin/bash
# Builds the kernel tests for AArch64 and runs them under qemu's user mode, where the machine is none.
#
#   scripts/neon_emulated.sh [arguments of cargo test]
#
# Needs Debian's packages qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross. The Rust standard library for AArch64
# comes with the compiler that belongs to it from Debian's packages too (rustc-web), unpacked into target/neon and not
# installed; where rustup has the target aarch64-unknown-linux-gnu, that is used instead. An emulator says nothing about speed.
set -eu
repo=$(realpath "$(dirname "$0")/..")
work=$repo/target/neon
mkdir -p "$work"
target=aarch64-unknown-linux-gnu
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    if ! [ -x "$work/root/usr/bin/rustc" ]; then
        mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages"
        apt() {
            apt-get -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o Dir::State::lists="$work/lists" \
                -o Dir::Cache="$work/cache" "$@"
        }
        apt update
        cd "$work/packages"
        apt download rustc-web:amd64 libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64
        runtime=$(dpkg-deb -f libstd-rust-web-dev_*_amd64.deb Depends | cut -d ' ' -f 1)
        apt download "$runtime:amd64"
        llvm=$(dpkg-deb -f "$runtime"_*_amd64.deb Depends | grep -o 'libllvm[0-9]*')
        apt download "$llvm:amd64"
        for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
    fi
    libraries="$work/root/usr/lib/x86_64-linux-gnu"
    export LD_LIBRARY_PATH="$libraries:$(dirname "$(find "$work/root" -name 'libLLVM*.so*' | head -1)")"
    export RUSTC="$work/root/usr/bin/rustc"
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CARGO_TARGET_DIR="$work/target"
cd "$repo"
# Examples in the documentation would need a documentation tool of the same compiler.
cargo test -p corella-ops --lib --tests --target "$target" "$@"
