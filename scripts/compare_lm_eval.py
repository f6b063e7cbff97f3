"""Scores of `corella eval` beside lm-eval's through transformers, on every task file of a folder.

    scripts/compare_lm_eval.py PROGRAM MODEL DATA [--limit N] [--tokenizer-as-filed] [--tasks piqa,mmlu_5_shot] [--kept FOLDER]

MODEL is a Hugging Face folder. DATA holds hellaswag/, llm-foundry/ and mmlu/ with the sets in the form of llm-foundry (gzipped
JSON lines); they are rewritten into the form of the hub's data sets, which lm-eval's own templates read. Every log-likelihood
must agree within 1e-4 of its size (or of 1), accuracies exactly. Items that lm-eval refuses (lm_eval_local.py says which) must be
those that are left out here. Exit code 1 on a difference. lm-eval is the slow part: with --kept its
results are written into a folder and taken from there the next time.
"""
import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from lm_eval_local import evaluate  # noqa: E402

FILES = dict(hellaswag="hellaswag/hellaswag_val_derived", arc_easy="llm-foundry/world_knowledge/arc_easy",
             arc_challenge="llm-foundry/world_knowledge/arc_challenge", piqa="llm-foundry/commonsense_reasoning/piqa",
             winogrande="llm-foundry/language_understanding/winogrande", lambada_openai="llm-foundry/language_understanding/lambada_openai",
             mmlu="mmlu/mmlu_validation", mmlu_5_shot="mmlu/mmlu_validation")
# Of a log-likelihood. Sums in another order move it by about 1e-6.
LARGEST_GAP = 1e-4
SHOTS = {"mmlu_5_shot": "mmlu/mmlu_dev"}


def hub_form(task, row):
    """A row of the files here as the data set on the hub has it."""
    if task == "hellaswag":
        return dict(activity_label=row["activity_label"], ctx_a=row["ctx"], ctx_b="", endings=row["endings"], label=str(row["label"]))
    if task.startswith("arc"):
        labels = [str(i) for i in range(len(row["choices"]))]
        return dict(question=row["query"].removeprefix("Question: "), choices=dict(text=row["choices"], label=labels),
                    answerKey=str(row["gold"]))
    if task == "piqa":
        goal = row["query"].removeprefix("Question: ").rstrip("\n")
        return dict(goal=goal, sol1=row["choices"][0], sol2=row["choices"][1], label=row["gold"])
    if task == "winogrande":
        # What both contexts begin with is the sentence up to the gap; it ends before a word.
        a, b = row["context_options"]
        same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        same = a[:same].rfind(" ") + 1
        return dict(sentence=f"{a[:same]}_ {row['continuation'].strip()}", option1=a[same:], option2=b[same:], answer=str(row["gold"] + 1))
    if task == "lambada_openai":
        return dict(text=f"{row['context']} {row['continuation']}")
    return row


def rows(path, limit=None):
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file][:limit]


def write(path, lines):
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def theirs(name, args, folder):
    """lm-eval's scores; of MMLU as its group has them: over all items."""
    task, shots_file = name.removesuffix("_5_shot"), SHOTS.get(name)
    lines = [hub_form(task, row) for row in rows(f"{args.data}/{FILES[name]}.jsonl.gz", args.limit)]
    options = dict(shots=5 if shots_file else 0, batch_size=args.batch_size, tokenizer_as_filed=args.tokenizer_as_filed)
    if task != "mmlu":
        return evaluate(args.model, {name: (task, write(folder / f"{name}.jsonl", lines))}, **options)[name]
    subjects, examples, places = defaultdict(list), defaultdict(list), defaultdict(list)
    for place, line in enumerate(lines):
        subjects[line["subject"]].append(line)
        places[line["subject"]].append(place)
    for line in rows(f"{args.data}/{shots_file}.jsonl.gz") if shots_file else []:
        examples[line["subject"]].append(line)
    tasks = {s: (task, write(folder / f"{s}.jsonl", items), *([write(folder / f"{s}.dev.jsonl", examples[s])] if shots_file else []))
             for s, items in subjects.items()}
    found = evaluate(args.model, tasks, **options)
    logs = [None] * len(lines)
    for subject, scores in found.items():
        for place, log_probs in zip(places[subject], scores["log_probs"]):
            logs[place] = log_probs
    items = sum(scores["items"] for scores in found.values())
    acc = sum(scores["acc"] * scores["items"] for scores in found.values()) / items
    return dict(acc=acc, acc_norm=None, perplexity=None, log_probs=logs, items=items)


def kept(name, args, folder):
    """lm-eval's scores, from an earlier run where they are kept."""
    if not args.kept:
        return theirs(name, args, folder)
    path = Path(args.kept) / f"{Path(args.model).name}.{name}.{args.limit or 'all'}.json"
    if not path.exists():
        found = theirs(name, args, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def ours(name, args, folder):
    """Scores here; of an item that cannot be judged, None."""
    task, items = name.removesuffix("_5_shot"), folder / f"{name}.items.jsonl"
    lines = rows(f"{args.data}/{FILES[name]}.jsonl.gz", args.limit)
    file = write(folder / f"{name}.jsonl", lines)
    items.unlink(missing_ok=True)  # The program would go on with an earlier run.
    command = [args.program, "eval", args.model, "--task", f"{task}={file}", "--items", items, "--limit", "0", "--json"]
    if name in SHOTS:
        command += ["--shots", "5", "--shots-from", f"{task}={args.data}/{SHOTS[name]}.jsonl.gz"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    scores = json.loads(found.splitlines()[-1])["tasks"][task]
    found = [json.loads(line)["score"] for line in items.read_text().splitlines()]
    return dict(scores, log_probs=[score and score["log_probs"] for score in found])


def compare(name, a, b):
    """A row of the table, and whether they agree."""
    worst, far = 0.0, 0
    for number, (x, y) in enumerate(zip(a["log_probs"], b["log_probs"], strict=True)):
        if x is None and y is None:
            continue
        gap = float("inf") if x is None or y is None else max(abs(p - q) / max(abs(q), 1.0) for p, q in zip(x, y, strict=True))
        worst = max(worst, gap)
        if gap > LARGEST_GAP:
            far += 1
            if far <= 3:
                print(f"{name} {number}: {x} here, {y} there", file=sys.stderr)
    same = far == 0 and abs(a["acc"] - b["acc"]) < 1e-12 and abs((a.get("acc_norm") or 0) - (b["acc_norm"] or 0)) < 1e-12
    if b["perplexity"] is not None:
        same &= abs(a["perplexity"] / b["perplexity"] - 1) < 5 * LARGEST_GAP
    pair = lambda key: "–" if b[key] is None else f"{a[key]:.6g} / {b[key]:.6g}"
    items = f"{b['items']} of {len(b['log_probs'])}"
    return f"| {name} | {items} | {pair('acc')} | {pair('acc_norm')} | {pair('perplexity')} | {worst:.1e} | {far} |", same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["program", "model", "data"]:
        parser.add_argument(name)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokenizer-as-filed", action="store_true")
    parser.add_argument("--kept")
    parser.add_argument("--tasks", default=",".join(FILES))
    args = parser.parse_args()
    print("| task | items | acc here / there | acc_norm | perplexity | largest relative gap of a log-likelihood | items above 1e-4 |")
    print("|---|---|---|---|---|---|---|")
    equal = True
    for name in args.tasks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            there = kept(name, args, Path(folder))
            row, same = compare(name, ours(name, args, Path(folder)), there)
        print(row, flush=True)
        equal &= same
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
