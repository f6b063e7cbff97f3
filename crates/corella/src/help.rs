//! How the help is arranged: the heading that each flag stands under, flags that are not shown where they do nothing, and
//! examples.

use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;

/// The heading of what every command has.
const COMMON: &str = "Common";

/// Flags under their headings.
type Headings = &'static [(&'static str, &'static [&'static str])];

const TRAIN: Headings = &[
    ("Model", &["model", "n_layer", "n_head", "n_embd", "n_kv_head", "n_ff", "seq_len", "init_from"]),
    ("Data", &["data", "tokenizer", "vocab_size", "order"]),
    (
        "Schedule",
        &[
            "steps",
            "tokens",
            "batch_tokens",
            "lr",
            "warmup_steps",
            "schedule",
            "final_lr_fraction",
            "weight_decay",
            "clip",
        ],
    ),
    ("Speed and memory", &["micro_batch", "memory", "dtype", "recompute"]),
    ("Updates that are left out", &["spike_z_loss", "spike_z_norm", "spike_window"]),
    (
        "Output",
        &[
            "out",
            "resume",
            "checkpoint_every",
            "keep",
            "on_checkpoint",
            "on_failure",
            "sample_every",
            "sample_prompt",
            "sample_tokens",
            "serve",
        ],
    ),
    ("Measuring", &["val_every", "val_tokens", "eval_every", "eval", "eval_limit"]),
    ("Cost", &["price", "watts", "gpu", "mfu", "prices", "history"]),
];
const GENERATE: Headings = &[
    ("Model", &["tokenizer", "kv_type", "batch_invariant", "lookup"]),
    ("Text", &["prompt", "prompt_file", "prompt_ids", "no_bos", "parse_special"]),
    ("Length", &["n", "best_of", "max_tokens", "min_tokens", "stop", "stop_id", "ignore_eos"]),
    (
        "Sampling",
        &[
            "temperature",
            "temperature_last",
            "top_k",
            "top_p",
            "min_p",
            "typical_p",
            "repetition_penalty",
            "frequency_penalty",
            "presence_penalty",
            "logit_bias",
        ],
    ),
    ("Output", &["logprobs", "filtered", "show_tokens"]),
];
const SERVE: Headings = &[
    (
        "Listening",
        &["host", "port", "api_key", "allow_exposed", "allow_host", "cors_origin", "drain_seconds", "log_requests"],
    ),
    ("Room", &["context_len", "kv_tokens", "kv_type", "batch_invariant", "parallel", "queue", "lookup"]),
    ("Model", &["name", "tokenizer"]),
    ("Playground", &["transcript", "peer", "chat_peer"]),
];
const PREPARE: Headings = &[
    ("Tokens", &["tokenizer", "vocab_size", "val_fraction", "shard_tokens"]),
    ("Reading", &["pages", "field", "separator", "max_document", "nfc", "strict", "memory"]),
    ("Choosing", &["filter", "language", "min_bytes", "max_bytes", "duplicates", "similarity"]),
    ("Output", &["out", "overwrite"]),
];

/// Flags of `train` that no plan depends on. `plan` takes them, so that the command line of a run can be planned as it stands.
const NOT_PLANNED: [&str; 5] = ["serve", "resume", "on_checkpoint", "on_failure", "keep"];

/// Commands that load models as they are stored: only there activations can be rounded.
const ROUNDED: [&str; 4] = ["generate", "serve", "eval", "bench"];

/// Where there is more to say than what a command does.
const START: &str = "Start with: corella tour";

/// The commands and their examples.
const EXAMPLES: [(&str, &str); 12] = [
    (
        "tour",
        "  corella tour                              # the whole lesson, in minutes\n  \
           corella tour --million-tokens 0.5         # a first look at its beginning",
    ),
    (
        "train",
        "  corella train my.txt                      # a file or a folder of text\n  \
           corella train my-run.toml --resume        # a run file; goes on where it stopped",
    ),
    (
        "generate",
        "  corella generate out/my -p 'The sea' -n 3 --max-tokens 60\n  \
           corella generate MODEL --prompt-file pairs.txt --max-tokens 5 --stop '\\n'\n      \
               # pairs.txt: lines such as `butterfly: 나비`, and at the end `teacher:`",
    ),
    (
        "prepare",
        "  corella prepare TEXTS --vocab-size 4096 --out data/mine\n  \
           corella prepare 'crawl/*.wet.gz' --filter web --language eng --out data/web",
    ),
    (
        "tokenizer",
        "  corella tokenizer train TEXTS --vocab-size 32768 --out tokenizer.json\n  \
           corella tokenizer encode 'Hello, world!' --tokenizer gpt2",
    ),
    (
        "convert",
        "  corella convert out/my my.gguf --dtype q8_0\n  \
           corella convert my.gguf my-folder         # Hugging Face's files",
    ),
    (
        "inspect",
        "  corella inspect out/my\n  \
           corella inspect llama-3.1-405b            # a published shape, without its files",
    ),
    (
        "eval",
        "  corella eval out/my --text other.txt\n  \
           corella eval out/my --task piqa.jsonl",
    ),
    (
        "plan",
        "  corella plan my-run.toml                  # on this machine\n  \
           corella plan --model gpt2-124m --tokens 10B --gpu 8xH100\n\n\
         The other flags of train are taken too, and change no plan.",
    ),
    (
        "serve",
        "  corella serve out/my                      # then open http://127.0.0.1:8080\n  \
           corella serve model.gguf --port 9000 --context-len 4096",
    ),
    (
        "trace",
        "  corella trace index out/my                # then the playground finds sources too\n  \
           corella trace find out/my -p 'a sentence to look for'",
    ),
    (
        "bench",
        "  corella bench ops --only attention\n  \
           corella bench generate model.gguf --prompt 2048",
    ),
];

