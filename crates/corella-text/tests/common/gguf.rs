//! Just enough of GGUF to read the vocabulary of a trusted file. The program's own reader is in `corella-model`, which
//! this crate does not depend on.

use std::collections::HashMap;

use corella_text::tokenizer::GgufVocab;

enum Value {
    Number(u64),
    Float(f32),
    Text(String),
    List(Vec<Value>),
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self, bytes: usize) -> u64 {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
    }

    fn text(&mut self) -> String {
        let len = self.number(8) as usize;
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8(taken.to_vec()).expect("UTF-8")
    }

    fn value(&mut self, kind: u64) -> Value {
        match kind {
            0 | 1 | 7 => Value::Number(self.number(1)),
            2 | 3 => Value::Number(self.number(2)),
            4 | 5 => Value::Number(self.number(4)),
            6 => Value::Float(f32::from_bits(self.number(4) as u32)),
            8 => Value::Text(self.text()),
            9 => {
                let (kind, len) = (self.number(4), self.number(8));
                Value::List((0..len).map(|_| self.value(kind)).collect())
            }
            _ => Value::Number(self.number(8)),
        }
    }
}

/// The vocabulary in the metadata of a file.
pub fn vocab(bytes: &[u8]) -> GgufVocab {
    let mut reader = Reader(&bytes[16..]);
    let mut fields = HashMap::new();
    for _ in 0..reader.number(8) {
        let key = reader.text();
        let kind = reader.number(4);
        let value = reader.value(kind);
        fields.insert(key, value);
    }
    let text = |key: &str| match fields.get(&format!("tokenizer.ggml.{key}")) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let number = |key: &str| match fields.get(&format!("tokenizer.ggml.{key}")) {
        Some(Value::Number(n)) => Some(*n as u32),
        _ => None,
    };
    let list = |key: &str| match fields.get(&format!("tokenizer.ggml.{key}")) {
        Some(Value::List(list)) => Some(list),
        _ => None,
    };
    let texts = |key: &str| {
        list(key).map(|list| {
            list.iter().filter_map(|v| if let Value::Text(t) = v { Some(t.clone()) } else { None }).collect()
        })
    };
    GgufVocab {
        model: text("model").unwrap_or_default(),
        pre: text("pre"),
        tokens: texts("tokens").unwrap_or_default(),
        scores: list("scores")
            .map(|list| list.iter().filter_map(|v| if let Value::Float(f) = v { Some(*f) } else { None }).collect()),
        token_types: list("token_type").map(|list| {
            list.iter().filter_map(|v| if let Value::Number(n) = v { Some(*n as i32) } else { None }).collect()
        }),
        merges: texts("merges"),
        bos: number("bos_token_id"),
        eos: number("eos_token_id"),
        unk: number("unknown_token_id"),
        pad: number("padding_token_id"),
        add_bos: number("add_bos_token").map(|n| n != 0),
        add_space_prefix: number("add_space_prefix").map(|n| n != 0),
    }
}
