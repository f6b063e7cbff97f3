//! How texts begin and end, and what is no token, are the same in every file that holds a model.

mod common;

use std::path::{Path, PathBuf};

use common::{Folder, corella, done, json, stderr};
use corella_model::AnyModel;
use corella_model::formats::gguf::{Value as Entry, open as open_gguf};
use serde_json::{Value, json};

/// A Llama with a vocabulary of its own, whose end of text is token 0 and stands in front of every text too.
struct Small {
    folder: Folder,
}

impl Small {
    fn new(name: &str) -> Small {
        let folder = Folder::new(name);
        let (text, run) = (folder.text().display().to_string(), folder.join("run").display().to_string());
        let flags = "--model llama-custom --n-layer 1 --n-head 2 --n-embd 32 --n-ff 64 --seq-len 32 --vocab-size 300 --micro-batch 2 --steps 3 --warmup-steps 1 --sample-every 0 --val-every 0";
        let mut args = vec!["train", &text, "--out", &run];
        args.extend(flags.split(' '));
        done(&args);
        done(&["convert", &run, &folder.join("model").display().to_string()]);
        Small { folder }
    }

    fn model(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// Writes a file beside the weights.
    fn write(&self, name: &str, text: impl ToString) {
        std::fs::write(self.model().join(name), text.to_string()).expect("written");
    }

    /// Changes a JSON file beside the weights.
    fn change(&self, name: &str, change: impl Fn(&mut Value)) {
        let mut file = json_file(&self.model().join(name));
        change(&mut file);
        self.write(name, file);
    }

    /// Takes out of the files what they say of the token in front of a text, as GPT-2's published ones say nothing.
    fn unsay_front(&self) {
        self.change("tokenizer.json", |file| file["post_processor"] = Value::Null);
        self.change("tokenizer_config.json", |config| {
            let config = config.as_object_mut().expect("an object");
            config.remove("add_bos_token");
            config.remove("bos_token");
        });
    }

    /// The model as it is, as a GGUF file, as the folder made of that, and as a copy.
    fn everywhere(&self, what: &str) -> [PathBuf; 4] {
        let to = |name: &str| self.folder.join(&format!("{what}{name}"));
        let [gguf, back, copy] = [to(".gguf"), to("-back"), to("-copy")];
        for (from, to) in [(&self.model(), &gguf), (&gguf, &back), (&self.model(), &copy)] {
            done(&["convert", &from.display().to_string(), &to.display().to_string(), "--dtype", "f32"]);
        }
        [self.model(), gguf, back, copy]
    }
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

fn generate(model: &Path, more: &[&str]) -> Value {
    let model = model.display().to_string();
    json(&done(&[&["generate", &model, "--temperature", "0", "--logit-bias", "0=-100", "--json"], more].concat()))
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id")).collect()
}

#[test]
fn every_file_names_all_that_ends_a_text() {
    let small = Small::new("ends");
    let free = generate(&small.model(), &["-p", "The red", "--max-tokens", "12", "--ignore-eos"]);
    let free = ids(&free["choices"][0]["ids"]);
    // A token that is no end by its name, and the tokens in front of its first place.
    let (end, before) = (free[5], free.iter().take_while(|id| **id != free[5]).count());
    let ends_there = |what: &str, models: &[PathBuf]| {
        for model in models {
            let found = generate(model, &["-p", "The red", "--max-tokens", "12"]);
            let choice = &found["choices"][0];
            assert_eq!(choice["finish_reason"], "stop", "{what} {}: {choice}", model.display());
            assert_eq!(choice["stop"], end, "a token by its number, {what} {}", model.display());
            assert_eq!(ids(&choice["ids"])[..before], free[..before], "{what} {}", model.display());
        }
    };
    // `transformers` goes by generation_config.json, where config.json has the end of text alone.
    small.write("generation_config.json", json!({"eos_token_id": [0, end], "bos_token_id": 0}));
    ends_there("generation_config", &small.everywhere("generation"));
    // -1 stands for none in some of these files.
    small.write("generation_config.json", json!({"eos_token_id": -1}));
    assert_eq!(AnyModel::open(&small.model()).expect("a model").special().eos, [0]);
    std::fs::remove_file(small.model().join("generation_config.json")).expect("removed");
    small.change("config.json", |config| config["eos_token_id"] = json!([0, end]));
    ends_there("config", &small.everywhere("config"));
    // A file has places for three; what has none is said.
    small.change("config.json", |config| config["eos_token_id"] = json!([0, 7, 8, 9]));
    let out = small.folder.join("four.gguf");
    let said = stderr(&corella(&["convert", &small.model().display().to_string(), &out.display().to_string()]));
    assert!(said.contains("does not name 9"), "{said}");
    assert_eq!(AnyModel::open(&out).expect("a model").special().eos, [0, 7, 8]);
}

#[test]
fn without_a_tokenizer_the_ends_stay_too() {
    let folder = Folder::new("bare-ends");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/llama/model");
    let model = folder.join("model");
    std::fs::create_dir(&model).expect("a folder");
    std::fs::copy(fixture.join("model.safetensors"), model.join("model.safetensors")).expect("a copy");
    let mut config = json_file(&fixture.join("config.json"));
    (config["bos_token_id"], config["eos_token_id"]) = (json!(5), json!([6, 7]));
    std::fs::write(model.join("config.json"), config.to_string()).expect("written");
    let (gguf, back) = (folder.join("m.gguf"), folder.join("back"));
    for (from, to) in [(&model, &gguf), (&gguf, &back)] {
        done(&["convert", &from.display().to_string(), &to.display().to_string()]);
    }
    for written in [&gguf, &back] {
        let special = AnyModel::open(written).expect("a model").special();
        assert_eq!((special.bos, &special.eos[..]), (Some(5), &[6, 7][..]), "{}", written.display());
    }
}

/// Programs that go by these files put there what was there in training, and this one puts it there once.
#[test]
fn the_files_of_a_vocabulary_trained_here_say_what_goes_in_front() {
    let small = Small::new("own-front");
    let run = small.folder.join("run");
    let checkpoint = run.join("checkpoints/step-00000003");
    let [model, gguf, back, copy] = small.everywhere("own");
    for folder in [&run, &checkpoint, &model, &back, &copy] {
        let config = json_file(&folder.join("tokenizer_config.json"));
        let named = (&config["add_bos_token"], &config["bos_token"], &config["eos_token"]);
        assert_eq!(named, (&json!(true), &json!("<|endoftext|>"), &json!("<|endoftext|>")), "{}", folder.display());
        // What `tokenizers` goes by, whatever class reads the other file.
        let single = &json_file(&folder.join("tokenizer.json"))["post_processor"]["single"];
        assert_eq!(single[0]["SpecialToken"]["id"], "<|endoftext|>", "{}", folder.display());
    }
    let (_, header) = open_gguf(&gguf).expect("a right file");
    assert_eq!(header.get("tokenizer.ggml.add_bos_token"), Some(&Entry::Bool(true)));
    assert_eq!(header.get("tokenizer.ggml.bos_token_id"), Some(&Entry::U32(0)));
    for model in [&run, &model, &gguf, &back, &copy] {
        let prompt = ids(&generate(model, &["-p", "The fox", "--max-tokens", "1"])["prompt_ids"]);
        assert!(prompt[0] == 0 && prompt[1..].iter().all(|id| *id != 0), "{}: {prompt:?}", model.display());
    }
}

#[test]
fn tokens_for_padding_and_for_what_is_unknown_go_wherever_the_model_goes() {
    let small = Small::new("pads");
    small.change("tokenizer_config.json", |config| {
        config["pad_token"] = json!({"content": "<|endoftext|>", "special": true});
        config["unk_token"] = json!("<|endoftext|>");
    });
    let [_, gguf, back, _] = small.everywhere("pad");
    let (_, header) = open_gguf(&gguf).expect("a right file");
    for key in ["padding", "unknown"] {
        assert_eq!(header.get(&format!("tokenizer.ggml.{key}_token_id")), Some(&Entry::U32(0)), "{key}");
    }
    let config = json_file(&back.join("tokenizer_config.json"));
    assert_eq!((&config["pad_token"], &config["unk_token"]), (&json!("<|endoftext|>"), &json!("<|endoftext|>")));
    // A name that the vocabulary does not have names nothing.
    small.change("tokenizer_config.json", |config| config["pad_token"] = json!("[PAD]"));
    let [_, gguf, back, _] = small.everywhere("no-pad");
    let (_, header) = open_gguf(&gguf).expect("a right file");
    assert_eq!(header.get("tokenizer.ggml.padding_token_id"), None);
    assert_eq!(json_file(&back.join("tokenizer_config.json"))["pad_token"], Value::Null);
}

#[test]
fn what_ended_a_text_is_a_string_or_the_number_of_a_token() {
    let small = Small::new("stops");
    let free = generate(&small.model(), &["-p", "The red", "--max-tokens", "12", "--ignore-eos"]);
    let free = ids(&free["choices"][0]["ids"]);
    let stop = free[5].to_string();
    let found = generate(&small.model(), &["-p", "The red", "--max-tokens", "12", "--stop-id", &stop, "--ignore-eos"]);
    assert_eq!(found["choices"][0]["stop"], free[5]);
    // One comes for sure where nothing else may. A line end is typed as two characters: a shell passes them on as they are.
    for (typed, text) in [("7", "7"), (r"\n", "\n")] {
        let bias = bias_of(&small, text);
        let args = ["-p", "1", "--max-tokens", "12", "--stop", typed, "--logit-bias", &bias];
        assert_eq!(generate(&small.model(), &args)["choices"][0]["stop"], text);
    }
}

/// A bias that makes the token of a text come.
fn bias_of(small: &Small, text: &str) -> String {
    let model = small.model().display().to_string();
    let found = &json(&done(&["tokenizer", "encode", text, "--tokenizer", &model, "--json"]))["ids"];
    format!("{}=100", ids(found).last().expect("a token"))
}

#[test]
fn nothing_is_put_in_front_where_the_files_forbid_it() {
    let small = Small::new("fronts");
    let prompt =
        |model: &Path, more: &[&str]| ids(&generate(model, &[&["--max-tokens", "1"], more].concat())["prompt_ids"]);
    let key = |path: &Path| {
        let (_, header) = open_gguf(path).expect("a right file");
        match header.get("tokenizer.ggml.add_bos_token") {
            Some(Entry::Bool(add)) => Some(*add),
            _ => None,
        }
    };
    let bare = prompt(&small.model(), &["-p", "The fox", "--no-bos"]);
    assert_ne!(bare[0], 0);
    small.unsay_front();
    let convert = |to: &str| {
        let (from, to) = (small.model().display().to_string(), small.folder.join(to).display().to_string());
        stderr(&corella(&["convert", &from, &to]))
    };
    for to in ["note.gguf", "note"] {
        let said = convert(to);
        assert!(said.contains("other programs put none there") && said.contains("<|endoftext|>"), "{said}");
    }
    // Nothing is said: the border between documents, and nothing is said in any other file either.
    let models = small.everywhere("unsaid");
    assert_eq!(key(&models[1]), None);
    for model in &models {
        assert_eq!(prompt(model, &["-p", "The fox"]), [&[0], &bare[..]].concat(), "{}", model.display());
    }
    assert_eq!(json_file(&models[2].join("tokenizer.json"))["post_processor"], Value::Null);
    small.change("tokenizer_config.json", |config| config["add_bos_token"] = json!(false));
    let models = small.everywhere("no");
    assert_eq!(key(&models[1]), Some(false));
    let text = small.folder.join("short.txt");
    std::fs::write(&text, "The fox").expect("written");
    for model in &models {
        assert_eq!(prompt(model, &["-p", "The fox"]), bare, "{}", model.display());
        // Where there is no text, there is nothing else to go on from.
        assert_eq!(prompt(model, &[]), [0], "{}", model.display());
        let (model, text) = (model.display().to_string(), text.display().to_string());
        // The first token is not predicted.
        assert_eq!(json(&done(&["eval", &model, "--text", &text, "--json"]))["tokens"], bare.len() - 1);
    }
    small.change("tokenizer_config.json", |config| config["add_bos_token"] = json!(true));
    small.change("tokenizer_config.json", |config| config["bos_token"] = config["eos_token"].clone());
    let models = small.everywhere("yes");
    assert_eq!(key(&models[1]), Some(true));
    assert!(!convert("said").contains("put none there"));
    assert_eq!(json_file(&models[2].join("tokenizer.json"))["post_processor"]["type"], "TemplateProcessing");
}

#[test]
fn a_template_for_conversations_goes_wherever_the_model_goes() {
    let small = Small::new("templates");
    let template = "{% for message in messages %}{{ message }}{% endfor %}";
    let check = |what: &str| {
        for model in small.everywhere(what) {
            let found = AnyModel::open(&model).expect("a model");
            assert_eq!(found.chat_template(), Some(template), "{what} {}", model.display());
            assert!(found.is_instruct());
        }
    };
    small.change("tokenizer_config.json", |config| config["chat_template"] = json!(template));
    check("named");
    let named = json!([{"name": "tools", "template": "x"}, {"name": "default", "template": template}]);
    small.change("tokenizer_config.json", |config| config["chat_template"] = named.clone());
    check("several");
    // The file counts where both are there.
    small.change("tokenizer_config.json", |config| config["chat_template"] = json!("other"));
    small.write("chat_template.jinja", template);
    check("file");
}

#[test]
fn rows_behind_the_vocabulary_are_padding_in_a_gguf_too() {
    let small = Small::new("padding");
    // A vocabulary of 280 tokens for a model of 300 rows.
    let text = small.folder.text().display().to_string();
    let tokenizer = small.folder.join("tokenizer.json").display().to_string();
    done(&["tokenizer", "train", &text, "--vocab-size", "280", "--out", &tokenizer]);
    let (gguf, back) = (small.folder.join("padded.gguf"), small.folder.join("padded"));
    let model = small.model().display().to_string();
    done(&["convert", &model, &gguf.display().to_string(), "--tokenizer", &tokenizer]);
    done(&["convert", &gguf.display().to_string(), &back.display().to_string()]);
    for model in [&gguf, &back] {
        let model = model.display().to_string();
        let biased = |id: &str| {
            let args = ["generate", &model, "-p", "The", "--max-tokens", "1", "--temperature", "0", "--json"];
            corella(&[&args[..], &["--logit-bias", &format!("{id}=100")]].concat())
        };
        let last = biased("279");
        assert!(last.status.success(), "{}", stderr(&last));
        assert_eq!(json(&common::stdout(&last))["choices"][0]["ids"], json!([279]));
        let padding = biased("280");
        assert_eq!(padding.status.code(), Some(2), "{model}: {}", common::stdout(&padding));
    }
}