/// The command line, with its help arranged.
pub fn command() -> Command {
    let mut command = Cli::command();
    let what = command.get_about().map(ToString::to_string).unwrap_or_default();
    command = command.about(format!("{what}\n\n{START}"));
    // Flags that every command has are there once all is built.
    command.build();
    arranged(command, "")
}

fn arranged(command: Command, parent: &str) -> Command {
    let name = if parent.is_empty() { command.get_name().to_owned() } else { parent.to_owned() };
    let headings = match name.as_str() {
        "train" | "plan" => TRAIN,
        "generate" => GENERATE,
        "serve" => SERVE,
        "prepare" => PREPARE,
        _ => &[],
    };
    let mut command = command.mut_args(|arg| placed(arg, &name, headings));
    if let Some((_, examples)) = EXAMPLES.iter().find(|(of, _)| *of == name).filter(|_| parent.is_empty()) {
        command = command.after_help(format!("Examples:\n{examples}"));
    }
    let below = if name == "corella" { "" } else { name.as_str() };
    command.mut_subcommands(|command| if command.get_name() == "help" { command } else { arranged(command, below) })
}

/// A flag of a command where it belongs.
fn placed(arg: Arg, command: &str, headings: Headings) -> Arg {
    let id = arg.get_id().as_str().to_owned();
    match id.as_str() {
        "activations" => return arg.help_heading(COMMON).hide(!ROUNDED.contains(&command)),
        "seed" if command == "generate" => {
            return arg
                .help_heading(COMMON)
                .help("Seed of the samples [default: another one each time, which is printed]");
        }
        "json" | "device" | "threads" | "seed" | "help" | "version" => return arg.help_heading(COMMON),
        _ => {}
    }
    let arg = if command == "plan" && NOT_PLANNED.contains(&id.as_str()) { arg.hide(true) } else { arg };
    match headings.iter().find(|(_, flags)| flags.contains(&id.as_str())) {
        Some((heading, _)) => arg.help_heading(*heading),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The help of a command as a terminal with so many columns shows it.
    fn help_of(path: &[&str], columns: usize) -> String {
        let mut command = command().term_width(columns);
        for name in path {
            let found = command.find_subcommand(name).expect("a command").clone();
            command = found.term_width(columns);
        }
        command.render_help().to_string()
    }

    /// Every command, by its names.
    fn commands() -> Vec<Vec<String>> {
        fn below(command: &Command, path: &[String], all: &mut Vec<Vec<String>>) {
            all.push(path.to_vec());
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                below(sub, &[path, &[sub.get_name().to_owned()]].concat(), all);
            }
        }
        let mut all = Vec::new();
        below(&command(), &[], &mut all);
        all
    }

    #[test]
    fn help_fits_a_terminal_of_eighty_columns() {
        for path in commands() {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let help = help_of(&path, 80);
            let widest = help.lines().max_by_key(|line| line.chars().count()).unwrap_or_default();
            assert!(widest.chars().count() <= 80, "{path:?}: {widest}");
        }
    }

    #[test]
    fn every_flag_of_the_long_commands_has_a_heading() {
        let all = command();
        for name in ["train", "plan", "generate", "serve", "prepare"] {
            let command = all.find_subcommand(name).expect("a command");
            for flag in command.get_arguments().filter(|arg| !arg.is_positional()) {
                assert!(flag.get_help_heading().is_some(), "--{} of {name} has no heading in help.rs", flag.get_id());
            }
            let help = help_of(&[name], 100);
            assert!(!help.contains("\nOptions:") && help.contains("\nCommon:"), "{help}");
        }
        let flags: Vec<String> = all
            .get_subcommands()
            .flat_map(|command| command.get_arguments().map(|arg| arg.get_id().to_string()).collect::<Vec<_>>())
            .collect();
        for (_, listed) in [TRAIN, GENERATE, SERVE, PREPARE].into_iter().flatten() {
            assert!(listed.iter().all(|flag| flags.iter().any(|known| known == flag)), "{listed:?}");
        }
    }

    #[test]
    fn flags_are_shown_where_they_do_something() {
        for (name, shown) in [("generate", true), ("serve", true), ("train", false), ("doctor", false)] {
            assert_eq!(help_of(&[name], 80).contains("--activations"), shown, "{name}");
        }
        assert!(!help_of(&[], 80).contains("--activations"));
        let plan = help_of(&["plan"], 80);
        assert!(!["--serve", "--resume", "--on-failure", "--keep"].iter().any(|flag| plan.contains(flag)), "{plan}");
        assert!(help_of(&["train"], 80).contains("--on-failure"));
        assert!(help_of(&["generate"], 80).contains("another one each time"));
    }

    #[test]
    fn the_first_help_says_what_the_program_is_and_how_to_begin() {
        let help = help_of(&[], 80);
        assert!(help.starts_with("Train GPT-2"), "{help}");
        assert!(help.find(START).is_some_and(|at| at < help.find("Usage").unwrap_or(0)), "{help}");
    }

    #[test]
    fn examples_can_be_typed() {
        for (name, examples) in EXAMPLES {
            assert!(help_of(&[name], 80).contains("Examples:"), "{name}");
            let joined = examples.replace("\\\n", "");
            for line in joined.lines().map(str::trim).filter(|line| line.starts_with("corella")) {
                let line = line.split(" #").next().unwrap_or_default();
                let mut words: Vec<String> = Vec::new();
                for (i, part) in line.split('\'').enumerate() {
                    match i % 2 {
                        1 => words.push(part.to_owned()),
                        _ => words.extend(part.split_whitespace().map(str::to_owned)),
                    }
                }
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{words:?}: {}", parsed.map(|_| ()).unwrap_err());
            }
        }
    }
}
