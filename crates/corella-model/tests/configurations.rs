//! What a configuration means where keys are absent, what the presets are, and what a way through files must leave of it.

mod common;

use std::path::Path;

use common::Folder;
use corella_model::ModelError;
use corella_model::exchange::{Exchange, gguf, hugging_face};
use corella_model::gpt2::Gpt2Config;
use corella_model::llama::{LlamaCheckpoint, LlamaConfig, LlamaShape, LlamaWeights, Rope, RopeScaling};
use corella_model::{SpecialIds, Weights};
use corella_ops::WeightFormat;
use serde_json::{Value as Json, json};

fn read<C: Exchange>(config: &Json) -> Result<C, ModelError> {
    C::from_json(&config.to_string(), Path::new("config.json")).map(|(config, _)| config)
}

/// Expected values are those of `LlamaConfig(...)` in `transformers` 5.24.
#[test]
fn keys_that_a_llamas_config_json_lacks_have_the_values_of_transformers() {
    let config = json!({"vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4});
    let shape = LlamaShape {
        vocab_size: 11,
        n_layer: 2,
        n_head: 4,
        n_kv_head: 4,
        head_size: 2,
        n_embd: 8,
        n_ff: 12,
        context_len: 2048,
        norm_eps: 1e-6,
        tied: false,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
    };
    assert_eq!(read::<LlamaConfig>(&config).expect("all that is required"), LlamaConfig::new(shape).expect("valid"));
    for key in config.as_object().expect("an object").keys() {
        let mut less = config.clone();
        less.as_object_mut().expect("an object").remove(key);
        let said = read::<LlamaConfig>(&less).expect_err("required").to_string();
        assert!(said.contains(key), "{said}");
    }
    // The context of before, where the rule of Llama 3.1 does not name one.
    let mut longer = config;
    longer["max_position_embeddings"] = json!(4096);
    longer["rope_scaling"] =
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 4096.0 };
    assert_eq!(read::<LlamaConfig>(&longer).expect("valid").rope, Rope { theta: 10_000.0, scaling });
}

/// Expected values are those of `GPT2Config(...)` in `transformers` 5.24.
#[test]
fn keys_that_a_gpt2s_config_json_lacks_have_the_values_of_transformers() {
    let mut config = json!({"vocab_size": 11, "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16});
    let shape = Gpt2Config::new(11, 2, 2, 8, 16).expect("valid");
    assert!(shape.tied());
    assert_eq!(read::<Gpt2Config>(&config).expect("all that is required"), shape);
    config["n_inner"] = json!(null);
    config["layer_norm_epsilon"] = json!(1e-5);
    config["activation_function"] = json!("gelu_new");
    config["tie_word_embeddings"] = json!(false);
    assert_eq!(read::<Gpt2Config>(&config).expect("said"), shape.with_own_head().expect("valid"));
}

/// `GPT2Config(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, vocab_size=11)` in `transformers` 5.24; where both names
/// are there it takes the general one.
#[test]
fn a_gpt2s_sizes_may_have_the_general_names() {
    let mut config = json!({"vocab_size": 11, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8});
    let shape = Gpt2Config::new(11, 2, 2, 8, 1024).expect("valid");
    assert_eq!(read::<Gpt2Config>(&config).expect("by general names"), shape);
    config["n_embd"] = json!(16);
    assert_eq!(read::<Gpt2Config>(&config).expect("by both names"), shape);
    config["max_position_embeddings"] = json!(16);
    assert_eq!(read::<Gpt2Config>(&config).expect("valid"), Gpt2Config::new(11, 2, 2, 8, 16).expect("valid"));
}

#[test]
fn a_field_that_is_lacking_is_no_damage() {
    let whole = json!({"vocab_size": 11, "n_layer": 2, "n_head": 2, "n_embd": 8});
    for key in ["vocab_size", "n_layer", "n_head", "n_embd"] {
        let mut less = whole.clone();
        less.as_object_mut().expect("an object").remove(key);
        let Err(ModelError::Format(error)) = read::<Gpt2Config>(&less) else { panic!("{key} is required") };
        let (said, hint) = (error.to_string(), error.hint().expect("a hint"));
        assert!(said.contains("lacks") && said.contains(&format!("`{key}`")), "{said}");
        assert!(!hint.contains("damaged") && hint.contains("lacking"), "{hint}");
    }
    let Err(ModelError::Format(cut)) = Gpt2Config::from_json("{\"vocab_size\": 11", Path::new("config.json")) else {
        panic!("no JSON")
    };
    assert!(cut.hint().is_some_and(|hint| hint.contains("damaged")), "{cut}");
}

/// The shapes as Meta published them: the keys of each model's config.json that decide what is computed.
#[test]
fn the_presets_are_the_published_configurations() {
    let llama3 = |factor: f64| {
        json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192})
    };
    let none = json!(null);
    for (name, context, [hidden, inner, layers, heads, head_dim], tied, scaling) in [
        ("llama-3-8b", 8192, [4096, 14336, 32, 32, 128], false, none.clone()),
        ("llama-3-70b", 8192, [8192, 28672, 80, 64, 128], false, none),
        ("llama-3.1-8b", 131_072, [4096, 14336, 32, 32, 128], false, llama3(8.0)),
        ("llama-3.1-70b", 131_072, [8192, 28672, 80, 64, 128], false, llama3(8.0)),
        ("llama-3.1-405b", 131_072, [16384, 53248, 126, 128, 128], false, llama3(8.0)),
        ("llama-3.2-1b", 131_072, [2048, 8192, 16, 32, 64], true, llama3(32.0)),
        ("llama-3.2-3b", 131_072, [3072, 8192, 28, 24, 128], true, llama3(32.0)),
        ("llama-3.3-70b", 131_072, [8192, 28672, 80, 64, 128], false, llama3(8.0)),
    ] {
        let published = json!({"model_type": "llama", "vocab_size": 128_256, "max_position_embeddings": context,
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": head_dim, "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0, "rope_scaling": scaling, "tie_word_embeddings": tied, "hidden_act": "silu",
            "attention_bias": false, "mlp_bias": false});
        assert_eq!(LlamaConfig::preset(name).expect(name), read(&published).expect(name), "{name}");
    }
}

#[test]
fn a_way_through_files_leaves_base_scaling_and_epsilon_as_they_are() {
    let folder = Folder::new("ways");
    let shape = |scaling: RopeScaling| LlamaShape {
        vocab_size: 11,
        n_layer: 1,
        n_head: 2,
        n_kv_head: 2,
        head_size: 8,
        n_embd: 16,
        n_ff: 12,
        context_len: 16,
        norm_eps: 1e-6,
        tied: true,
        rope: Rope { theta: 1e6, scaling },
    };
    let llama3 =
        RopeScaling::Llama3 { factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 4096.0 };
    for (name, scaling) in [("linear", RopeScaling::Linear { factor: 8.0 }), ("llama3", llama3)] {
        let weights: LlamaWeights = Weights::random(&LlamaConfig::new(shape(scaling)).expect("valid"), 3);
        let (first, file, second) = (folder.path(name), folder.path("m.gguf"), folder.path(&format!("{name}-again")));
        let special = SpecialIds::default();
        hugging_face::save(&weights, &special, WeightFormat::F32, &first).expect("written");
        let from_folder = LlamaCheckpoint::open(&first).expect("read");
        assert_eq!(from_folder.config, weights.config);
        gguf::save(&from_folder, "m", Vec::new(), WeightFormat::F32, &file).expect("written");
        let from_file = LlamaCheckpoint::open(&file).expect("read");
        assert_eq!((from_file.config.rope.theta, from_file.config.norm_eps), (1e6, 1e-6));
        let gaps = from_file.config.rope.frequencies(8);
        let close = gaps.iter().zip(weights.config.rope.frequencies(8)).all(|(a, b)| (a / b - 1.0).abs() < 1e-6);
        assert!(close, "{name}: {gaps:?}");
        hugging_face::save(&from_file, &special, WeightFormat::F32, &second).expect("written");
        assert_eq!(LlamaCheckpoint::open(&second).expect("read").config, weights.config);
    }
}

fn llama3([factor, low_freq_factor, high_freq_factor, original_context]: [f32; 4]) -> Rope {
    let scaling = RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context };
    Rope { theta: 500_000.0, scaling }
}

