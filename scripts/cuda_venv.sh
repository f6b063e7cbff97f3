#!/usr/bin/env bash
# Puts CUDA's compiler into .venv: enough to compile every kernel without a card (`cargo xtask kernels`). Further packages as
# arguments: `scripts/cuda_venv.sh nvidia-cublas` where a card and its driver, but no CUDA toolkit, are installed.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet nvidia-cuda-nvrtc "$@"
