//! Chat templates that attack whoever runs them: row L21. They are text, and never executed.

use corella_model::exchange::{gguf, hugging_face};
use corella_model::formats::gguf::{Value, open};
use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Config, Gpt2Weights};
use corella_model::{AnyModel, SpecialIds, Weights};
use corella_ops::WeightFormat;

use crate::Folder;

/// A loop without an end in any template engine, and an escape from Python's.
const TEMPLATES: [&str; 2] = [
    "{% for a in range(10**18) %}{% for b in range(10**18) %}{{ a }}{% endfor %}{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__()[104].__init__.__globals__['sys'].modules['os'].system('touch owned') }}",
];

#[test]
fn l21_chat_templates_stay_text() {
    let folder = Folder::new("template");
    let weights: Gpt2Weights = Weights::random(&Gpt2Config::new(40, 1, 2, 32, 8).expect("valid"), 1);
    for template in TEMPLATES {
        let keys = vec![("tokenizer.chat_template".to_owned(), Value::String(template.to_owned()))];
        let path = folder.0.join("m.gguf");
        gguf::save(&weights, "m", keys, WeightFormat::F32, &path).expect("written");
        let (_, header) = open(&path).expect("a header");
        assert_eq!(header.get("tokenizer.chat_template").and_then(Value::as_str), Some(template));
        assert!(Weights::read(&Gpt2Checkpoint::open(&path).expect("a model")).expect("read") == weights);

        let dir = folder.0.join("hf");
        hugging_face::save(&weights, &SpecialIds::default(), WeightFormat::F32, &dir).expect("written");
        let config = serde_json::json!({"chat_template": template});
        std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).expect("written");
        std::fs::write(dir.join("chat_template.jinja"), template).expect("written");
        assert!(matches!(AnyModel::open(&dir), Ok(AnyModel::Gpt2(_))));
    }
    assert!(!std::path::Path::new("owned").exists());
}
