#!/usr/bin/env python3
"""Writes inputs for the fuzz targets to start from: scripts/fuzz_seeds.py DATA

DATA holds tokenizers/, checkpoints/, warc/, parquet/ and text/. Writes fuzz/seeds/TARGET/. Files above the targets' limit
are left out, or cut where their beginning is a file of the same kind. What a target reads out of its input's first bytes
(which reader, lengths of files) is put in front.
"""
import json
import struct
import sys
from pathlib import Path

LIMIT = 60_000
OUT = Path(__file__).resolve().parents[1] / "fuzz/seeds"


def put(target, name, kind, data):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    data = data if kind is None else bytes([kind]) + data
    if len(data) <= LIMIT + 1:
        (folder / name).write_bytes(data)


def parts(*files):
    """Several files in one input: all but the last behind their lengths."""
    return b"".join(struct.pack("<H", len(f)) + f for f in files[:-1]) + files[-1]


def streams(data):
    for path in sorted((data / "warc").rglob("*")) + sorted((data / "text").rglob("*.gz")):
        if path.is_file():
            put("streams", path.name, 0, path.read_bytes()[:LIMIT])
    lines = b'{"text": "caf\\u00e9", "id": 1}\n{"text": "two\\nlines"}\n{"x": [1, {"text": null}]}\n'
    put("streams", "lines.jsonl", 2, lines)
    put("streams", "text", 1, b"\xef\xbb\xbfone<|endoftext|>two\r\nlines\xff<|endoftext|>\n")


def containers(data):
    for path in sorted((data / "parquet").rglob("*.parquet")):
        put("containers", path.name, None, path.read_bytes())
    import io
    import zipfile
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "one")
        archive.writestr("b/c.jsonl", '{"text": "two"}\n')
    put("containers", "a.zip", None, out.getvalue())


def shards():
    def shard(magic, version, code, tokens):
        header = struct.pack("<3i", magic, version, len(tokens)).ljust(1024, b"\0")
        return header + struct.pack(f"<{len(tokens)}{code}", *tokens)

    small = shard(20240520, 1, "H", [50256, 1, 2, 50256, 3])
    put("shards", "narrow", 0, small)
    put("shards", "wide", 1, shard(20240801, 7, "I", [128_000, 1, 2]))
    put("shards", "nano", 0, struct.pack("<4H", 5, 6, 50256, 7))
    entry = lambda start: struct.pack("<QQQQII", start, 0, 0, 7, 0, 9)
    header = b"CORINDEX" + struct.pack("<IIQQI", 1, 40, 2, 1000, 0).ljust(48, b"\0")
    put("shards", "index", 2, header + entry(0) + entry(9))
    size = {"documents": 1, "tokens": 5, "bytes": 3}
    info = {"train": size, "val": size, "vocab_size": 257, "tokenizer": "0" * 8, "shards": [["train_000000.bin", 1]]}
    put("shards", "dataset", 3, parts(json.dumps(info).encode(), small_json(), small))


