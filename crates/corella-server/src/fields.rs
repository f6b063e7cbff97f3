//! The fields of a JSON body, taken out one by one with their ranges; what is left over is unknown and refused.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ApiError;

/// The body of a request.
#[derive(Clone, Debug)]
pub struct Fields(Map<String, Value>);

/// Name of a JSON type, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn wrong(name: &str, value: &Value, wanted: &str) -> ApiError {
    // A value is shown where it is short; a body of megabytes is not sent back.
    let shown = value.to_string();
    let found = if shown.len() <= 40 { format!("{} {shown}", kind(value)) } else { kind(value).to_owned() };
    ApiError::bad(name, format!("`{name}` must be {wanted}, not {found}"))
}

impl Fields {
    /// Parses a body.
    pub fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Fields(map)),
            Ok(other) => Err(ApiError::bad_body(format!("the body must be a JSON object, not {}", kind(&other)))),
            Err(error) => Err(ApiError::bad_body(format!("the body is not JSON: {error}"))),
        }
    }

    /// The value of a field; null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Whether a field was sent and not taken yet.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A whole number.
    pub fn uint(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match whole(&value).and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(n) => Ok(Some(n)),
            None => Err(wrong(name, &value, &format!("a whole number from {} to {}", range.start(), range.end()))),
        }
    }

    /// A number.
    pub fn float(&mut self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().map(|x| x as f32).filter(|x| range.contains(x)) {
            Some(x) => Ok(Some(x)),
            None => Err(wrong(name, &value, &format!("a number from {} to {}", range.start(), range.end()))),
        }
    }

    /// A probability above 0, at most 1; 1 lets everything through and counts as absent.
    pub fn share(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().map(|x| x as f32).filter(|x| (f32::MIN_POSITIVE..=1.0).contains(x)) {
            Some(x) => Ok(Some(x).filter(|x| *x < 1.0)),
            None => Err(wrong(name, &value, "a number above 0, at most 1")),
        }
    }

    /// The value of a parameter that has several names. More than one may be given if they agree: nobody could say which
    /// of two values counts.
    pub fn any_of<T: PartialEq>(
        &mut self,
        names: &[&str],
        read: impl Fn(&mut Fields, &str) -> Result<Option<T>, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let mut found: Option<(&str, T)> = None;
        for name in names {
            match (&found, read(self, name)?) {
                (Some((first, one)), Some(other)) if *one != other => {
                    let message = format!("`{first}` and `{name}` are names of one parameter, and have two values");
                    return Err(ApiError::bad(name, message));
                }
                (None, Some(value)) => found = Some((name, value)),
                _ => {}
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    /// A boolean, false if absent.
    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.flag_if_given(name)?.unwrap_or(false))
    }

    /// A boolean.
    pub fn flag_if_given(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(name, &other, "true or false")),
        }
    }

    /// A string.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, &other, "a string")),
        }
    }

    /// A string or a list of strings.
    pub fn strings(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        const WANTED: &str = "a string or an array of strings";
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(list)) => list
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    other => Err(wrong(name, &other, WANTED)),
                })
                .collect(),
            Some(other) => Err(wrong(name, &other, WANTED)),
        }
    }

    /// A list of token ids.
    pub fn ids(&mut self, name: &str) -> Result<Vec<u32>, ApiError> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|item| token_id(name, item)).collect(),
            Some(other) => Err(wrong(name, &other, "an array of token ids")),
        }
    }

    /// An object, as fields of its own.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields(map))),
            Some(other) => Err(wrong(name, &other, "an object")),
        }
    }

    /// Entries of an object whose keys are not known beforehand.
    pub fn entries(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_iter()
    }

    /// Takes a field out if it has this value, by which it asks for nothing. A number is the same however it is written.
    pub fn pass_over(&mut self, name: &str, neutral: &Value) {
        let neutral = |value: &Value| match (value.as_f64(), neutral.as_f64()) {
            (Some(value), Some(neutral)) => value == neutral,
            _ => value == neutral,
        };
        if self.0.get(name).is_some_and(neutral) {
            self.0.remove(name);
        }
    }

    /// Ends the reading: a field that nobody took and that is not in `harmless` is an error, because a parameter that is
    /// silently ignored gives another result than the one asked for.
    pub fn finish(self, harmless: &[&str]) -> Result<(), ApiError> {
        let unknown = self.0.iter().find(|(name, value)| !says_nothing(value) && !harmless.contains(&name.as_str()));
        match unknown {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::bad(name, format!("`{name}` is not known here; see /openapi.json"))),
        }
    }
}

/// Whether a value asks for nothing, of whatever field it is.
pub fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// A whole number. Clients in other languages write 16 as 16.0, which is taken as far as such numbers are exact.
pub fn whole(value: &Value) -> Option<i128> {
    let exact = |x: &f64| x.fract() == 0.0 && x.abs() < 9_007_199_254_740_992.0;
    let integer = value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
    integer.or_else(|| value.as_f64().filter(exact).map(|x| x as i128))
}

/// A token id; whether the model has it is checked later.
pub fn token_id(name: &str, value: &Value) -> Result<u32, ApiError> {
    let id = whole(value).and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| wrong(name, value, "a token id: a whole number from 0 on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).expect("an object")
    }

    #[test]
    fn numbers_outside_their_range_name_field_and_range() {
        for text in [r#"{"n": -1}"#, r#"{"n": 0}"#, r#"{"n": 1.5}"#, r#"{"n": 1e40}"#, r#"{"n": "2"}"#, r#"{"n": 129}"#]
        {
            let error = fields(text).uint("n", 1..=128).expect_err(text);
            assert_eq!(error.param.as_deref(), Some("n"));
            assert!(error.message.contains("from 1 to 128"), "{}", error.message);
        }
        assert_eq!(fields(r#"{"n": 2.0}"#).uint("n", 1..=128), Ok(Some(2)));
        assert_eq!(fields(r#"{"n": null}"#).uint("n", 1..=128), Ok(None));
        assert_eq!(token_id("n", &serde_json::json!(7.0)), Ok(7));
        for text in ["0", "-0.5", "1.01"] {
            let error = fields(&format!(r#"{{"top_p": {text}}}"#)).share("top_p").expect_err(text);
            assert!(error.message.starts_with("`top_p` must be a number above 0, at most 1, not"), "{}", error.message);
        }
        assert!(fields(r#"{"t": 1e999}"#.replace("1e999", "2.5").as_str()).float("t", 0.0..=2.0).is_err());
    }

    #[test]
    fn what_nobody_takes_is_refused_unless_it_says_nothing() {
        assert!(
            fields(r#"{"user": "me", "logprobs": null, "stream": false, "grammar": "", "samplers": [], "lora": {}}"#)
                .finish(&["user"])
                .is_ok()
        );
        let error = fields(r#"{"grammar": "root ::= x"}"#).finish(&["user"]).expect_err("unknown");
        assert_eq!(error.param.as_deref(), Some("grammar"));
    }

    #[test]
    fn bodies_that_are_no_objects_are_refused() {
        for text in ["", "[1]", "\"x\"", "{\"a\":", "{\"a\": \"\\ud800\"}", "{\"a\": NaN}"] {
            assert!(Fields::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Fields::parse(b"{\"a\": \"\xff\"}").is_err());
    }
}
