//! Texts and ids of any kind through every kind of vocabulary; GPT-2's beside tiktoken.
#![no_main]

use std::sync::LazyLock;

use corella_text::tokenizer::{Encoder, GgufVocab, Tokenizer, TrainOptions};
use libfuzzer_sys::fuzz_target;
use tiktoken_rs::CoreBPE;

static VOCABULARIES: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let text = "The old harbour of Brael had 12 boats in 1984; it's said that we'll see the naïve 漢字 again.\n\n  x\t";
    let train = |single_digits| Tokenizer::train([text], 320, TrainOptions { single_digits }).expect("trained");
    vec![Tokenizer::gpt2(), train(true), train(false), scored(true), scored(false)]
});

static TIKTOKEN: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::r50k_base().expect("tiktoken's vocabulary"));

/// A SentencePiece-style vocabulary, with the 256 bytes or without.
fn scored(bytes: bool) -> Tokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    let mut types = vec![2, 3, 3];
    if bytes {
        tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
        types.extend([6; 256]);
    }
    let words = "▁ a b e h t s 漢 é , . ▁▁ ▁a th ▁th the ▁the ab aa aaaa ▁▁▁▁ 漢漢 ▁é ,. abab es";
    tokens.extend(words.split(' ').map(str::to_owned));
    types.resize(tokens.len(), 1);
    let scores = (0..tokens.len()).map(|i| -((i % 19) as f32)).collect();
    let vocab = GgufVocab {
        model: "llama".to_owned(),
        tokens,
        scores: Some(scores),
        token_types: Some(types),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..GgufVocab::default()
    };
    Tokenizer::from_gguf(&vocab).expect("a whole vocabulary")
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let number = usize::from(*which) % VOCABULARIES.len();
    let tokenizer = &VOCABULARIES[number];
    let text = String::from_utf8_lossy(data);
    let ids = tokenizer.encode(&text);
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    if number == 0 {
        assert_eq!(ids, TIKTOKEN.encode_ordinary(&text));
    }
    if number < 3 {
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(tokenizer.decode(&tokenizer.encode_with_special(&text)), text);
    }
    // An encoder that has seen other words gives the same ids.
    let (mut encoder, mut again) = (Encoder::new(tokenizer), Vec::new());
    encoder.encode("the ab 12 漢é", &mut Vec::new());
    (0..2).for_each(|_| encoder.encode(&text, &mut again));
    assert_eq!(again, [&ids[..], &ids].concat());
    // Ids of any kind.
    let any: Vec<u32> = data.chunks(2).map(|b| b.iter().fold(0, |id, byte| id << 8 | u32::from(*byte))).collect();
    let decoded = tokenizer.decode(&any);
    let streamed: Vec<u8> =
        (0..any.len()).flat_map(|i| tokenizer.token_bytes_after(&any[..i], any[i])).copied().collect();
    assert_eq!(String::from_utf8_lossy(&streamed), decoded);
});
