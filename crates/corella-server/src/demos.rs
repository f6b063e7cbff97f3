//! The lecture's demonstrations for a model that has read the web, in our own wording. A model that learned the tiny
//! internet gets prompts from there instead; the binary brings them in the same shape.

use serde_json::{Value, json};

use crate::chat::Transcript;

/// A page that makes an assistant, with `{}` for the question.
pub fn assistant_page(transcript: &Transcript, turns: &[(&str, &str)]) -> String {
    let Transcript { preamble, human, assistant } = transcript;
    let turns: String = turns.iter().map(|(q, a)| format!("{human}: {q}\n{assistant}: {a}\n")).collect();
    format!("{preamble}\n{turns}{human}: {{}}\n{assistant}:")
}

/// The shape of `/corella/demos`.
pub fn general() -> Value {
    let page = assistant_page(
        &Transcript::default(),
        &[
            (
                "How does photosynthesis work?",
                "Plants take in light with the green pigment in their leaves and use its energy to build sugar from water and carbon dioxide. Oxygen is left over, and they give it off.",
            ),
            (
                "Can you help me write a letter?",
                "Of course. Tell me whom it is for and what you would like to say, and I will suggest a first version.",
            ),
        ],
    );
    let zebra = "Zebras are African equines with distinctive black-and-white striped coats.";
    json!([
        {
            "id": "continue", "kind": "plain", "title": "It continues",
            "text": "A question is only a beginning. Three samples from the same prompt differ, because every token is drawn from a distribution.",
            "prompts": [{"label": "Three times", "prompt": "What is 2+2?", "settings": {"samples": 3, "max_tokens": 48}}]
        },
        {
            "id": "list", "kind": "plain", "title": "It knows, vaguely",
            "text": "What it knows sits in its parameters like a lossy copy of what it read. Colour by surprise to see where it is unsure.",
            "prompts": [{"label": "Make the list", "prompt": "Here is my top 10 list of the top landmarks to see in Paris:", "settings": {"max_tokens": 200, "colour": "probability"}}]
        },
        {
            "id": "recite", "kind": "plain", "title": "It recites",
            "text": "Pages that were read many times come back word for word, until the copy gives out. Paste the original into the panel ‘Source’ to see where.",
            "prompts": [{"label": "Recite", "prompt": zebra, "settings": {"temperature": 0, "max_tokens": 512, "colour": "probability"}}]
        },
        {
            "id": "universes", "kind": "plain", "title": "It dreams parallel universes",
            "text": "Asked for what it cannot have read, it makes something up, another thing each time. The words that the universes do not share are marked.",
            "prompts": [{"label": "Two universes", "prompt": "The 2024 United States presidential election was held on Tuesday, November 5, 2024. The Republican candidate, who had been president of the United States from 2017 to 2021, chose as his running mate", "settings": {"samples": 2, "max_tokens": 96, "colour": "entropy"}}]
        },
        {
            "id": "fewshot", "kind": "fewshot", "title": "It learns from examples in the prompt",
            "text": "Ten pairs make a translator of it; nothing in the model changes.",
            "pairs": [["butterfly", "나비"], ["ocean", "바다"], ["whisper", "속삭임"], ["mountain", "산"], ["thunder", "천둥"], ["gentle", "부드러운"], ["freedom", "자유"], ["umbrella", "우산"], ["cinnamon", "계피"], ["moonlight", "달빛"]],
            "question": "teacher", "settings": {"max_tokens": 8, "temperature": 0, "stop": "\\n"}
        },
        {
            "id": "assistant", "kind": "assistant", "title": "A transcript makes it an assistant",
            "text": "It was never taught to answer. A page that looks like a conversation with a helpful assistant goes on like one. Without the stop it dreams the next question too; without the page, the bare question only leads to more text.",
            "prompt": page, "question": "Why is the sky blue?", "stop": "\\nHuman:", "settings": {"max_tokens": 160, "temperature": 0.7}
        },
        recap()
    ])
}

/// The last stop: what a base model is, in six points, each with the demonstrations that show it.
pub fn recap() -> Value {
    json!({
        "id": "recap", "kind": "recap", "title": "In six points",
        "text": "What this tour has shown of a base model, and where to see each again.",
        "points": [
            {"demo": "continue", "text": "It simulates documents, token by token: whatever it is given is the beginning of a page."},
            {"demo": "continue", "text": "It is stochastic: the same beginning goes on in another way each time."},
            {"demo": "universes", "text": "It dreams: where it does not know, it writes what could have been."},
            {"demo": "recite", "text": "It recites some of what it read, where it read it often."},
            {"demo": "list", "text": "It keeps a lossy copy of what it read in its parameters: what is frequent stays, what is rare blurs."},
            {"demo": "fewshot", "also": "assistant", "text": "A prompt makes a translator of it, or an assistant."}
        ]
    })
}
