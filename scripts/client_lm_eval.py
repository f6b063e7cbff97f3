"""lm-eval as a client: the log-likelihoods that `local-completions` gets from `corella serve` against those of
`transformers` (lm-eval's model `hf`) on the same checkpoint. Needs scripts/venv.sh and a built program.

  .venv/bin/python scripts/client_lm_eval.py                         the small model and items of fixtures/eval
  .venv/bin/python scripts/client_lm_eval.py MODEL TASK=FILE… [--limit N]
                                                                     a Hugging Face folder; hellaswag, arc_easy, arc_challenge

FILE is JSON lines, also gzipped, in the form of the data set, or (ARC) with `query`, `choices`, `gold`, or (HellaSwag) with
`ctx` instead of `ctx_a` and `ctx_b`. Exit code 1 if a log-likelihood differs by more than the rounding of cached keys and
values explains, if an `is greedy` differs where the two best are not a tie, or if a score differs.
"""
import argparse
import gzip
import json
import os
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")
import lm_eval  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from serving import ROOT, serving  # noqa: E402

TEMPLATES = {"hellaswag": "hellaswag/hellaswag.yaml", "arc_easy": "arc/arc_easy.yaml", "arc_challenge": "arc/arc_challenge.yaml"}
# Keys and values are kept in half precision, whose steps are 2^-10 of a number: a log-likelihood may be off by half a step of
# itself, and by a thousandth of a nat where it is small.
RELATIVE, ABSOLUTE = 2.0**-11, 1e-3


def rows(task, path):
    opened = gzip.open(path, "rt") if str(path).endswith(".gz") else open(path)
    with opened as lines:
        for row in map(json.loads, lines):
            if task == "hellaswag" and "ctx" in row:
                row = dict(activity_label=row["activity_label"], ctx_a=row["ctx"], ctx_b="", endings=row["endings"], label=str(row["label"]))
            elif task.startswith("arc") and "query" in row:
                labels = ["A", "B", "C", "D", "E"][: len(row["choices"])]
                row = dict(question=row["query"].removeprefix("Question: "), choices=dict(text=row["choices"], label=labels), answerKey=labels[row["gold"]])
            yield row


def local_tasks(files, folder, limit):
    """lm-eval's own templates, pointed at local files; no data set hub is asked."""
    for task, path in files.items():
        data = folder / f"{task}.jsonl"
        kept = [json.dumps(row) for row, _ in zip(rows(task, path), range(limit))]
        data.write_text("\n".join(kept) + "\n")
        template = Path(lm_eval.__file__).parent / "tasks" / TEMPLATES[task]
        (folder / f"local_{task}.yaml").write_text(
            f"include: {template}\ntask: local_{task}\ntag: []\ndataset_path: json\ndataset_name: null\n"
            f"dataset_kwargs:\n  data_files:\n    test: {data}\n"
            "training_split: null\nvalidation_split: null\nfewshot_split: null\ntest_split: test\n")
    return TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(model, arguments, files, manager):
    result = lm_eval.simple_evaluate(model=model, model_args=arguments, tasks=[f"local_{t}" for t in files], task_manager=manager,
                                     batch_size=1, log_samples=True, bootstrap_iters=0, verbosity="ERROR")
    answers = {}
    for task in files:
        samples = sorted(result["samples"][f"local_{task}"], key=lambda s: s["doc_id"])
        answers[task] = [[(float(r[0][0]), str(r[0][1]) == "True") for r in s["resps"]] for s in samples]
    return answers, {task: result["results"][f"local_{task}"] for task in files}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("files", nargs="*", metavar="TASK=FILE")
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--kv-type", default="f16")
    args = parser.parse_args()
    eval_folder = ROOT / "fixtures" / "eval"
    files = dict(f.split("=", 1) for f in args.files) or {t: eval_folder / "items" / f"{t}.jsonl" for t in ("hellaswag", "arc_easy")}
    model = (args.model or eval_folder / "model").resolve()
    context = json.loads((model / "config.json").read_text())
    context = context.get("n_positions") or context["max_position_embeddings"]

    with tempfile.TemporaryDirectory() as folder:
        manager = local_tasks(files, Path(folder), args.limit)
        # `hf` follows the tokenizer where nothing is said, `local-completions` never adds the token that marks the start.
        tokenizer = AutoTokenizer.from_pretrained(model)
        bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        # One token of the context is generated (and thrown away) by local-completions: both sides get the same room.
        expected, scores = evaluate("hf", dict(pretrained=str(model), dtype="float32", device="cpu", max_length=context - 1, add_bos_token=bos), files, manager)
        with serving(model, "--name", "served", "--kv-type", args.kv_type) as url:
            client = dict(model="served", base_url=url + "/v1/completions", tokenizer=str(model), tokenizer_backend="huggingface",
                          num_concurrent=8, max_length=context, max_retries=1, add_bos_token=bos)
            got, served = evaluate("local-completions", client, files, manager)

    wrong = 0
    for task in files:
        theirs, ours = expected[task], got[task]
        pairs = [pair for x, y in zip(theirs, ours) for pair in zip(x, y)]
        worst = max(abs(a[0] - b[0]) for a, b in pairs)
        relative = max(abs(a[0] - b[0]) / max(1e-9, abs(a[0])) for a, b in pairs)
        outside = sum(abs(a[0] - b[0]) > RELATIVE * abs(a[0]) + ABSOLUTE for a, b in pairs)
        greedy = sum(a[1] != b[1] for a, b in pairs)
        accuracy = {k: (scores[task][k], served[task][k]) for k in ("acc,none", "acc_norm,none")}
        same = all(a == b for a, b in accuracy.values())
        bad = outside > 0 or greedy > 0 or not same
        wrong += bad
        print(f"{task}: {len(theirs)} items, {len(pairs)} log-likelihoods; largest difference {worst:.1e} nats, "
              f"{relative:.1e} relative, {outside} too large; greedy differs {greedy} times; "
              + ", ".join(f"{k.split(',')[0]} {b:.4f} (transformers {a:.4f})" for k, (a, b) in accuracy.items())
              + (" WRONG" if bad else " ok"))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
