//! The answer of `/v1/chat/completions`: what the model wrote on the page, as the assistant's turn.

use corella_infer::FinishReason;
use serde_json::{Value, json};

use crate::completions::{Chunks, Entry, Stretch};

/// What happened to the messages; part of every answer.
#[derive(Clone, Debug)]
pub struct About {
    /// The page that the model continued.
    pub page: String,
    /// Where a turn ends.
    pub stop: String,
    /// Whether the request began the answer: the space in front of what follows is part of it then.
    pub begun: bool,
    /// The seed that repeats the answer.
    pub seed: u64,
    /// Most tokens of an answer, after the context's room has cut it.
    pub max_tokens: usize,
}

impl About {
    fn value(&self) -> Value {
        json!({
            "note": "This is a base model. It continued the transcript below; no chat template was applied.",
            "prompt": self.page,
            "stop": self.stop,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
        })
    }
}

/// The document of a completion as one of a chat.
pub fn as_chat(answer: &Value, about: &About) -> Value {
    let none = Vec::new();
    let choices: Vec<Value> = answer["choices"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .map(|c| {
            let text = c["text"].as_str().unwrap_or_default().trim_end();
            let text = if about.begun { text } else { text.trim_start() };
            json!({
                "index": c["index"],
                "message": {"role": "assistant", "content": text},
                "logprobs": null,
                "finish_reason": c["finish_reason"],
            })
        })
        .collect();
    let id = answer["id"].as_str().unwrap_or_default().replacen("cmpl", "chatcmpl", 1);
    json!({
        "id": id, "object": "chat.completion", "created": answer["created"], "model": answer["model"],
        "system_fingerprint": answer["system_fingerprint"], "choices": choices, "usage": answer["usage"],
        "corella": about.value(),
    })
}

/// One turn as it streams: space around it is not part of it, so space is held back until more text comes.
#[derive(Clone, Debug, Default)]
struct Turn {
    begun: bool,
    held: String,
}

impl Turn {
    /// What can be sent of `text`.
    fn release(&mut self, text: &str) -> String {
        let text = if self.begun { text } else { text.trim_start() };
        let kept = text.trim_end();
        if kept.is_empty() {
            self.held.push_str(text);
            return String::new();
        }
        self.begun = true;
        let sent = std::mem::take(&mut self.held) + kept;
        text[kept.len()..].clone_into(&mut self.held);
        sent
    }
}

/// The chunks of a streamed chat.
#[derive(Clone, Debug)]
pub struct ChatChunks {
    about: About,
    turns: Vec<Turn>,
    introduced: Vec<bool>,
}

impl ChatChunks {
    /// For `n` answers.
    pub fn new(about: About, n: usize) -> ChatChunks {
        let turn = Turn { begun: about.begun, ..Turn::default() };
        ChatChunks { about, turns: vec![turn; n], introduced: vec![false; n] }
    }

    /// The chunk of a stretch of answer `index`, if there is anything in it.
    fn chunk(&mut self, index: usize, stretch: &Stretch) -> Option<Value> {
        let text = self.turns[index].release(&stretch.text);
        if text.is_empty() && stretch.finish.is_none() {
            return None;
        }
        let mut delta = json!({"content": text});
        if !std::mem::replace(&mut self.introduced[index], true) {
            delta["role"] = json!("assistant");
        }
        let finish = stretch.finish.as_ref().map(FinishReason::name);
        Some(json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish}))
    }
}

impl Chunks for ChatChunks {
    fn object(&self) -> &'static str {
        "chat.completion.chunk"
    }

    fn id_prefix(&self) -> &'static str {
        "chatcmpl"
    }

    fn about(&self) -> Value {
        self.about.value()
    }

    fn choice(&mut self, index: usize, stretch: &Stretch) -> Option<Entry<'_>> {
        self.chunk(index, stretch).map(Entry::Chat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamed_turn_is_the_trimmed_text_however_it_is_cut() {
        let whole = " \n I am the\n\nassistant. \u{a0}\n ";
        for size in 1..whole.len() {
            let mut turn = Turn::default();
            let mut sent = String::new();
            let mut rest = whole;
            while !rest.is_empty() {
                let mut at = size.min(rest.len());
                while !rest.is_char_boundary(at) {
                    at += 1;
                }
                sent.push_str(&turn.release(&rest[..at]));
                rest = &rest[at..];
            }
            assert_eq!(sent, whole.trim(), "{size}");
        }
    }

    #[test]
    fn the_first_chunk_of_each_answer_names_the_role_and_the_last_the_reason() {
        let about = About { page: "A:".into(), stop: "\nQ:".into(), begun: false, seed: 1, max_tokens: 9 };
        let mut chunks = ChatChunks::new(about, 2);
        let stretch = |text: &str| Stretch { text: text.into(), ..Stretch::default() };
        assert_eq!(chunks.chunk(1, &stretch("  ")), None);
        let first = chunks.chunk(1, &stretch("Yes")).expect("a chunk");
        assert_eq!(first["delta"], json!({"role": "assistant", "content": "Yes"}));
        assert_eq!(chunks.chunk(1, &stretch(" no")).expect("a chunk")["delta"], json!({"content": " no"}));
        let end = Stretch { finish: Some(FinishReason::Length), ..Stretch::default() };
        assert_eq!(chunks.chunk(0, &end).expect("a chunk")["delta"]["role"], "assistant");
        assert_eq!(chunks.chunk(1, &end).expect("a chunk")["finish_reason"], "length");
    }
}
