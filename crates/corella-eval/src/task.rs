//! The tasks: how an item of each becomes contexts and continuations, word for word as lm-eval's templates make them.

use corella_text::data::text_hash;
use serde_json::Value;

/// A line that is no item of its task, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoItem(String);

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// How a scene goes on (Zellers et al. 2019).
    HellaSwag,
    /// School science, easy (Clark et al. 2018).
    ArcEasy,
    /// School science, hard.
    ArcChallenge,
    /// Everyday physics (Bisk et al. 2020).
    Piqa,
    /// Which of two a sentence means (Sakaguchi et al. 2019).
    WinoGrande,
    /// The last word of a passage (Paperno et al. 2016), in OpenAI's version.
    Lambada,
    /// Exam questions of 57 subjects (Hendrycks et al. 2021).
    Mmlu,
    /// Elementary science to be combined with common knowledge (Mihaylov et al. 2018).
    OpenBookQa,
    /// Yes or no, from a passage (Clark et al. 2019).
    BoolQ,
}

/// A context and what may follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What the model is given.
    pub context: String,
    /// What is judged; begins with the space that separates it.
    pub continuation: String,
}

/// An item of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What stands in front of each context: the task's description where it has one, then solved examples.
    pub preamble: String,
    /// Its subject, where the task has them (MMLU).
    pub subject: Option<String>,
    /// What is asked.
    pub question: Question,
}

impl Item {
    /// What is judged, each with its context: every choice, or what is left out.
    pub fn pairs(&self) -> &[Pair] {
        match &self.question {
            Question::Choice { pairs, .. } => pairs,
            Question::Cloze(pair) => std::slice::from_ref(pair),
        }
    }

    /// Number of the right choice; a cloze has none.
    pub fn gold(&self) -> Option<usize> {
        match &self.question {
            Question::Choice { gold, .. } => Some(*gold),
            Question::Cloze(_) => None,
        }
    }

    /// Tells the item as it is asked, with what stands in front of it, from others: of all its words and the right choice.
    pub fn mark(&self) -> u64 {
        let pairs = self.pairs().iter().map(|pair| format!(" \0 {} \0 {}", pair.context, pair.continuation));
        let gold = self.gold().map_or(String::new(), |gold| format!(" \0 {gold}"));
        text_hash(&format!("{}{}{gold}", self.preamble, pairs.collect::<String>())) as u64
    }

    /// The item with its answer, as an example for another: lm-eval's delimiters behind context and answer.
    pub fn solved(&self) -> String {
        let (pair, answer) = match &self.question {
            Question::Choice { pairs, gold, .. } => (&pairs[*gold], pairs[*gold].continuation.clone()),
            // lm-eval puts its delimiter before the answer, which begins with a space of its own.
            Question::Cloze(pair) => (pair, format!(" {}", pair.continuation)),
        };
        format!("{}{answer}\n\n", pair.context)
    }
}

/// What an item asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// One of several continuations is right.
    Choice {
        /// Each with its context.
        pairs: Vec<Pair>,
        /// Characters of each choice, without the space before it: what acc_norm divides by.
        lengths: Vec<usize>,
        /// The right one.
        gold: usize,
    },
    /// The continuation is to be the likeliest there is.
    Cloze(Pair),
}

impl Task {
    /// All tasks.
    pub const ALL: [Task; 9] = [
        Task::HellaSwag,
        Task::ArcEasy,
        Task::ArcChallenge,
        Task::Piqa,
        Task::WinoGrande,
        Task::Lambada,
        Task::Mmlu,
        Task::OpenBookQa,
        Task::BoolQ,
    ];

