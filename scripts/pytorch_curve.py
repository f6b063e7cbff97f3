"""The loss curve of PyTorch beside ours: same initial weights, same batches, same optimizer.

    .venv/bin/python scripts/pytorch_curve.py init  CONFIG OUT              random GPT-2 (transformers) as a Hugging Face folder
    .venv/bin/python scripts/pytorch_curve.py train INIT DATA RUN.toml OUT [STEPS]
                                                           trains it on the windows of DATA in their file order
    .venv/bin/python scripts/pytorch_curve.py compare OURS THEIRS [THEIRS2] largest and mean gap between two or three log.jsonl

CONFIG is vocab,layers,heads,width,context. RUN.toml is the run.toml of our run, which must have `order = "file"`.
"""
import json
import math
import sys
import time
import tomllib
from pathlib import Path

import numpy as np


def init(config, out):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    v, l, h, c, t = (int(x) for x in config.split(","))
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=v, n_layer=l, n_head=h, n_embd=c, n_positions=t,
                                       resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    model.save_pretrained(out)


def tokens_of(data):
    parts = []
    for path in sorted(Path(data).glob("train_*.bin")):
        magic, _, n = np.fromfile(path, dtype=np.int32, count=3)
        dtype = np.uint16 if magic == 20240520 else np.uint32
        parts.append(np.fromfile(path, dtype=dtype, offset=1024).astype(np.int64)[:n])
    return np.concatenate(parts)


def learning_rate(p, step):
    lr, u, n = p["lr"], p["warmup_steps"], p["steps"]
    floor = p["final_lr_fraction"] * lr
    if step < u:
        return lr * (step + 1) / u
    r = (step - u) / max(1, n - u)
    if p["schedule"] == "cosine":
        return floor + 0.5 * (1 + math.cos(math.pi * r)) * (lr - floor)
    if p["schedule"] == "linear":
        return lr + (floor - lr) * r
    assert p["schedule"] == "constant", p["schedule"]
    return lr


def train(folder, data, run, out, limit=None, compiled=False):
    import torch
    from transformers import GPT2LMHeadModel
    torch.set_num_threads(2)
    plan = tomllib.loads(Path(run).read_text())
    p, t = plan["train"], plan["model"]["seq_len"]
    sequences = p["batch_tokens"] // t
    ids = torch.from_numpy(tokens_of(data))
    model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa")
    model.train()
    decay = [q for q in model.parameters() if q.dim() >= 2]
    rest = [q for q in model.parameters() if q.dim() < 2]
    opt = torch.optim.AdamW([dict(params=decay, weight_decay=p["weight_decay"]), dict(params=rest, weight_decay=0.0)],
                            lr=p["lr"], betas=(p["beta1"], p["beta2"]), eps=p["eps"])
    loss_of = lambda x, y: torch.nn.functional.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
    if compiled:
        loss_of = torch.compile(loss_of)
    with open(out, "w") as log:
        for step in range(min(p["steps"], int(limit or p["steps"]))):
            start = time.time()
            first = step * sequences
            at = [(first + i) * t for i in range(sequences)]
            x = torch.stack([ids[a:a + t] for a in at])
            y = torch.stack([ids[a + 1:a + t + 1] for a in at])
            for group in opt.param_groups:
                group["lr"] = learning_rate(p, step)
            opt.zero_grad()
            micro = p["micro_batch"]
            total = 0.0
            for i in range(0, sequences, micro):
                loss = loss_of(x[i:i + micro], y[i:i + micro])
                (loss * micro / sequences).backward()
                total += loss.item() * micro / sequences
            # In f64: clip_grad_norm_ adds the squares of millions of f32 gradients in f32 and is off by 1e-5 and more,
            # which every later update inherits through the clipping.
            norm = torch.sqrt(sum((q.grad.double() ** 2).sum() for q in model.parameters())).item()
            factor = min(1.0, p["clip"] / (norm + 1e-6))
            for q in model.parameters():
                q.grad.mul_(factor)
            opt.step()
            ms = (time.time() - start) * 1000
            log.write(json.dumps(dict(step=step + 1, loss=total, norm=norm, ms=ms)) + "\n")
            log.flush()


def compare(*paths):
    curves = []
    for path in paths:
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        curves.append({r["step"]: r for r in rows if "loss" in r})
    base = curves[0]
    result = {}
    for path, other in zip(paths[1:], curves[1:]):
        steps = sorted(base.keys() & other.keys())
        gaps = [abs(base[s]["loss"] - other[s]["loss"]) for s in steps]
        ms = lambda c: sorted(c[s]["ms"] for s in steps)[len(steps) // 2]
        result[Path(path).name] = dict(steps=len(steps), max_gap=max(gaps), mean_gap=sum(gaps) / len(gaps),
                                       last_ours=base[steps[-1]]["loss"], last_theirs=other[steps[-1]]["loss"],
                                       median_ms_ours=ms(base), median_ms_theirs=ms(other))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "train" and rest[-1] == "--compile":
        train(*rest[:-1], compiled=True)
    else:
        {"init": init, "train": train, "compare": compare}[command](*rest)
