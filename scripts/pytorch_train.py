"""Updates of a GPT-2 with random weights in PyTorch on a card: bf16 autocast, fused attention and AdamW, torch.compile.

    .venv/bin/python scripts/pytorch_train.py --model gpt2-124m --micro-batch 16 --steps 20

The last line is JSON: milliseconds of an update (median) and tokens per second, with and without compilation. The same model,
batch and optimizer as `corella bench train`.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

MODELS = {  # vocabulary, layers, heads, width, context
    "gpt2-124m": (50257, 12, 12, 768, 1024),
    "gpt2-355m": (50257, 24, 16, 1024, 1024),
    "gpt2-774m": (50257, 36, 20, 1280, 1024),
    "gpt2-1558m": (50257, 48, 25, 1600, 1024),
    "mid": (50257, 6, 6, 384, 256),
    "small": (4096, 6, 6, 192, 256),
    "tour": (2048, 4, 4, 256, 256),
}


class Block(nn.Module):
    def __init__(self, heads, width):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, vocabulary, layers, heads, width, context):
        super().__init__()
        # As wide as the tensor cores like it; the rows beyond the vocabulary are never targets.
        self.wte, self.wpe = nn.Embedding((vocabulary + 63) // 64 * 64, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(heads, width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def median_ms(shape, batch, steps, compiled):
    torch.manual_seed(1)
    model = Gpt2(*shape).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model) if compiled else model
    ids = torch.randint(shape[0], (batch, shape[4] + 1), device="cuda")
    times = []
    for step in range(steps + 5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = run(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if step >= 5:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--model", choices=MODELS, default="gpt2-124m")
    flags.add_argument("--micro-batch", type=int, default=16)
    flags.add_argument("--steps", type=int, default=20)
    args = flags.parse_args()
    shape = MODELS[args.model]
    torch.backends.cuda.matmul.allow_tf32 = True
    result = {"torch": torch.__version__, "cuda": torch.version.cuda, "card": torch.cuda.get_device_name()}
    for compiled in (False, True):
        ms = median_ms(shape, args.micro_batch, args.steps, compiled)
        tokens = args.micro_batch * shape[4] / ms * 1e3
        result["compiled" if compiled else "eager"] = {"ms": ms, "tokens_per_second": tokens}
        print(f"{'compiled' if compiled else 'eager'}: {ms:.2f} ms, {tokens:.0f} tokens/s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
