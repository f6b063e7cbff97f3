//! The OpenAPI document. Written by hand; tests hold it to the routes and to the parser.

/// The document, as served at `/openapi.json`.
pub const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use corella_infer::CacheScope;
    use serde_json::{Value, json};

    use crate::app::ROUTES;
    use crate::completions::CompletionCall;

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
            let body = json!({ name: value }).to_string();
            let parsed = CompletionCall::parse(body.as_bytes(), CacheScope::default(), 0);
            assert!(parsed.is_ok(), "{body}: {:?}", parsed.err());
        }
    }
}
