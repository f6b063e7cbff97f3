//! The language of a document.

use whatlang::Lang;

use super::{Rejection, Rule};

/// Bytes that are looked at: more does not make the answer surer.
const SAMPLE: usize = 4096;

/// A code that names no known language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} is no known language (ISO 639-3); {advice}")]
pub struct UnknownLanguage {
    code: String,
    advice: String,
}

/// Two letters (ISO 639-1) of the languages that are known by three.
const TWO_LETTERS: [(&str, &str); 71] = [
    ("af", "afr"),
    ("ak", "aka"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("cy", "cym"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("jv", "jav"),
    ("ka", "kat"),
    ("km", "khm"),
    ("kn", "kan"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("mk", "mkd"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("my", "mya"),
    ("nb", "nob"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("no", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tl", "tgl"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "cmn"),
    ("zu", "zul"),
];

/// The code that was meant: by two letters, perhaps with a country, by the language's English name, or in capitals.
fn meant(code: &str) -> Option<&'static str> {
    let code = code.trim().to_ascii_lowercase();
    let short = code.split(['-', '_']).next().unwrap_or_default();
    let of_two = TWO_LETTERS.iter().find(|(two, _)| *two == short).map(|(_, three)| *three);
    let named = |lang: &&Lang| lang.code() == short || lang.eng_name().eq_ignore_ascii_case(&code);
    of_two.and_then(Lang::from_code).or_else(|| Lang::all().iter().find(named).copied()).map(|lang| lang.code())
}

/// Checks a code such as `eng` or `deu`.
pub fn known_language(code: &str) -> Result<(), UnknownLanguage> {
    // The detector takes capitals too, in which a document's language is never written.
    match Lang::from_code(code).filter(|lang| lang.code() == code) {
        Some(_) => Ok(()),
        None => {
            let known = || Lang::all().iter().map(|l| l.code()).collect::<Vec<_>>().join(" ");
            let advice = match meant(code) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("known are {}", known()),
            };
            Err(UnknownLanguage { code: code.to_owned(), advice })
        }
    }
}

/// Looks at the middle of the text, where navigation and headings are rarer. Of short texts the detector's guess is often wrong:
/// another language counts only where the detector is sure of it, or where none of those wanted is written in its script.
pub(super) fn check(text: &str, languages: &[String]) -> Option<Rejection> {
    let start = text.floor_char_boundary(text.len().saturating_sub(SAMPLE) / 2);
    let end = text.floor_char_boundary((start + SAMPLE).min(text.len()));
    let sample = &text[start..end];
    let wanted = |lang: Lang| languages.iter().any(|code| code == lang.code());
    let Some(info) = whatlang::detect(sample) else {
        return Some(Rejection::new(Rule::Language, "no language"));
    };
    if wanted(info.lang()) || (!info.is_reliable() && is_possible(sample, languages)) {
        return None;
    }
    Some(Rejection::new(Rule::Language, format!("{} (confidence {:.2})", info.lang().code(), info.confidence())))
}

/// Whether a text may be in one of the languages, by its script.
fn is_possible(sample: &str, languages: &[String]) -> bool {
    let known: Vec<Lang> = languages.iter().filter_map(Lang::from_code).collect();
    let found = whatlang::Detector::with_allowlist(known.clone()).detect(sample);
    found.is_some_and(|info| known.contains(&info.lang()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_that_is_named_otherwise_is_found() {
        let advice = |code| known_language(code).expect_err(code).to_string();
        for (code, meant) in [("en", "eng"), ("de-AT", "deu"), ("English", "eng"), ("FRA", "fra"), ("zh_CN", "cmn")] {
            assert!(advice(code).ends_with(&format!("did you mean {meant}?")), "{}", advice(code));
        }
        assert!(advice("klingon").contains("known are") && advice("klingon").contains(" eng "));
        assert!(known_language("eng").is_ok());
    }

    #[test]
    fn a_guess_drops_no_text_that_may_be_in_a_language_that_is_wanted() {
        let found = |text: &str, code: &str| check(text, &[code.to_owned()]).map(|rejection| rejection.found);
        let sure =
            "Der schnelle braune Fuchs springt über den faulen Hund, der in der Sonne vor dem Haus liegt und schläft.";
        // English, taken for other languages with little confidence.
        for text in ["Add to cart", "Tea for two", "Great hotel, nice pool.", "A man, a plan, a canal."] {
            let guess = whatlang::detect(text).expect("a guess");
            println!("{text}: {} {:.2} {}", guess.lang().code(), guess.confidence(), guess.is_reliable());
            assert_eq!(found(text, "eng"), None, "{text}");
        }
        assert_eq!(found(sure, "deu"), None);
        assert!(found(sure, "eng").is_some_and(|found| found.starts_with("deu (confidence ")));
        // Too short to be sure of the language, but its script is not Latin.
        for text in ["Привет", "こんにちは"] {
            assert!(found(text, "eng").is_some(), "{text}");
        }
        assert_eq!(found("12 345", "eng").as_deref(), Some("no language"));
    }

    #[test]
    fn two_letters_stand_for_languages_that_are_known() {
        let unknown = TWO_LETTERS.iter().find(|(_, three)| Lang::from_code(*three).is_none());
        assert_eq!(unknown, None);
        let missing = Lang::all().iter().filter(|lang| TWO_LETTERS.iter().all(|(_, three)| *three != lang.code()));
        assert_eq!(missing.map(|lang| lang.code()).collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
