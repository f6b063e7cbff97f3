#!/bin/sh
# Updates of one model here and in PyTorch, in turns, so that both see the same machine.
#
#   scripts/bench_beside_pytorch.sh CORELLA PYTORCH_TRAIN.py gpt2-124m|mid|small B [ROUNDS]
#
# PYTORCH_TRAIN.py is not part of this repository: any program that trains the same model and takes --model gpt2|mid|laptop --B N --dtype f32|bf16 --compile none|default. Needs scripts/venv.sh.
# The last lines are the medians of the rounds: tokens per second of each configuration.
set -eu
corella=$1 script=$2 model=$3 b=$4 rounds=${5:-3}
case $model in small) theirs=laptop ;; gpt2-124m) theirs=gpt2 ;; *) theirs=$model ;; esac
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for round in $(seq "$rounds"); do
    for dtype in f32 bf16; do
        for compile in none default; do
            line=$(.venv/bin/python "$script" --model "$theirs" --B "$b" --dtype $dtype --compile $compile --steps 5 | tail -1)
            echo "round $round, torch $dtype, compile $compile: $line"
            speed=$(echo "$line" | sed 's/.*"tok_s": \([0-9.]*\).*/\1/')
            echo "torch-$dtype-$compile $speed" >> "$results"
        done
        line=$("$corella" bench train --model "$model" --micro-batch "$b" --dtype $dtype --repeat 5 | grep 'tokens/s')
        echo "round $round, corella $dtype: $line"
        echo "corella-$dtype $(echo "$line" | sed 's/[^0-9.]*\([0-9.]*\) tokens.*/\1/')" >> "$results"
    done
done
sort -k1,1 -k2,2n "$results" | awk '
    $1 != name { if (name != "") print name, value[int((n + 1) / 2)]; name = $1; n = 0 }
    { n++; value[n] = $2 }
    END { print name, value[int((n + 1) / 2)] }'
