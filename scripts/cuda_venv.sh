#!/usr/bin/env bash
# Puts CUDA's compiler into .venv: enough to compile every kernel without a card (`cargo xtask kernels`). Further packages as
# arguments: `scripts/cuda_venv.sh nvidia-cublas` where a card and its driver, but no CUDA toolkit, are installed. What cargo starts
# here finds them (.cargo/config.toml); a program that is started otherwise does where VIRTUAL_ENV names the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet nvidia-cuda-nvrtc "$@"
echo "for programs that cargo does not start: export VIRTUAL_ENV=$PWD/.venv"