    /// Name in lm-eval.
    pub fn name(self) -> &'static str {
        match self {
            Task::HellaSwag => "hellaswag",
            Task::ArcEasy => "arc_easy",
            Task::ArcChallenge => "arc_challenge",
            Task::Piqa => "piqa",
            Task::WinoGrande => "winogrande",
            Task::Lambada => "lambada_openai",
            Task::Mmlu => "mmlu",
            Task::OpenBookQa => "openbookqa",
            Task::BoolQ => "boolq",
        }
    }

    /// The task of a name.
    pub fn from_name(name: &str) -> Option<Task> {
        Task::ALL.into_iter().find(|task| task.name() == name)
    }

    /// The task whose name a file's name begins with: `arc_easy.jsonl.gz`, `mmlu_validation.jsonl`.
    pub fn of_file(name: &str) -> Option<Task> {
        Task::ALL.into_iter().find(|task| name.starts_with(task.name()))
    }

    /// Whether lm-eval reports acc_norm for it.
    pub fn has_norm(self) -> bool {
        matches!(self, Task::HellaSwag | Task::ArcEasy | Task::ArcChallenge | Task::Piqa | Task::OpenBookQa)
    }

    /// An item from a line of a file: of the Hugging Face data set, or of the form in which llm-foundry and others keep it.
    pub fn item(self, line: &Value) -> Result<Item, NoItem> {
        self.read(line).map_err(NoItem)
    }

    fn read(self, line: &Value) -> Result<Item, String> {
        match self {
            Task::HellaSwag => {
                let context = match (line.get("ctx_a"), line.get("ctx_b")) {
                    (Some(_), Some(_)) => format!("{} {}", text(line, "ctx_a")?, capitalized(text(line, "ctx_b")?)),
                    _ => text(line, "ctx")?.to_owned(),
                };
                let query = without_brackets(format!("{}: {context}", text(line, "activity_label")?));
                let endings = texts(line, "endings")?.into_iter().map(without_brackets).collect();
                choice(&query, endings, number(line, "label")?)
            }
            Task::ArcEasy | Task::ArcChallenge => match line.get("query") {
                Some(_) => choice(&asked(text(line, "query")?), owned(texts(line, "choices")?), number(line, "gold")?),
                None => labelled(&asked(&format!("Question: {}", text(line, "question")?)), line),
            },
            Task::Piqa => match line.get("query") {
                Some(_) => choice(&asked(text(line, "query")?), owned(texts(line, "choices")?), number(line, "gold")?),
                None => {
                    let question = format!("Question: {}", text(line, "goal")?);
                    let choices = owned(vec![text(line, "sol1")?, text(line, "sol2")?]);
                    choice(&asked(&question), choices, number(line, "label")?)
                }
            },
            Task::WinoGrande => match line.get("context_options") {
                Some(_) => {
                    let target = text(line, "continuation")?.trim();
                    either(owned(texts(line, "context_options")?), target, number(line, "gold")?)
                }
                None => {
                    let (before, after) = text(line, "sentence")?.split_once('_').ok_or("sentence has no _")?;
                    let options = [text(line, "option1")?, text(line, "option2")?];
                    let gold = number(line, "answer")?.checked_sub(1).ok_or("answer is neither 1 nor 2")?;
                    either(options.map(|option| format!("{before}{option}")).to_vec(), after.trim(), gold)
                }
            },
            Task::Lambada => {
                let (context, word) = match line.get("text") {
                    Some(_) => text(line, "text")?.rsplit_once(' ').ok_or("text has one word only")?,
                    None => (text(line, "context")?, text(line, "continuation")?),
                };
                not_empty("the last word", word)?;
                let pair = Pair { context: context.to_owned(), continuation: format!(" {word}") };
                Ok(Item { preamble: String::new(), subject: None, question: Question::Cloze(pair) })
            }
            Task::Mmlu => {
                let choices = texts(line, "choices")?;
                let [a, b, c, d] = choices[..] else { return Err("choices are not four".to_owned()) };
                let subject = text(line, "subject")?;
                let about = subject.replace('_', " ");
                let question = text(line, "question")?.trim();
                let preamble = format!("The following are multiple choice questions (with answers) about {about}.\n\n");
                let query = format!("{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:");
                let item = choice(&query, owned(vec!["A", "B", "C", "D"]), letter_or_number(line, "answer")?)?;
                Ok(Item { preamble, subject: Some(subject.to_owned()), ..item })
            }
            Task::OpenBookQa => match line.get("query") {
                Some(_) => choice(text(line, "query")?, owned(texts(line, "choices")?), number(line, "gold")?),
                None => labelled(text(line, "question_stem")?, line),
            },
            Task::BoolQ => {
                let (question, gold) = match line.get("query") {
                    // llm-foundry puts a word of its own in front.
                    Some(_) => (text(line, "query")?.trim_start_matches("Passage: ").to_owned(), "gold"),
                    None => (format!("{}\nQuestion: {}?", text(line, "passage")?, text(line, "question")?), "label"),
                };
                choice(&asked(&question), owned(vec!["no", "yes"]), number(line, gold)?)
            }
        }
    }
}

/// A question whose choices have labels, of which one is the answer (ARC, OpenBookQA).
fn labelled(context: &str, line: &Value) -> Result<Item, String> {
    let choices = line.get("choices").ok_or("choices is missing")?;
    let (labels, key) = (texts(choices, "label")?, text(line, "answerKey")?.trim_start());
    let gold = labels.iter().position(|l| *l == key).ok_or("answerKey is none of the labels")?;
    choice(context, owned(texts(choices, "text")?), gold)
}

