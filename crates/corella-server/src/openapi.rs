//! The OpenAPI document. Written by hand; tests hold it to the routes and to the parser.

/// The document, as served at `/openapi.json`.
pub const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use corella_infer::{CacheScope, RequestLimits};
    use serde_json::{Value, json};

    use crate::completions::CompletionCall;

    /// Every path that needs the key, if there is one, in the order of the documentation.
    const ROUTES: [(&str, &str); 13] = [
        ("post", "/v1/completions"),
        ("post", "/v1/chat/completions"),
        ("get", "/v1/models"),
        ("get", "/v1/models/{model}"),
        ("post", "/tokenize"),
        ("post", "/detokenize"),
        ("get", "/corella/anatomy"),
        ("get", "/corella/demos"),
        ("get", "/corella/run"),
        ("get", "/corella/transcript"),
        ("post", "/corella/trace"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
    ];

    fn document() -> Value {
        serde_json::from_str(super::DOCUMENT).expect("JSON")
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        for (method, path) in ROUTES {
            assert!(paths[path][method].is_object(), "{method} {path}");
        }
        assert_eq!(paths.len(), ROUTES.len() + 1, "and /health");
        let written = super::DOCUMENT.lines().filter(|line| line.starts_with("  \"/")).count();
        assert_eq!(written, paths.len(), "each once");
    }

    /// A value that the description allows, for each field; the parser must know all of them.
    #[test]
    fn every_field_of_a_completion_is_known_to_the_parser() {
        let document = document();
        let schema =
            &document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"];
        for (name, field) in schema["properties"].as_object().expect("fields") {
            let value = match (name.as_str(), field["type"].as_str()) {
                (_, Some("integer")) => field["maximum"].as_u64().map_or(json!(5), |most| json!(most)),
                (_, Some("number")) => json!(1),
                (_, Some("boolean")) => json!(true),
                ("stop_token_ids", _) => json!([1]),
                ("logit_bias", _) => json!({"1": 2}),
                ("stream_options", _) => json!({"include_usage": true}),
                _ => json!("text"),
            };
            let parse = |value: &Value| {
                let body = json!({ name: value, "stream": true }).to_string();
                CompletionCall::parse(body.as_bytes(), &RequestLimits::default(), CacheScope::default(), 0)
            };
            let parsed = parse(&value);
            assert!(parsed.is_ok(), "{name}: {value}: {:?}", parsed.err());
            if let Some(most) = field["maximum"].as_u64() {
                assert!(parse(&json!(most + 1)).is_err(), "{name}: more than {most}");
            }
        }
    }
}