def small_json():
    """A byte-level tokenizer.json of 258 tokens."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}
    vocab = {names[b]: b for b in range(256)} | {"ab": 256}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    end = {"id": 257, "content": "<|endoftext|>", "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
    return json.dumps({"added_tokens": [end], "pre_tokenizer": level, "decoder": level, "model": model}).encode()


def tokenizer_files(data):
    ckpt, tok = data / "checkpoints", data / "tokenizers"
    put("tokenizer_files", "small.json", 0, small_json())
    put("tokenizer_files", "tok105.model", 0, (ckpt / "babyllama-tok105/tok105.model").read_bytes())
    put("tokenizer_files", "tok512.bin", 0, (ckpt / "stories260K/tok512.bin").read_bytes())
    ranks = (tok / "gpt2/r50k_base.tiktoken").read_bytes().splitlines(keepends=True)
    put("tokenizer_files", "ranks", 0, b"".join(ranks[:400]))
    stories = json.loads((ckpt / "TinyStories-656K-f32/tokenizer.json").read_text())
    keep = 300
    vocab = {t: i for t, i in stories["model"]["vocab"].items() if i < keep}
    merges = [m if isinstance(m, list) else m.split(" ") for m in stories["model"]["merges"]]
    merges = [m for m in merges if all(t in vocab for t in [*m, "".join(m)])]
    stories["model"] |= {"vocab": vocab, "merges": merges}
    stories = json.dumps(stories).encode()
    put("tokenizer_files", "stories.json", 0, stories)
    config = (ckpt / "TinyStories-656K-f32/tokenizer_config.json").read_bytes()
    put("tokenizer_files", "with_config", 3, parts(config, stories))
    put("tokenizer_files", "tok105.vocab", 4, (ckpt / "babyllama-tok105/tok105.vocab").read_bytes())
    small = json.loads(small_json())["model"]["vocab"] | {"<|endoftext|>": 257}
    put("tokenizer_files", "pair", 2, parts(b"#version: 0.2\na b\n", json.dumps(small).encode()))
    put("tokenizer_files", "spm.gguf", 1, gguf("llama", ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], "a", "b", "ab"]))


def gguf(model, tokens):
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    array = lambda kind, code, values: struct.pack("<IIQ", 9, kind, len(values)) + struct.pack(f"<{len(values)}{code}", *values)
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259)
    key = lambda name: text("tokenizer.ggml." + name)
    pairs = [
        key("model") + struct.pack("<I", 8) + text(model),
        key("tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(text, tokens)),
        key("scores") + array(6, "f", [-float(i) for i in range(len(tokens))]),
        key("token_type") + array(5, "i", kinds),
        key("eos_token_id") + struct.pack("<II", 4, 2),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


def tokenizer_texts(data):
    text = (data / "text/tinystories/tinystories_sample.txt").read_bytes()
    for which in range(5):
        put("tokenizer_texts", f"story{which}", which, text[:2000])
        put("tokenizer_texts", f"mixed{which}", which, "I'LL we've 123 漢字 é\r\n\n  \t<|endoftext|> aaaa    x</s>".encode())


def models(data):
    tiny = data / "checkpoints/tiny-random-fixtures"
    read = lambda name: (tiny / name).read_bytes()
    for name in ["tiny_llama_f16.gguf", "tiny_llama_f32.gguf", "tiny_llama_q8.gguf"]:
        put("models", name, 0, read(name))
    # llama2.c: dim 8, hidden 16, one layer, two heads, one for keys and values, 11 tokens, 4 positions.
    dim, hidden, heads, kv, vocab, seq = 8, 16, 2, 1, 11, 4
    numbers = vocab * dim + 2 * dim + 2 * dim * dim + 2 * dim * (dim // heads * kv) + 3 * dim * hidden + dim + seq * (dim // heads)
    put("models", "llama2c", 1, struct.pack("<7i", dim, hidden, 1, heads, kv, vocab, seq) + b"\0" * 4 * numbers)
    # llm.c: 4 positions, 11 tokens of 128, one layer, two heads of 4.
    c, t, padded = 8, 4, 128
    numbers = padded * c + t * c + 12 * c * c + 13 * c + 2 * c
    put("models", "llmc", 1, struct.pack("<8i", 20240326, 3, t, 11, 1, 2, c, padded).ljust(1024, b"\0") + b"\0" * 4 * numbers)
    put("models", "safetensors", 1, read("tiny_gpt2.safetensors"))
    gpt2 = {"model_type": "gpt2", "vocab_size": 11, "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16}
    put("models", "gpt2_folder", 2, parts(json.dumps(gpt2).encode(), read("tiny_gpt2.safetensors")))
    put("models", "llama_folder", 2, parts(read("tiny_llama_config.json"), read("tiny_llama.safetensors")))
    index = read("tiny_llama.safetensors.index.json").replace(b"tiny_llama-", b"model-")
    shards = [read(f"tiny_llama-0000{i}-of-00002.safetensors") for i in (1, 2)]
    put("models", "sharded", 3, parts(read("tiny_llama_config.json"), index, *shards))


def main():
    data = Path(sys.argv[1])
    streams(data)
    containers(data)
    shards()
    tokenizer_files(data)
    tokenizer_texts(data)
    models(data)
    for folder in sorted(OUT.iterdir()):
        print(folder.name, len(list(folder.iterdir())), "inputs")


main()
