#!/usr/bin/env bash
# Everything that needs an NVIDIA card, in one go: what doctor finds; conformance (every operation against the f64 reference, losses,
# gradients and ten updates against PyTorch, models against transformers, prefill = decode, the same bits twice, recorded steps and
# draws); the memory checker; then whole updates beside PyTorch, and Llama 8B. scripts/on_a_gpu.py has the steps and their limits.
# The result is one JSON under docs/measurements/, named after the card, and in $OUT where that is set. It is written anew after
# each step, so that a machine that is taken away leaves what was found until then ("complete" tells).
#
#   scripts/on_a_gpu.sh [--seconds N] [--only STEP,...]
#                                             N is what there is time for [3600]; steps that do not fit are left out, and said so
#   scripts/on_a_gpu.sh pack                  for a machine with a card, its driver and PyTorch, but without Rust and network:
#                                             puts both programs, stripped, into target/on_a_gpu (24 MB, 10 packed with gzip);
#                                             carry the repository (5 MB) and that folder there, and run the first form
#
# Nothing else need be carried: PyTorch's packages bring cuBLASLt and NVRTC, which compiles the kernels for the card at first use
# (on all cores, once; $CORELLA_KERNEL_CACHE keeps them), and weights are random ones made on the spot. Without PyTorch:
# scripts/cuda_venv.sh nvidia-cublas, whose packages are found in .venv.
#
# On one H200 with 16 cores: doctor 1 s, tests 29 s (the first compiles the kernels), GPT-2 124M 13 s for ours, PyTorch 51 s, Llama 8B
# 17 s in each of bf16, Q8_0 and Q4_K, GPT-2 1558M 32 s; memory and race checker may take 90 s each, and come last.
# CORELLA_KERNEL_TIMES=1 before a `corella bench … --device cuda` says how long each kernel takes.
set -euo pipefail
cd "$(dirname "$0")/.."
packed=target/on_a_gpu
case ${1:-} in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    pack)
        cargo build --release -p corella
        test=$(cargo test --release -p corella-cuda --test on_a_card --no-run --message-format json |
            sed -n 's/.*"executable":"\([^"]*on_a_card[^"]*\)".*/\1/p' | tail -1)
        mkdir -p "$packed"
        strip -o "$packed/corella" target/release/corella
        strip -o "$packed/on_a_card" "$test"
        git rev-parse --short HEAD > "$packed/commit"
        du -sh "$packed"
        exit 0
        ;;
esac
# Before anything is downloaded or built: the driver makes one of these (the last under Windows).
if ! compgen -G '/dev/nvidia[0-9]*' > /dev/null && [ ! -e /dev/dxg ]; then
    echo "no CUDA device: there is no /dev/nvidia0; nothing was run, nothing written" >&2
    exit 1
fi
python=.venv/bin/python
if [ ! -x $python ] && python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
    python=python3
elif [ ! -x $python ]; then
    scripts/venv.sh
fi
# PyTorch brings CUDA's libraries; where they are installed otherwise, those are found too.
libraries=$("$python" -c 'import glob, importlib.util as u
spec = u.find_spec("nvidia")
print(":".join(path for root in (spec.submodule_search_locations if spec else []) for path in glob.glob(f"{root}/*/lib")))')
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# Where the tests find the fixtures, wherever they were built.
export CARGO_MANIFEST_DIR=$PWD/crates/corella-cuda
if [ ! -x "$packed/corella" ] || command -v cargo > /dev/null; then
    scripts/on_a_gpu.sh pack
fi
exec "$python" scripts/on_a_gpu.py "$packed" "$@"