/// As a GGUF file keeps it.
fn as_divisors(rope: &Rope, head_size: usize, original_context: Option<usize>) -> Rope {
    let divisors = rope.divisors(head_size).expect("scaled");
    Rope { theta: rope.theta, scaling: RopeScaling::Divisors { divisors, original_context } }
}

#[test]
fn the_rule_behind_divisors_comes_back_with_the_context_that_the_file_names() {
    for (head_size, numbers) in [
        (128, [8.0, 1.0, 4.0, 8192.0]),
        (64, [32.0, 1.0, 4.0, 8192.0]),
        (64, [16.0, 1.0, 4.0, 5000.0]),
        (128, [4.0, 1.5, 6.0, 4096.0]),
        (128, [8.0, 0.5, 2.0, 8192.0]),
        (8, [4.0, 1.0, 4.0, 512.0]),
    ] {
        let (rope, context) = (llama3(numbers), numbers[3] as usize);
        assert_eq!(rope.original_context(), Some(context));
        let found = as_divisors(&rope, head_size, Some(context)).with_regimes(head_size);
        assert_eq!(found, Some(rope), "{head_size}");
    }
}

#[test]
fn without_a_context_the_frequencies_come_back() {
    // Powers of two and the published factors as they were; others by numbers that mean the same.
    let usual = llama3([4.0, 1.0, 4.0, 2048.0]);
    assert_eq!(as_divisors(&usual, 64, None).with_regimes(64), Some(usual));
    for (head_size, numbers) in [(128, [8.0, 1.5, 6.0, 4000.0]), (64, [8.0, 1.0, 4.0, 5000.0])] {
        let rope = llama3(numbers);
        let found = as_divisors(&rope, head_size, None).with_regimes(head_size).expect("a rule");
        let (ours, theirs) = (found.frequencies(head_size), rope.frequencies(head_size));
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (a / b - 1.0).abs() < 1e-5), "{found:?}");
    }
}

#[test]
fn divisors_of_another_rule_have_no_regimes() {
    let mut divisors = llama3([8.0, 1.0, 4.0, 8192.0]).divisors(128).expect("scaled");
    divisors[30] *= 1.01;
    let scaling = RopeScaling::Divisors { divisors, original_context: Some(8192) };
    assert_eq!(Rope { theta: 500_000.0, scaling }.with_regimes(128), None);
}
