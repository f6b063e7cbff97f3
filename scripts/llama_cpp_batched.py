#!/usr/bin/env python3
"""Tokens per second of llama.cpp decoding several sequences in one batch, for scripts/bench_beside_llama_cpp.sh.

  python scripts/llama_cpp_batched.py MODEL.gguf [--sequences 8,32] [--given 16] [--tokens 32] [--reps 3] [--threads 2]

Each step is one llama_decode with a token of every sequence, whose logits are computed as a sampler would need them.
Prints one JSON object: medians of tokens per second, all sequences together."""
import argparse, json, statistics, time
import llama_cpp as lc

ap = argparse.ArgumentParser()
ap.add_argument("model")
ap.add_argument("--sequences", default="8,32")
ap.add_argument("--given", type=int, default=16)
ap.add_argument("--tokens", type=int, default=32)
ap.add_argument("--reps", type=int, default=3)
ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()

lc.llama_backend_init()
quiet = lc.llama_log_callback(lambda level, text, data: None)
lc.llama_log_set(quiet, None)
model = lc.llama_model_load_from_file(a.model.encode(), lc.llama_model_default_params())
if not model:
    raise SystemExit("cannot load " + a.model)


def rate(n):
    params = lc.llama_context_default_params()
    params.n_ctx = n * (a.given + a.tokens + 16)
    params.n_batch = params.n_ubatch = max(512, n * a.given)
    params.n_seq_max = n
    params.n_threads = params.n_threads_batch = a.threads
    context = lc.llama_init_from_model(model, params)
    batch = lc.llama_batch_init(n * a.given, 0, 1)

    def decode(position, count, logits):
        batch.n_tokens = n * count
        for s in range(n):
            for i in range(count):
                at = s * count + i
                batch.token[at] = 1000 + (s * 31 + (position + i) * 7919) % 19000
                batch.pos[at] = position + i
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = s
                batch.logits[at] = logits
        if lc.llama_decode(context, batch):
            raise SystemExit("decode failed")
        lc.llama_synchronize(context)

    rates = []
    for _ in range(a.reps + 1):
        lc.llama_memory_clear(lc.llama_get_memory(context), True)
        decode(0, a.given, 0)
        start = time.perf_counter()
        for i in range(a.tokens):
            decode(a.given + i, 1, 1)
        rates.append(n * a.tokens / (time.perf_counter() - start))
    lc.llama_batch_free(batch)
    lc.llama_free(context)
    return round(statistics.median(rates[1:]), 2)


print(json.dumps({"sequences": {n: rate(int(n)) for n in a.sequences.split(",")}}))
