#!/usr/bin/env python3
"""Compares ids with tiktoken, Hugging Face's tokenizers, SentencePiece and llama.cpp at large.

    .venv/bin/python scripts/compare_tokenizers.py CORELLA DATA [SEED [TEXTS [NAME,NAME…]]]

CORELLA is the program, DATA holds tokenizers/, checkpoints/ and text/. TEXTS random texts are compared (Unicode, bytes, and
runs of what tokenizers trip over), then corpora: tinyshakespeare and wikitext-2 whole, the novels book by book, and runs of a
million letters and spaces. Needs what scripts/venv.sh installs. NAMES picks some of the vocabularies. Ends with 1 at the
first difference.
"""
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from tokenizer_oracles import gguf_files, llama_cpp_oracles, oracles, save_hf

PIECES = [" ", "  ", "\n", "\r\n", "\t", "a", "aa", "the", " The", "'s", "'LL", "'\u017f", "1", "12", "3456", ".", "...", "!?",
          "\u00e9", "e\u0301", "\u6f22\u5b57", "\U0001f469\u200d\U0001f467", "\u00a0", "\u3000", "\u2028", "<|endoftext|>", "</s>", "<0x41>",
          "\u2581", "_", "=" * 8, "-" * 5, "\u0000", "\u0085", "\u200b", "\ud55c\uad6d\uc5b4", "\u0e44\u0e17\u0e22", "\u0939\u093f"]


def random_texts(seed, count):
    draw = random.Random(seed)
    # Characters that every library's Unicode tables know.
    assigned = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    for i in range(count):
        size = draw.randrange(1, 120)
        kind = i % 4
        if kind == 0:
            yield "".join(draw.choice(PIECES) for _ in range(size))
        elif kind == 1:
            yield "".join(draw.choice(assigned) for _ in range(size))
        elif kind == 2:
            yield bytes(draw.randrange(256) for _ in range(size)).decode("utf-8", "replace")
        else:
            yield "".join(draw.choice(PIECES) * draw.choice([1, 1, 1, 2, 30]) for _ in range(size // 4 + 1))


def corpora(data):
    text = data / "text"
    yield "tinyshakespeare", (text / "tinyshakespeare/input.txt").read_text()
    for part in ["valid", "test"]:
        yield f"wikitext-2 {part}", (text / f"wikitext-2/{part}.txt").read_text()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "--zstd", "-xf", text / "english_novels/novels.tar.zst", "-C", folder], check=True)
        for book in sorted(Path(folder).rglob("*.txt")):
            yield "novels", book.read_bytes().decode("utf-8-sig", "replace").replace("\r\n", "\n")


def runs():
    for what in ["a", " ", "\u6f22", "ab "]:
        yield f"a million characters of {what!r}", (what * 1_000_000)[:1_000_000]


def ours(corella, tokenizer, texts):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
        file.flush()
        command = [corella, "tokenizer", "encode", "--tokenizer", tokenizer, "--json-lines", "--file", file.name]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def main():
    corella, data = sys.argv[1], Path(sys.argv[2])
    seed, count = int(sys.argv[3]) if len(sys.argv) > 3 else 1, int(sys.argv[4]) if len(sys.argv) > 4 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        save_hf(data, Path(folder))
        ckpt, tok = data / "checkpoints", data / "tokenizers"
        files = {
            "gpt2": "gpt2",
            "llama3": tok / "llama3/tokenizer.model",
            "hf_gpt2": Path(folder) / "gpt2.json",
            "hf_gpt2_digits": Path(folder) / "gpt2_digits.json",
            "hf_llama3": Path(folder) / "llama3.json",
            "hf_tinystories_656k": ckpt / "TinyStories-656K-f32",
            "tok105": ckpt / "babyllama-tok105/tok105.model",
            "tok512": ckpt / "stories260K/tok512.bin",
            "llama_spm": tok / "gguf/ggml-vocab-llama-spm.gguf",
            "llama_cpp_gpt2": tok / "gguf/ggml-vocab-gpt-2.gguf",
            "llama_cpp_spm": tok / "gguf/ggml-vocab-llama-spm.gguf",
        } | {name: path for name, _, _, path in gguf_files(Path(folder))}
        random_part = list(random_texts(seed, count))
        whole = list(corpora(data)) + list(runs())
        names = ", ".join(dict.fromkeys(name for name, _ in whole))
        for name, theirs in (oracles(data) | llama_cpp_oracles(data, Path(folder))).items():
            if len(sys.argv) > 5 and name not in sys.argv[5].split(","):
                continue
            texts = [("random", text) for text in random_part] + whole
            mine = ours(corella, str(files[name]), [text for _, text in texts])
            tokens = 0
            for (source, text), ids in zip(texts, mine, strict=True):
                try:
                    expected = list(theirs(text))
                except BaseException as error:  # tiktoken's patterns give up on some runs, by a panic
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    print(f"{name}: {source}: the other library fails: {error}")
                    continue
                tokens += len(ids)
                if ids != expected:
                    at = next(i for i, pair in enumerate(zip(ids + [None], expected + [None])) if pair[0] != pair[1])
                    print(f"{name}: {source} differs at token {at} of {len(expected)}: {ids[at:at + 8]} {expected[at:at + 8]}")
                    print(repr(text if len(text) < 2000 else ""))
                    sys.exit(1)
            print(f"{name}: {count} random texts, {names}: {tokens} tokens, all equal", flush=True)


main()
