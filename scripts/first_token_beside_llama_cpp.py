#!/usr/bin/env python3
"""From nothing to the first token, beside llama.cpp on the same GGUF file, in turns.

    python scripts/first_token_beside_llama_cpp.py CORELLA MODEL.gguf [--rounds 3] [--cold]

Ours is a whole process: from its start until the last byte of `generate --max-tokens 1` has come. llama.cpp's time begins when its
package is imported and ends with the first token. The file is read once before, so that it lies in the page cache.

A virtual machine whose host takes free memory back gets it again at half a gigabyte a second, which measures the host. So before
each turn a child touches as much memory as the file is long and gives it back: what follows finds it as on a machine of its own.
`--cold` leaves that out. The last line is one JSON object with seconds. Needs Linux, `llama-cpp-python` (0.3.36), `numpy`.
"""
import argparse
import json
import mmap
import os
import statistics
import subprocess
import sys
import time

IDS = [1, 2, 3, 4, 5]


def touch(size):
    """Makes the system own `size` bytes of memory, in huge pages where it has them."""
    with mmap.mmap(-1, size) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


def ours(program, model):
    start = time.perf_counter()
    args = [program, "generate", model, "--prompt-ids", ",".join(map(str, IDS)), "--max-tokens", "1"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        seconds = None
        while os.read(process.stdout.fileno(), 4096):
            seconds = time.perf_counter() - start
    if process.returncode or seconds is None:
        raise SystemExit(f"{program} ended with {process.returncode}")
    return seconds


def theirs(model, threads):
    import llama_cpp

    start = time.perf_counter()
    llama = llama_cpp.Llama(model, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    llama.eval(IDS)
    return time.perf_counter() - start


def child(*args):
    """One turn in a process of its own, so that nothing of it stays."""
    return subprocess.run([sys.executable, __file__, *map(str, args)], check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "touch":
        return touch(int(sys.argv[2]))
    if len(sys.argv) == 4 and sys.argv[1] == "theirs":
        return print(theirs(sys.argv[2], int(sys.argv[3])))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("corella")
    options.add_argument("model")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--cold", action="store_true")
    asked = options.parse_args()
    size = os.path.getsize(asked.model)
    with open(asked.model, "rb") as file:
        while file.read(1 << 24):
            pass
    seconds = {"ours": [], "llama.cpp": []}
    for _ in range(asked.rounds):
        for who, times in seconds.items():
            if not asked.cold:
                child("touch", size + size // 8)
            times.append(ours(asked.corella, asked.model) if who == "ours" else float(child("theirs", asked.model, asked.threads)))
            print(f"{who}: {times[-1]:.2f} s", flush=True)
    median = {who: round(statistics.median(times), 2) for who, times in seconds.items()}
    print(json.dumps({"model": os.path.basename(asked.model), "median_s": median, "ratio": round(median["ours"] / median["llama.cpp"], 2),
                      "rounds": {who: [round(t, 2) for t in times] for who, times in seconds.items()}}))


main()
