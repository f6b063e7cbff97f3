#!/bin/sh
# Updates of one model here and in PyTorch, in turns, so that both see the same machine.
#
#   scripts/bench_beside_pytorch.sh CORELLA PYTORCH_TRAIN.py small|mid B [ROUNDS]
#
# PYTORCH_TRAIN.py takes --model laptop|mid --B N --dtype f32 --compile none|default. Needs scripts/venv.sh.
set -eu
corella=$1 script=$2 model=$3 b=$4 rounds=${5:-3}
case $model in small) theirs=laptop ;; *) theirs=$model ;; esac
for round in $(seq "$rounds"); do
    for compile in none default; do
        echo "round $round, torch f32, compile $compile:"
        .venv/bin/python "$script" --model "$theirs" --B "$b" --dtype f32 --compile $compile --steps 5 | tail -1
    done
    echo "round $round, corella:"
    "$corella" bench train --model "$model" --repeat 5 | sed '$d'
done
