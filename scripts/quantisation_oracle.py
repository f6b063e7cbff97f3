"""Tokens and perplexity beside llama.cpp on the same files, in every format that it writes.

    python scripts/quantisation_oracle.py CORELLA MODEL TEXT [CONTEXT [FORMAT…]]

MODEL is trained with `corella train` (a Llama of runs/llama-novels.toml, or a tour's GPT-2: rows of whole blocks of 256, for the
K formats).
It is converted to GGUF by `corella convert`, quantised by llama.cpp, and both programs measure TEXT in the same windows. Formats
that llama.cpp's quantiser asks an importance matrix for are written tensor by tensor by the same library, each weight as important
as any other.
Bounds on the difference of ln(perplexity): 0.002 for F32, F16, BF16 and Q8_0, 0.01 for the rest. The number of
ids of the text and the ids of its beginning must be the same, and each file must hold the format that
it is called by. Greedy continuations are compared too; near a tie
two programs may go different ways: llama.cpp's logits of the two tokens must then be within 0.1. Needs `llama-cpp-python` and `gguf`.
"""
import collections
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from gguf_copies import finish, writer_like

# llama.cpp's `llama_ftype`.
TYPES = dict(F32=0, F16=1, BF16=32, Q8_0=7, Q4_0=2, Q4_1=3, Q5_0=8, Q5_1=9, Q2_K=10, Q3_K_M=12, Q4_K_M=15, Q5_K_M=17,
             Q6_K=18, IQ4_NL=25, IQ4_XS=30, IQ3_S=26, TQ1_0=36, TQ2_0=37)
# Written tensor by tensor.
BY_TENSOR = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ1_S", "IQ1_M")
EXACT = ("F32", "F16", "BF16", "Q8_0")
GREEDY = 32
# Both programs round activations to bytes, each in its own way: a logit moves by some hundredths.
TIE = 0.1


def corella(*args):
    return subprocess.run([sys.argv[1], *map(str, args)], check=True, capture_output=True, text=True).stdout


def llama_cpp_nll(path, text, context):
    model = llama_cpp.Llama(str(path), n_ctx=context, n_batch=context, logits_all=True, n_threads=2, verbose=False)
    ids, bos = model.tokenize(text, add_bos=False, special=False), model.token_bos()
    nll = 0.0
    for start in range(0, len(ids), context - 1):
        window = [bos] + ids[start:start + context - 1]
        model.reset()
        model.eval(window)
        logits = np.asarray(model.scores[:len(window) - 1], dtype=np.float64)
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        nll += (log_sum - logits[np.arange(len(window) - 1), window[1:]]).sum()
    model.reset()
    model.eval([bos] + ids[:16])
    greedy, rows = [], []
    for _ in range(GREEDY):
        rows.append(model.scores[model.n_tokens - 1].copy())
        greedy.append(int(np.argmax(rows[-1])))
        model.eval(greedy[-1:])
    return nll, ids, greedy, rows


def formats(path):
    """How many tensors of a file have which format."""
    return collections.Counter(t.tensor_type.name for t in gguf.GGUFReader(path).tensors)


def quantise_by_tensor(source, path, name):
    """Copies a file with its matrices in another format; embeddings and head stay as they are."""
    lib = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib/libggml-base.so"))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    kind, floats = gguf.GGMLQuantizationType[name], ctypes.POINTER(ctypes.c_float)
    length, size = gguf.GGML_QUANT_SIZES[kind]
    reader = gguf.GGUFReader(source)
    writer = writer_like(reader, path)
    for tensor in reader.tensors:
        data = np.ascontiguousarray(tensor.data, dtype=np.float32)
        if data.ndim < 2 or data.shape[1] % length or not tensor.name.startswith("blk."):
            writer.add_tensor(tensor.name, data)
            continue
        rows, cols = data.shape
        blocks, equal = np.zeros((rows, cols // length * size), dtype=np.uint8), np.ones(cols, dtype=np.float32)
        written = lib.ggml_quantize_chunk(int(kind), data.ctypes.data_as(floats), blocks.ctypes.data_as(ctypes.c_void_p),
                                          ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(cols),
                                          equal.ctypes.data_as(floats))
        assert written == blocks.nbytes, (written, blocks.nbytes)
        writer.add_tensor(tensor.name, blocks, raw_dtype=kind)
    finish(writer)


def generate(path, *flags):
    return json.loads(corella("generate", path, "--temperature", 0, "--ignore-eos", "--json", *flags).splitlines()[-1])


def main():
    model, text = sys.argv[2], Path(sys.argv[3])
    context = int(sys.argv[4]) if len(sys.argv) > 4 else 256
    only = sys.argv[5:]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "F32.gguf"
        corella("convert", model, source, "--dtype", "f32")
        for name, ftype in (TYPES | dict.fromkeys(BY_TENSOR)).items():
            if only and name not in only:
                continue
            path = Path(folder) / f"{name}.gguf"
            if name in BY_TENSOR:
                quantise_by_tensor(source, path, name)
            elif name != "F32":
                params = llama_cpp.llama_model_quantize_default_params()
                params.ftype, params.nthread = ftype, 2
                assert llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), params) == 0
            held = formats(path)
            kind = name if name in BY_TENSOR else name.removesuffix("_M")
            assert held[kind], f"{name}: {held}"  # The mixes of the K formats are llama.cpp's own.
            theirs, ids, greedy, rows = llama_cpp_nll(path, text.read_bytes(), context)
            count = len(ids)
            ours = json.loads(corella("eval", path, "--text", text, "--context", context, "--json"))
            assert ours["tokens"] == count, f"{ours['tokens']} tokens, but llama.cpp has {count}"
            start = text.read_bytes()[:context].decode(errors="ignore")
            own = generate(path, "-p", start, "--max-tokens", 1)["prompt_ids"][1:]
            assert own[:-4] == ids[:len(own) - 4], "the ids of the text differ"
            prompt = ",".join(map(str, generate(path, "-p", "", "--max-tokens", 1)["prompt_ids"] + ids[:16]))
            drawn = generate(path, "--prompt-ids", prompt, "--max-tokens", GREEDY)["choices"][0]["ids"]
            same = next((i for i, (a, b) in enumerate(zip(drawn, greedy)) if a != b), GREEDY)
            # How far llama.cpp's own logits of the two tokens lie apart where the continuations part.
            tie = rows[same][greedy[same]] - rows[same][drawn[same]] if same < GREEDY else 0.0
            gap = ours["nll"] / count - theirs / count
            bound = 0.002 if name in EXACT else 0.01
            print(f"{name:7} llama.cpp {np.exp(theirs / count):9.4f}  corella {ours['perplexity']:9.4f}  "
                  f"difference of ln {gap:+.5f}  bound {bound}  greedy {same}/{GREEDY}"
                  + (f" (logits {tie:.4f} apart)  " if same < GREEDY else "  ")
                  + " ".join(f"{n} {k}" for k, n in held.most_common()), flush=True)
            if abs(gap) > bound or tie > TIE:
                failed.append(name)
            if name != "F32":
                path.unlink()
    sys.exit(f"outside the bound: {failed}" if failed else 0)


main()
