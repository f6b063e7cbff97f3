"""What the rounding of activations costs beside llama.cpp, without and with channels that are much larger than others.

    python scripts/activation_rounding.py MODEL TEXT CORELLA…

MODEL is a checkpoint of a Llama trained with `corella train`. Its weights are quantised by llama.cpp; the same weights brought
back to f32 are the reference, so that what differs is what happens to activations. Printed are mean differences of the
log-probabilities of TEXT's tokens. In 'outliers' ten channels of each norm are 30 times larger and the weights behind them as much
smaller: the same function, with the activations of large trained models. Needs `llama-cpp-python`, `gguf`, `torch`, `safetensors`.
"""
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from gguf_copies import finish, writer_like
from serving import serving

WINDOW = 200
FORMATS = dict(Q8_0=7, Q4_0=2, Q5_1=9, Q4_K_M=15)
BEHIND = dict(input_layernorm=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
              post_attention_layernorm=("mlp.gate_proj", "mlp.up_proj"))


def windows(ids, bos):
    return ([bos] + ids[start:start + WINDOW] for start in range(0, len(ids), WINDOW))


def llama_cpp_logprobs(path, text):
    model = llama_cpp.Llama(str(path), n_ctx=256, n_batch=256, logits_all=True, n_threads=2, verbose=False)
    ids, bos, found = model.tokenize(text, add_bos=False, special=False), model.token_bos(), []
    for window in windows(ids, bos):
        model.reset()
        model.eval(window)
        logits = torch.from_numpy(np.asarray(model.scores[:len(window) - 1], dtype=np.float64))
        found += torch.log_softmax(logits, 1)[range(len(window) - 1), window[1:]].tolist()
    return np.array(found), ids, bos


def corella_logprobs(program, path, ids, bos):
    found = []
    with serving(path, by=program) as url:
        for window in windows(ids, bos):
            body = json.dumps(dict(prompt=window, max_tokens=0, echo=True, logprobs=0)).encode()
            request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
            found += json.load(urllib.request.urlopen(request))["choices"][0]["logprobs"]["token_logprobs"][1:]
    return np.array(found)


def enlarge(path):
    """Ten channels of each norm before products, and what undoes it in these."""
    weights, random = load_file(path), torch.Generator().manual_seed(0)
    for name in list(weights):
        norm = name.removesuffix(".weight").rsplit(".", 1)
        for product in BEHIND.get(norm[-1], ()):
            if product == BEHIND[norm[-1]][0]:
                channels = torch.randperm(weights[name].numel(), generator=random)[:10]
                weights[name][channels] *= 30
            weights[f"{norm[0]}.{product}.weight"][:, channels] /= 30
    save_file(weights, path, {"format": "pt"})


def dequantised(path, to):
    reader = gguf.GGUFReader(path)
    writer = writer_like(reader, to)
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, numbers.reshape([int(size) for size in reversed(tensor.shape)]))
    finish(writer)
    return to


def main():
    model, text, programs = sys.argv[1], Path(sys.argv[2]).read_bytes()[20000:22500], sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("plain", "outliers"):
            copy, plain = Path(folder) / kind, Path(folder) / f"{kind}.gguf"
            shutil.copytree(model, copy)
            if kind == "outliers":
                enlarge(copy / "model.safetensors")
            subprocess.run([programs[0], "convert", copy, plain, "--dtype", "f32"], check=True, capture_output=True)
            for name, ftype in FORMATS.items():
                path = Path(folder) / f"{kind}-{name}.gguf"
                params = llama_cpp.llama_model_quantize_default_params()
                params.ftype, params.nthread = ftype, 2
                assert llama_cpp.llama_model_quantize(str(plain).encode(), str(path).encode(), params) == 0
                expected, ids, bos = llama_cpp_logprobs(dequantised(path, path.with_suffix(".f32")), text)
                found = {"llama.cpp": llama_cpp_logprobs(path, text)[0]}
                found |= {program: corella_logprobs(program, path, ids, bos) for program in programs}
                errors = "  ".join(f"{name} {np.abs(x - expected).mean():.4f}" for name, x in found.items())
                print(f"{kind:9}{name:7} {len(ids)} tokens  {errors}", flush=True)


main()
