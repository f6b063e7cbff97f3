//! A conversation as a page of text: the names in front of the turns, and what stands before the first of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ApiError;

/// How a conversation is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transcript {
    /// The page's beginning, if the messages have no system message of their own.
    pub preamble: String,
    /// Name in front of the user's lines.
    pub human: String,
    /// Name in front of the model's lines.
    pub assistant: String,
}

impl Default for Transcript {
    fn default() -> Self {
        Transcript {
            preamble:
                "This is a conversation between a human and an assistant. The assistant is friendly and knows many \
                things.\n\nHuman: Hello! Who are you?\nAssistant: I am the assistant. Ask me anything you like."
                    .to_owned(),
            human: "Human".to_owned(),
            assistant: "Assistant".to_owned(),
        }
    }
}

impl Transcript {
    /// Where the model's turn ends: before it writes the human's next line.
    pub fn stop(&self) -> String {
        format!("\n{}:", self.human)
    }

    /// The page, up to the assistant's next line; a last message of the assistant's is a line to go on with.
    pub fn page(&self, messages: &[Message]) -> String {
        let system: Vec<&str> = messages.iter().filter(|m| m.role == Role::System).map(|m| &*m.content).collect();
        let mut page = if system.is_empty() { self.preamble.clone() } else { system.join("\n\n") };
        for message in messages {
            let name = match message.role {
                Role::System => continue,
                Role::User => &self.human,
                Role::Assistant => &self.assistant,
            };
            page.push_str(&format!("\n{name}: {}", message.content.trim()));
        }
        match messages.last() {
            Some(last) if last.role == Role::Assistant => {
                let end = &last.content[last.content.trim_end().len()..];
                page + end
            }
            _ => page + &format!("\n{}:", self.assistant),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    role: Role,
    content: String,
}

/// Whether the last message is the beginning of the answer (prefill), rather than a question.
pub fn begins_answer(messages: &[Message]) -> bool {
    messages.last().is_some_and(|last| last.role == Role::Assistant)
}

/// The `messages` of a request; the last is the user's, or the beginning of the assistant's answer.
pub fn messages(value: Option<Value>) -> Result<Vec<Message>, ApiError> {
    let wrong = |what: &str| ApiError::bad("messages", format!("`messages`: {what}"));
    let Some(Value::Array(list)) = value else { return Err(wrong("an array of messages is needed")) };
    let all: Vec<Message> = list
        .into_iter()
        .map(|item| {
            let role = match item["role"].as_str() {
                Some("system" | "developer") => Role::System,
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                _ => return Err(wrong("each needs a role: system, user or assistant")),
            };
            let content = content(&item["content"]).ok_or_else(|| wrong("each needs text as its content"))?;
            Ok(Message { role, content })
        })
        .collect::<Result<_, _>>()?;
    match all.last() {
        Some(last) if last.role != Role::System => Ok(all),
        _ => Err(wrong("the last must be the user's, or the beginning of the assistant's")),
    }
}

/// A string, or OpenAI's list of text parts.
fn content(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|p| (p["type"] == "text").then(|| p["text"].as_str()).flatten())
            .collect::<Option<String>>(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_conversation_becomes_a_page_that_ends_with_the_assistants_name() {
        let t = Transcript { preamble: "A talk.".into(), human: "Q".into(), assistant: "A".into() };
        let list = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": [{"type": "text", "text": "Why?"}]}]);
        assert_eq!(t.page(&messages(Some(list)).expect("messages")), "A talk.\nQ: Hi\nA: Yes?\nQ: Why?\nA:");
        assert_eq!(t.stop(), "\nQ:");
        let own = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
        assert_eq!(t.page(&messages(Some(own)).expect("messages")), "Be brief.\nQ: Hi\nA:");
    }

    #[test]
    fn a_last_message_of_the_assistants_is_continued_where_it_ends() {
        let t = Transcript { preamble: "A talk.".into(), human: "Q".into(), assistant: "A".into() };
        let list = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Once upon \n"}]);
        let list = messages(Some(list)).expect("messages");
        assert_eq!(t.page(&list), "A talk.\nQ: Hi\nA: Once upon \n");
        assert!(begins_answer(&list));
    }

    #[test]
    fn messages_without_a_question_are_refused() {
        for list in [
            json!(null),
            json!([]),
            json!([{"role": "user"}]),
            json!([{"role": "tool", "content": "x"}]),
            json!([{"role": "system", "content": "x"}]),
        ] {
            assert!(messages(Some(list)).is_err());
        }
    }
}
