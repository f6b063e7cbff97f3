"""lm-eval's own templates, pointed at local files: nothing is fetched. Needs scripts/venv.sh."""
import json
import math
import tempfile
from pathlib import Path
from statistics import fmean

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerFast

TEMPLATES = dict(hellaswag="hellaswag/hellaswag.yaml", arc_easy="arc/arc_easy.yaml", arc_challenge="arc/arc_challenge.yaml",
                 piqa="piqa/piqa.yaml", winogrande="winogrande/default.yaml", lambada_openai="lambada/lambada_openai.yaml",
                 mmlu="mmlu/default/_default_template_yaml")


class Model(HFLM):
    """lm-eval's model of transformers, which goes on where lm-eval stops.

    A tokenizer may put the continuation's characters into the context's last token, and a continuation may be longer than the
    model's context; lm-eval asserts that neither happens.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.refused = set()

    def _encode_pair(self, context, continuation):
        ids, judged = super()._encode_pair(context, continuation)
        if 0 < len(judged) <= self.max_length:
            return ids, judged
        self.refused.add((context, continuation))
        return ids, [self.eot_token_id]


def local_task(name, task, file, shots_file=None):
    """lm-eval's task `task` under the name `name`, on a JSON-lines file in the form of its data set on the hub."""
    # Where the examples come from the items' own file, lm-eval leaves the item itself out.
    own = str(shots_file) == str(file)
    files = f"    test: {file}\n" + (f"    shots: {shots_file}\n" if shots_file and not own else "")
    text = (f"include: {Path(lm_eval.__file__).parent / 'tasks' / TEMPLATES[task]}\ntask: {name}\ntag: []\ndataset_path: json\n"
            f"dataset_name: null\ndataset_kwargs:\n  data_files:\n{files}"
            f"training_split: null\nvalidation_split: null\ntest_split: test\nfewshot_split: {('test' if own else 'shots') if shots_file else 'null'}\n")
    if shots_file:
        text += "fewshot_config:\n  sampler: first_n\n"
    if task == "mmlu":
        with open(file) as lines:
            subject = json.loads(lines.readline())["subject"].replace("_", " ")
        text += f'description: "The following are multiple choice questions (with answers) about {subject}.\\n\\n"\n'
    return text


def evaluate(path, tasks, shots=0, limit=None, batch_size=1, tokenizer_as_filed=False):
    """tasks: name -> (task, file) or (task, file, file of examples). Gives name -> scores and the log-likelihoods of every item,
    None for items that lm-eval cannot judge (see Model); these count in no score.

    `tokenizer_as_filed` reads tokenizer.json as it stands, where transformers would build the tokenizer of a class anew.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path) if tokenizer_as_filed else None
    model = Model(pretrained=str(path), tokenizer=tokenizer, dtype="float32", device="cpu", batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        for name, parts in tasks.items():
            (Path(folder) / f"{name}.yaml").write_text(local_task(f"local_{name}", *parts))
        # Its own catalogue of thousands of tasks is not needed.
        manager = TaskManager(include_path=folder, include_defaults=False)
        result = lm_eval.simple_evaluate(model=model, tasks=[f"local_{name}" for name in tasks], task_manager=manager,
                                         num_fewshot=shots, limit=limit, log_samples=True, bootstrap_iters=0)
    found = {}
    for name in tasks:
        scores = result["results"][f"local_{name}"]
        samples = sorted(result["samples"][f"local_{name}"], key=lambda s: s["doc_id"])
        judged = [s for s in samples if not any(tuple(pair) in model.refused for pair in s["arguments"])]
        logs = {s["doc_id"]: [float(r[0][0]) if isinstance(r[0], (list, tuple)) else float(r[0]) for r in s["resps"]] for s in judged}
        if len(judged) < len(samples):
            # Its own means, over the items that it judges.
            mean = lambda key: fmean(float(s[key]) for s in judged) if key in samples[0] else None
            scores = {"acc,none": mean("acc"), "acc_norm,none": mean("acc_norm")}
            if "perplexity" in samples[0]:
                scores["perplexity,none"] = math.exp(-fmean(log[0] for log in logs.values()))
        found[name] = dict(acc=scores.get("acc,none"), acc_norm=scores.get("acc_norm,none"), perplexity=scores.get("perplexity,none"),
                           log_probs=[logs.get(s["doc_id"]) for s in samples], items=len(judged))
    return found
