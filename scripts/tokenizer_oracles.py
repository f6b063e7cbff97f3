"""Independent tokenizers for the vocabularies of the shared test data: a function from text to ids for each.

Used by fixtures/tokenizer/make.py and scripts/compare_tokenizers.py.
"""
import json
import struct
from pathlib import Path

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiktoken_gpt2(data: Path):
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = data / "tokenizers/gpt2"
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


def tiktoken_llama3(data: Path):
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    ranks = load_tiktoken_bpe(str(data / "tokenizers/llama3/tokenizer.model"))
    return tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={})


def hf_gpt2(data: Path, single_digits=False):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = data / "tokenizers/gpt2"
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    steps = pre_tokenizers.Sequence([digits, byte_level]) if single_digits else byte_level
    tokenizer.pre_tokenizer = steps
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def hf_llama3(data: Path):
    """Llama 3 as transformers converts it from ranks: the form of Hugging Face's own tokenizer.json."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    path = str(data / "tokenizers/llama3/tokenizer.model")
    tokenizer = TikTokenConverter(vocab_file=path, pattern=LLAMA3_PATTERN).converted()
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    return tokenizer


def hf_file(path: Path):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def sentencepiece_from(pieces, add_dummy_prefix=True):
    """SentencePiece itself over (text, score, type) pieces, spaces kept as they are."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = pb.ModelProto()
    for text, score, kind in pieces:
        model.pieces.add(piece=text, score=score, type=kind)
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = any(kind == 6 for _, _, kind in pieces)
    model.trainer_spec.vocab_size = len(pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = add_dummy_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor


def llama2c_pieces(path: Path):
    data = path.read_bytes()
    names, at, pieces = ["<unk>", "<s>", "</s>"], 4, []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        text = data[at + 8 : at + 8 + length].decode()
        at += 8 + length
        if len(pieces) < 3:
            pieces.append((names[len(pieces)], score, 2 if not pieces else 3))
        elif text.startswith("<0x") and text.endswith(">"):
            pieces.append((text, score, 6))
        else:
            pieces.append((text.replace(" ", "\u2581"), score, 1))
    return pieces


def gguf_pieces(path: Path):
    from gguf import GGUFReader

    fields = GGUFReader(str(path)).fields
    get = lambda key: fields["tokenizer.ggml." + key].contents()
    return list(zip(get("tokens"), get("scores"), get("token_type")))


def llama_cpp_vocab(path: Path):
    """llama.cpp's own ids of a GGUF file's vocabulary, without special tokens."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, n_ctx=8, verbose=False)
    return lambda text: model.tokenize(text.encode(), add_bos=False, special=False)


# Names of patterns (`tokenizer.ggml.pre`) that are compared with llama.cpp, each with the vocabulary that it is tried on.
# An empty name is a file without the key.
GGUF_NAMES = {
    "gpt2": ["", "default", "gpt-2", "mellum", "a.x-4.0", "smollm", "starcoder", "refact", "minerva-7b", "smaug-bpe"],
    "llama3": ["default", "llama-bpe", "falcon3", "pixtral", "midm-2.0", "smaug-bpe", "qwen2", "megrez"],
}


def save_gguf(tokenizer, pre: str, path: Path):
    """A byte-level vocabulary of Hugging Face's library as GGUF metadata, by the package that llama.cpp publishes."""
    from gguf import GGUFWriter, TokenType

    model = json.loads(tokenizer.to_str())
    ids = model["model"]["vocab"] | {token["content"]: token["id"] for token in model["added_tokens"]}
    special = {token["content"] for token in model["added_tokens"]}
    tokens = sorted(ids, key=ids.get)
    ends = [ids[token["content"]] for token in model["added_tokens"]]
    writer = GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["model"]["merges"]])
    writer.add_bos_token_id(ends[0])
    writer.add_eos_token_id(ends[-1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_files(folder: Path):
    """Name of each comparison with a file that `save_hf` writes, its vocabulary, its pattern and its path."""
    for vocab, names in GGUF_NAMES.items():
        for pre in names:
            name = f"llama_cpp_{vocab}_{pre or 'none'}"
            yield name, vocab, pre, folder / f"{name}.gguf"


def llama_cpp_oracles(data: Path, folder: Path):
    """The same for llama.cpp, on GGUF files of `data` and on those that `save_hf` wrote to `folder`."""
    gguf = data / "tokenizers/gguf"
    return {
        "llama_cpp_gpt2": llama_cpp_vocab(gguf / "ggml-vocab-gpt-2.gguf"),
        "llama_cpp_spm": llama_cpp_vocab(gguf / "ggml-vocab-llama-spm.gguf"),
    } | {name: llama_cpp_vocab(path) for name, _, _, path in gguf_files(folder)}


def oracles(data: Path):
    """Name of each vocabulary and who says what its ids are."""
    import sentencepiece

    tok105 = sentencepiece.SentencePieceProcessor()
    tok105.Load(str(data / "checkpoints/babyllama-tok105/tok105.model"))
    tok512 = sentencepiece_from(llama2c_pieces(data / "checkpoints/stories260K/tok512.bin"))
    spm = sentencepiece_from(gguf_pieces(data / "tokenizers/gguf/ggml-vocab-llama-spm.gguf"))
    ids = lambda tokenizer: lambda text: hf_ids(tokenizer, text)
    return {
        "gpt2": tiktoken_gpt2(data).encode_ordinary,
        "llama3": tiktoken_llama3(data).encode_ordinary,
        "hf_gpt2": ids(hf_gpt2(data)),
        "hf_gpt2_digits": ids(hf_gpt2(data, single_digits=True)),
        "hf_llama3": ids(hf_llama3(data)),
        "hf_tinystories_656k": ids(hf_file(data / "checkpoints/TinyStories-656K-f32/tokenizer.json")),
        "tok105": tok105.EncodeAsIds,
        "tok512": tok512.EncodeAsIds,
        "llama_spm": spm.EncodeAsIds,
    }


def hf_ids(tokenizer, text):
    """Ids without special tokens: text that looks like one is text."""
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(text, add_special_tokens=False).ids


def save_hf(data: Path, folder: Path):
    """Files that only Hugging Face's library writes, for a reader to be compared on."""
    folder.mkdir(parents=True, exist_ok=True)
    hf_gpt2(data).save(str(folder / "gpt2.json"))
    hf_gpt2(data, single_digits=True).save(str(folder / "gpt2_digits.json"))
    hf_llama3(data).save(str(folder / "llama3.json"))
    vocabularies = {"gpt2": hf_gpt2(data), "llama3": hf_llama3(data)}
    for _, vocab, pre, path in gguf_files(folder):
        save_gguf(vocabularies[vocab], pre, path)
    return json.dumps([p.name for p in folder.iterdir()])
