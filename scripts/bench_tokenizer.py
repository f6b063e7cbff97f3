#!/usr/bin/env python3
"""Speed of encoding beside tiktoken, in turns: medians of MB/s on one thread and on all, GPT-2's vocabulary and Llama 3's.

    .venv/bin/python scripts/bench_tokenizer.py CORELLA DATA [ROUNDS [MEGABYTES]]

CORELLA is a release build; DATA holds tokenizers/ and text/. The text is the first MEGABYTES (default 16) of the novels.
Needs what scripts/venv.sh installs.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenizer_oracles import tiktoken_gpt2, tiktoken_llama3


def main():
    corella, data = sys.argv[1], Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    size = int(float(sys.argv[4]) * 1e6) if len(sys.argv) > 4 else 16_000_000
    tar = subprocess.run(["tar", "--zstd", "-xOf", data / "text/english_novels/novels.tar.zst"], check=True, capture_output=True)
    text = tar.stdout[:size].decode("utf-8", "ignore").replace("\ufeff", "").replace("\r\n", "\n")
    lines = text.splitlines(keepends=True)
    step = len(lines) // 16 + 1
    parts = ["".join(lines[i : i + step]) for i in range(0, len(lines), step)]
    threads = os.cpu_count()
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        megabytes = len(text.encode()) / 1e6
        for name, tokenizer, theirs in [
            ("GPT-2", "gpt2", tiktoken_gpt2(data)),
            ("Llama 3", str(data / "tokenizers/llama3/tokenizer.model"), tiktoken_llama3(data)),
        ]:
            rates = {}
            for _ in range(rounds):
                command = [corella, "tokenizer", "bench", "--tokenizer", tokenizer, "--text", file.name, "--repeat", "1", "--json"]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                for result in json.loads(out.splitlines()[-1])["results"]:
                    rates.setdefault(("corella", result["threads"]), []).append(result["mb_per_second"])
                for n in (1, threads):
                    begin = time.perf_counter()
                    for part in parts if n == 1 else [parts]:
                        theirs.encode_ordinary(part) if n == 1 else theirs.encode_ordinary_batch(part, num_threads=n)
                    rates.setdefault(("tiktoken", n), []).append(megabytes / (time.perf_counter() - begin))
            medians = {key: statistics.median(values) for key, values in rates.items()}
            for n in (1, threads):
                mine, tiktoken = medians["corella", n], medians["tiktoken", n]
                spread = [f"{min(rates[who, n]):.1f} to {max(rates[who, n]):.1f}" for who in ("corella", "tiktoken")]
                print(f"{name}, {n} threads: {mine:.1f} MB/s ({spread[0]}), tiktoken {tiktoken:.1f} ({spread[1]}), ratio {mine / tiktoken:.2f}")


main()