/// A question with lm-eval's `Answer:` under it.
fn asked(question: &str) -> String {
    format!("{}\nAnswer:", question.trim_end_matches('\n'))
}

/// Whoever has no choice is always right.
fn check_choices(choices: usize, gold: usize) -> Result<(), String> {
    match choices {
        0 | 1 => Err(format!("{choices} to choose from; 2 are needed")),
        _ if gold >= choices => Err(format!("the right choice is number {gold} of {choices}")),
        _ => Ok(()),
    }
}

/// Nothing is the likeliest of all continuations.
fn not_empty(what: &str, continuation: &str) -> Result<(), String> {
    if continuation.trim().is_empty() { Err(format!("{what} is empty")) } else { Ok(()) }
}

/// One context, several continuations.
fn choice(context: &str, choices: Vec<String>, gold: usize) -> Result<Item, String> {
    check_choices(choices.len(), gold)?;
    choices.iter().try_for_each(|choice| not_empty("a choice", choice))?;
    let lengths = choices.iter().map(|c| c.chars().count()).collect();
    let pair = |c: &String| Pair { context: context.to_owned(), continuation: format!(" {c}") };
    Ok(Item {
        preamble: String::new(),
        subject: None,
        question: Question::Choice { pairs: choices.iter().map(pair).collect(), lengths, gold },
    })
}

/// Several contexts, one continuation.
fn either(contexts: Vec<String>, target: &str, gold: usize) -> Result<Item, String> {
    check_choices(contexts.len(), gold)?;
    not_empty("what follows the gap", target)?;
    let lengths = contexts.iter().map(|c| c.chars().count()).collect();
    let pair = |context| Pair { context, continuation: format!(" {target}") };
    Ok(Item {
        preamble: String::new(),
        subject: None,
        question: Question::Choice { pairs: contexts.into_iter().map(pair).collect(), lengths, gold },
    })
}

fn text<'a>(line: &'a Value, key: &str) -> Result<&'a str, String> {
    line.get(key).and_then(Value::as_str).ok_or_else(|| format!("{key} is missing or no text"))
}

fn texts<'a>(line: &'a Value, key: &str) -> Result<Vec<&'a str>, String> {
    let list = line.get(key).and_then(Value::as_array).ok_or_else(|| format!("{key} is missing or no list"))?;
    list.iter().map(|v| v.as_str().ok_or_else(|| format!("{key} holds something that is no text"))).collect()
}

/// A whole number, also where it is written as text.
fn number(line: &Value, key: &str) -> Result<usize, String> {
    let value = line.get(key).ok_or_else(|| format!("{key} is missing"))?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| format!("{key} is no whole number"))
}

/// The number of a choice, also where it is named by its letter.
fn letter_or_number(line: &Value, key: &str) -> Result<usize, String> {
    let letter = line
        .get(key)
        .and_then(Value::as_str)
        .and_then(|text| "ABCD".find(text.trim()).filter(|_| text.trim().len() == 1));
    letter.map_or_else(|| number(line, key), Ok)
}

fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// Python's `str.capitalize`.
fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// lm-eval's cleaning of HellaSwag: WikiHow's marks in brackets go, and what double spaces they leave.
fn without_brackets(text: impl AsRef<str>) -> String {
    let marked = text.as_ref().trim().replace(" [title]", ". ");
    let (mut clean, mut rest) = (String::new(), marked.as_str());
    while let Some((before, after)) = rest.split_once('[') {
        match after.split_once(']') {
            // A bracket's content does not run over a line's end.
            Some((inside, behind)) if !inside.contains('\n') => {
                clean.push_str(before);
                rest = behind;
            }
            _ => {
                clean.push_str(before);
                clean.push('[');
                rest = after;
            }
        }
    }
    (clean + rest).replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_without_a_choice_is_refused() {
        let parse = |endings: &str| {
            let line = format!(r#"{{"activity_label": "A", "ctx": "b", "endings": {endings}, "label": 0}}"#);
            Task::HellaSwag.item(&serde_json::from_str(&line).expect("JSON"))
        };
        assert!(parse(r#"["c", "d"]"#).is_ok());
        assert_eq!(parse(r#"["c"]"#), Err(NoItem("1 to choose from; 2 are needed".to_owned())));
        assert_eq!(parse(r#"["", "", "", " "]"#), Err(NoItem("a choice is empty".to_owned())));
        assert_eq!(parse(r#"["c", "[header]"]"#), Err(NoItem("a choice is empty".to_owned())));
    }

    #[test]
    fn nothing_is_no_continuation_in_any_task() {
        let empty = [
            (Task::ArcEasy, r#"{"query": "Question: Why?", "choices": ["", "a"], "gold": 1}"#),
            (Task::ArcChallenge, r#"{"query": "Question: Why?", "choices": ["a", " "], "gold": 0}"#),
            (Task::Piqa, r#"{"goal": "Why?", "sol1": "", "sol2": "because of it", "label": 0}"#),
            (Task::WinoGrande, r#"{"sentence": "Ann lent it to _", "option1": "Bea", "option2": "Cy", "answer": "1"}"#),
            (Task::Lambada, r#"{"text": "It was the last "}"#),
            (Task::Lambada, r#"{"context": "It was the last", "continuation": " "}"#),
        ];
        for (task, line) in empty {
            let error = task.item(&serde_json::from_str(line).expect("JSON")).expect_err(line);
            assert!(error.0.ends_with("is empty"), "{}: {error}", task.name());
        }
    }

    #[test]
    fn both_forms_of_an_item_give_the_same_prompt() {
        let parse = |task: Task, json: &str| task.item(&serde_json::from_str(json).expect("JSON"));
        let arc = [
            r#"{"query": "Question: Why?", "choices": ["a", "bc"], "gold": 1}"#,
            r#"{"question": "Why?", "choices": {"text": ["a", "bc"], "label": ["1", "2"]}, "answerKey": "2"}"#,
        ];
        assert_eq!(parse(Task::ArcEasy, arc[0]), parse(Task::ArcEasy, arc[1]));
        let piqa = [
            r#"{"query": "Question: How\n", "choices": ["a", "b"], "gold": 0}"#,
            r#"{"goal": "How", "sol1": "a", "sol2": "b", "label": 0}"#,
        ];
        assert_eq!(parse(Task::Piqa, piqa[0]), parse(Task::Piqa, piqa[1]));
        let wino = [
            r#"{"context_options": ["So Ann", "So Bea"], "continuation": "won.", "gold": 1}"#,
            r#"{"sentence": "So _ won.", "option1": "Ann", "option2": "Bea", "answer": "2"}"#,
        ];
        assert_eq!(parse(Task::WinoGrande, wino[0]), parse(Task::WinoGrande, wino[1]));
        let open_book = [
            r#"{"query": "Fog is near", "choices": ["a", "bc"], "gold": 1}"#,
            r#"{"question_stem": "Fog is near", "choices": {"text": ["a", "bc"], "label": ["A", "B"]}, "answerKey": "B"}"#,
        ];
        assert_eq!(parse(Task::OpenBookQa, open_book[0]), parse(Task::OpenBookQa, open_book[1]));
        let item = parse(Task::OpenBookQa, open_book[0]).expect("an item");
        assert_eq!(item.solved(), "Fog is near bc\n\n");
        let bool_q = [
            r#"{"query": "Passage: Ice floats.\nQuestion: does ice sink?", "choices": ["no", "yes"], "gold": 0}"#,
            r#"{"passage": "Ice floats.", "question": "does ice sink", "label": 0}"#,
        ];
        assert_eq!(parse(Task::BoolQ, bool_q[0]), parse(Task::BoolQ, bool_q[1]));
        let item = parse(Task::BoolQ, bool_q[0]).expect("an item");
        assert_eq!(item.solved(), "Ice floats.\nQuestion: does ice sink?\nAnswer: no\n\n");
        let lambada = [r#"{"context": "a b", "continuation": "c"}"#, r#"{"text": "a b c"}"#];
        assert_eq!(parse(Task::Lambada, lambada[0]), parse(Task::Lambada, lambada[1]));
        for wrong in [r#"{"query": "q", "choices": ["a"], "gold": 1}"#, r#"{"query": 3}"#, "{}"] {
            assert!(parse(Task::Piqa, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hellaswag_is_cleaned_as_lm_eval_does() {
        assert_eq!(without_brackets(" Bake [title] a cake [step] now  [x"), "Bake. a cake now [x");
        assert_eq!(capitalized("he RUNS"), "He runs");
    }

    #[test]
    fn the_answer_of_mmlu_is_a_number_or_a_letter() {
        let gold = |answer: &str| {
            let line = r#"{"question": "q", "subject": "law", "choices": ["a", "b", "c", "d"], "answer": "#;
            let item = Task::Mmlu.item(&serde_json::from_str(&format!("{line}{answer}}}")).expect("JSON"));
            item.map(|item| item.gold())
        };
        assert_eq!((gold("1"), gold(r#""1""#), gold(r#""B""#)), (Ok(Some(1)), Ok(Some(1)), Ok(Some(1))));
        assert!(gold(r#""E""#).is_err() && gold(r#""AB""#).is_err() && gold(r#""""#).is_err() && gold("4").is_err());
    }
}
