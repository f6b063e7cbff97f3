"""The steps of scripts/on_a_gpu.sh, which calls this: each is a process of its own with a limit of time, so that none takes the others
along. After each one the document is written anew.

    python scripts/on_a_gpu.py FOLDER [--seconds N] [--only STEP,...]

FOLDER holds the programs `corella` and `on_a_card`, and the file `commit`. `--only` runs the steps whose names begin so (`doctor` always
runs), and says in the document which.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

# Work, what it is held against, and the least that is wanted (docs/on-a-card.md).
TARGETS = [
    ("GPT-2 124M, MFU by 6N+6LCT, percent of the datasheet", 45.0, lambda d: row(d, "train_124m")["percent_of_datasheet"]),
    ("GPT-2 124M, tokens/s beside PyTorch compiled", 1.2,
     lambda d: row(d, "train_124m")["tokens_per_second"] / d["pytorch_124m"]["compiled"]["tokens_per_second"]),
    ("GPT-2 1558M, MFU by 6N+6LCT, percent of the datasheet", 52.0, lambda d: row(d, "train_1558m")["percent_of_datasheet"]),
    ("Llama 8B bf16, decode of one, percent of the measured copy", 75.0,
     lambda d: 100 * row(d, "llama_bf16", "1 ×")["value"] / d["llama_bf16"]["ceilings"]["copy_gbs"]),
    ("Llama 8B bf16, prefill of 2,048, percent of the measured products", 60.0,
     lambda d: row(d, "llama_bf16", "2048")["percent_of_ceiling"]),
]


def row(document, name, shape=""):
    """The first row of a bench whose shape begins so."""
    return next(r for r in document[name]["results"] if r["shape"].startswith(shape))


class Run:
    def __init__(self, programs, seconds):
        self.programs, self.end = programs, time.monotonic() + seconds
        self.document = {"card": None, "commit": (programs / "commit").read_text().strip(), "complete": False,
                         "command": " ".join(sys.argv), "tests": []}
        self.logs = programs / "logs"
        self.logs.mkdir(exist_ok=True)

    def process(self, name, limit, command):
        """Runs a command: its state, and what it printed."""
        left = self.end - time.monotonic()
        if left < 5:
            return "no time", "", 0.0
        start, log = time.monotonic(), self.logs / f"{name}.log"
        with log.open("w") as out:
            try:
                code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=min(limit, left)).returncode
                state = "passed" if code == 0 else "failed"
            except subprocess.TimeoutExpired:
                state = "out of time"
        text = log.read_text(errors="replace")
        seconds = round(time.monotonic() - start, 1)
        print(f"{name}: {state}, {seconds} s", flush=True)
        if state != "passed":
            print(text[-2000:], flush=True)
        return state, text, seconds

    def test(self, name, limit, command):
        state, text, seconds = self.process(name, limit, command)
        if state == "passed" and re.search("^skipped", text, re.M):
            state = "skipped"
        self.document["tests"].append({"name": name, "state": state, "seconds": seconds})
        self.write()

    def measure(self, name, limit, command):
        """A command whose document is a line of its own, the last or before an error; the others go to the terminal."""
        state, text, _ = self.process(name, limit, command)
        lines = text.splitlines()
        documents = [line for line in lines if line.startswith("{")]
        self.document[name] = {"state": state} | (json.loads(documents[-1]) if documents else {})
        print("\n".join(line for line in lines if not line.startswith("{")), flush=True)
        self.write()

    def write(self):
        if self.document["card"] is None:
            return
        file = re.sub(r"[^a-z0-9]+", "-", self.document["card"].lower()).strip("-") + ".json"
        for folder in filter(None, ["docs/measurements", os.environ.get("OUT")]):
            path = pathlib.Path(folder, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(self.document, indent=1) + "\n")
            unfinished.rename(path)
            self.path = path

    def targets(self):
        for what, least, value in TARGETS:
            try:
                yield {"what": what, "least": least, "value": value(self.document)}
            except (KeyError, StopIteration, TypeError):
                yield {"what": what, "least": least, "value": None}


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("programs", type=pathlib.Path)
    flags.add_argument("--seconds", type=float, default=3600)
    flags.add_argument("--only", help="steps, separated by commas")
    args = flags.parse_args()
    run = Run(args.programs, args.seconds)
    corella, suite = str(args.programs / "corella"), str(args.programs / "on_a_card")
    run.measure("doctor", 60, [corella, "doctor", "--json", "--device", "cuda"])
    doctor = run.document["doctor"]
    if not doctor.get("device", "").startswith("cuda"):
        sys.exit("no CUDA device that can be used (see above); nothing was run, nothing written")
    run.document["card"] = doctor["gpus"][0]["name"]

    sanitizer = shutil.which("compute-sanitizer")

    def tests():
        """Each test by its own name; the first one compiles the kernels."""
        names = subprocess.run([suite, "--list"], capture_output=True, text=True, check=True).stdout
        for name in re.findall("^(.*): test$", names, re.M):
            run.test(name, 120, [suite, "--nocapture", "--test-threads", "1", "--exact", name])

    def checker(name, tool):
        checked = [suite, "--test-threads", "1", "every_operation"]
        if sanitizer:
            run.test(name, 90, [sanitizer, "--tool", tool, "--error-exitcode", "1", *checked])
        else:
            print(f"{name}: skipped, no compute-sanitizer (it comes with the CUDA toolkit)")
            run.document["tests"].append({"name": name, "state": "skipped"})

    def bench(name, limit, *what):
        run.measure(name, limit, [corella, "bench", *what, "--device", "cuda"])

    def update(name, limit, model, b):
        bench(name, limit, "train", "--model", model, "--micro-batch", str(b), "--dtype", "bf16", "--repeat", "20")

    def pytorch(name, limit, model, b):
        flags = ["--model", model, "--micro-batch", str(b), "--steps", "20"]
        run.measure(name, limit, [sys.executable, "scripts/pytorch_train.py", *flags])

    def llama(weights):
        flags = ["--model", "llama-3.1-8b", "--weights", weights, "--prompt", "2048", "--repeat", "3"]
        bench(f"llama_{weights}", 120, "generate", *flags)

    # Is it right? Then, is it fast? PyTorch between two of ours, so that a card that slows down shows.
    steps = {
        "tests": tests,
        "train_124m": lambda: update("train_124m", 90, "gpt2-124m", 64),
        "pytorch_124m": lambda: pytorch("pytorch_124m", 150, "gpt2-124m", 64),
        "train_124m_again": lambda: update("train_124m_again", 90, "gpt2-124m", 64),
        "llama_bf16": lambda: llama("bf16"),
        "llama_q8_0": lambda: llama("q8_0"),
        "llama_q4_k": lambda: llama("q4_k"),
        "train_1558m": lambda: update("train_1558m", 120, "gpt2-1558m", 16),
        "pytorch_1558m": lambda: pytorch("pytorch_1558m", 200, "gpt2-1558m", 16),
        "memory_checker": lambda: checker("memory_checker", "memcheck"),
        "race_checker": lambda: checker("race_checker", "racecheck"),
    }
    chosen = tuple(args.only.split(",")) if args.only else ("",)
    left_out = [name for name in steps if not name.startswith(chosen)]
    run.document["left_out"] = left_out
    for name, step in steps.items():
        if name not in left_out:
            step()

    run.document["targets"] = list(run.targets())
    run.document["complete"] = not left_out
    run.write()
    for target in run.document["targets"]:
        print(f"{target['what']}: {target['value']} (at least {target['least']})")
    print(run.path)
    sys.exit(any(test["state"] == "failed" for test in run.document["tests"]))


if __name__ == "__main__":
    main()
