//! Which files of a data set's repository are trained on: by their names, since the hub's own interface tells no more.

use std::collections::BTreeSet;

use corella_hub::{HubError, HubName, RemoteFile};

use crate::error::{Failure, Result};

/// Endings of files that hold data, where the user names a whole repository.
const DATA: [&str; 12] =
    [".parquet", ".jsonl", ".ndjson", ".json", ".txt", ".gz", ".zst", ".bin", ".warc", ".wet", ".zip", ".tar"];
/// Files in JSON that say something of a data set, and are none of it.
const ABOUT: [&str; 12] = [
    "config.json",
    "croissant.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "metadata.json",
    "package.json",
    "special_tokens_map.json",
    "state.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];
/// Names of folders that make no set of their own of what lies in them, but for numbers behind them.
const PLAIN_FOLDERS: [&str; 7] = ["", "data", "default", "part", "parts", "shard", "shards"];
/// Most names that are given as examples.
const SHOWN: usize = 4;

/// What a file is for, by its name or that of a folder above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Train,
    Validate,
    Test,
}

/// The files that are read, and a line about those that are not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub files: Vec<RemoteFile>,
    pub left_out: Option<String>,
}

/// Selects of all files of a repository what `name` asks for: a file as it stands; of a repository, a folder or a pattern the
/// data, and of these, where names say what they are for, those to train on, unless the name itself says otherwise.
pub fn select(name: &HubName, all: &[RemoteFile]) -> Result<Selection> {
    let mut files: Vec<RemoteFile> = all.iter().filter(|file| name.selects(&file.path)).cloned().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let is_file = name.path().is_some_and(|path| files.iter().any(|file| file.path == path));
    if !is_file && (name.path().is_none() || files.iter().any(|file| is_data(&file.path))) {
        files.retain(|file| is_data(&file.path));
    }
    if files.is_empty() {
        return Err(HubError::no_match(name, all).into());
    }
    let says_purpose = name.path().is_some_and(|path| purpose(path).is_some());
    let left_out = if is_file || says_purpose { Vec::new() } else { take_out(name, &mut files)? };
    if name.path().is_none() {
        one_set(name, &files)?;
    }
    Ok(Selection { files, left_out: note(name, &left_out) })
}

fn is_data(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or(path);
    DATA.iter().any(|ending| base.ends_with(ending)) && !base.starts_with('.') && !ABOUT.contains(&base)
}

/// Takes out what is not trained on. Of files of tokens those to validate on stay: these are used for that.
fn take_out(name: &HubName, files: &mut Vec<RemoteFile>) -> Result<Vec<(Option<Purpose>, String)>> {
    let has = |wanted: Option<Purpose>| files.iter().any(|file| purpose(&file.path) == wanted);
    let (train, unnamed) = (has(Some(Purpose::Train)), has(None));
    if !train && !unnamed {
        return Err(Failure::new(format!(
            "{name} holds nothing to train on: by their names all files are to test or to validate on"
        ))
        .hint(format!("name those that you want: {}/{}", name.repository(), files[0].path)));
    }
    let mut left_out = Vec::new();
    files.retain(|file| {
        let purpose = purpose(&file.path);
        let stays = match purpose {
            Some(Purpose::Train) => true,
            Some(Purpose::Validate) => file.path.ends_with(".bin"),
            Some(Purpose::Test) => false,
            None => !train,
        };
        if !stays {
            left_out.push((purpose, file.path.clone()));
        }
        stays
    });
    Ok(left_out)
}

/// Refuses a repository of several sets: they may be versions of the same texts.
fn one_set(name: &HubName, files: &[RemoteFile]) -> Result<()> {
    let sets: BTreeSet<&str> = files.iter().map(|file| set_of(&file.path)).collect();
    if sets.len() < 2 {
        return Ok(());
    }
    let repository = name.repository();
    let names = sets.iter().map(|set| if set.is_empty() { "files outside of folders" } else { *set });
    let named = sets.iter().find(|set| !set.is_empty()).copied().unwrap_or_default();
    Err(Failure::new(format!("{repository} holds {} sets of files: {}", sets.len(), some(names, sets.len())))
        .hint(format!("name one of them: {repository}/{named}; or all: {repository}/**")))
}

/// The folder that makes a set of its own of a file; empty where none does.
fn set_of(path: &str) -> &str {
    let is_plain = |folder: &str| {
        let mut words = words(folder);
        words.all(|word| PLAIN_FOLDERS.contains(&&word[..]) || purpose_of_word(&word).is_some())
    };
    let mut end = 0;
    for (at, _) in path.match_indices('/') {
        let folder = &path[path[..at].rfind('/').map_or(0, |slash| slash + 1)..at];
        if !is_plain(folder) {
            end = at;
        }
    }
    &path[..end]
}

/// What the name of a file says it is for, else the nearest folder that says so.
fn purpose(path: &str) -> Option<Purpose> {
    path.rsplit('/').find_map(|part| words(part).find_map(|word| purpose_of_word(&word)))
}

/// The words of a name, in lower case and without numbers at their ends.
fn words(name: &str) -> impl Iterator<Item = String> + '_ {
    let words = name.split(|c: char| !c.is_alphanumeric());
    words.map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_ascii_lowercase())
}

/// The words by which the `datasets` library knows the parts, too.
fn purpose_of_word(word: &str) -> Option<Purpose> {
    match word {
        "train" | "training" => Some(Purpose::Train),
        "val" | "valid" | "validation" | "dev" => Some(Purpose::Validate),
        "test" | "testing" | "eval" | "evaluation" => Some(Purpose::Test),
        _ => None,
    }
}

/// How many files are left out, of which kind, and the first of each.
fn note(name: &HubName, left_out: &[(Option<Purpose>, String)]) -> Option<String> {
    let kinds = [
        (Some(Purpose::Validate), "to validate on"),
        (Some(Purpose::Test), "to test"),
        (None, "that do not say what for, beside those to train on"),
    ];
    let parts = kinds.iter().filter_map(|(purpose, what)| {
        let paths: Vec<&str> = left_out.iter().filter(|(of, _)| of == purpose).map(|(_, path)| &path[..]).collect();
        (!paths.is_empty()).then(|| format!("{} {what} ({})", paths.len(), some(paths.iter(), paths.len())))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| {
        let first = left_out.first().map_or("", |(_, path)| path);
        format!(
            "of {name} these files are left out by their names: {}; to read them, name them: {}/{first}",
            parts.join(", "),
            name.repository()
        )
    })
}

/// The first of some names.
fn some<T: AsRef<str>>(names: impl Iterator<Item = T>, count: usize) -> String {
    let shown: Vec<String> = names.take(SHOWN).map(|name| name.as_ref().to_owned()).collect();
    format!("{}{}", shown.join(", "), if count > SHOWN { ", …" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(name: &str, paths: &[&str]) -> std::result::Result<(Vec<String>, String), String> {
        let all: Vec<RemoteFile> =
            paths.iter().map(|path| RemoteFile { path: (*path).to_owned(), size: None }).collect();
        let name: HubName = format!("hf://datasets/o/n{name}").parse().expect("a name");
        let selection = select(&name, &all).map_err(|refused| refused.to_string())?;
        let files = selection.files.into_iter().map(|file| file.path).collect();
        Ok((files, selection.left_out.unwrap_or_default()))
    }

    #[test]
    fn what_is_to_train_on_is_taken_and_the_rest_is_told() {
        let paths = [
            "README.md",
            "config.json",
            "data/test-00000.jsonl",
            "data/train-00000-of-00002.jsonl",
            "data/train-00001-of-00002.jsonl",
            "dataset_infos.json",
            "notes.txt",
            "other-config/validation.jsonl",
        ];
        let (files, left_out) = selected("", &paths).expect("one set");
        assert_eq!(files, paths[3..5]);
        for words in
            ["1 to test (data/test-00000.jsonl)", "1 to validate on (other-config/validation.jsonl)", "(notes.txt)"]
        {
            assert!(left_out.contains(words), "{left_out}");
        }
        // What is named is taken, and a pattern or a folder is no name of a file.
        let files_of = |name: &str| selected(name, &paths).map(|(files, _)| files);
        assert_eq!(files_of("/data/test-00000.jsonl"), Ok(vec![paths[2].to_owned()]));
        assert_eq!(files_of("/**/test*"), Ok(vec![paths[2].to_owned()]));
        assert_eq!(files_of("/config.json"), Ok(vec!["config.json".to_owned()]));
        assert_eq!(files_of("/README.md"), Ok(vec!["README.md".to_owned()]));
        for name in ["/data", "/data/*", "/**"] {
            assert_eq!(files_of(name), Ok(paths[3..5].iter().map(|p| (*p).to_owned()).collect()), "{name}");
        }
        assert!(files_of("/*.parquet").is_err_and(|refused| refused.contains("no file matches")));
    }

    #[test]
    fn files_without_a_purpose_are_to_train_on_where_no_other_are() {
        let (files, left_out) = selected("", &["a.jsonl", "b.jsonl", "test.jsonl"]).expect("texts");
        assert_eq!(files, ["a.jsonl", "b.jsonl"]);
        assert!(left_out.contains("1 to test"), "{left_out}");
        assert_eq!(selected("", &["latest.txt", "contest.txt", "devil.txt"]).map(|found| found.1), Ok(String::new()));
        let refused = selected("", &["test.jsonl", "dev.jsonl"]).expect_err("nothing to train on");
        assert!(
            refused.contains("nothing to train on") && refused.contains("hf://datasets/o/n/dev.jsonl"),
            "{refused}"
        );
    }

    #[test]
    fn files_of_tokens_to_validate_on_stay() {
        let paths = ["edu_test_000000.bin", "edu_train_000001.bin", "edu_val_000000.bin"];
        let (files, left_out) = selected("", &paths).expect("tokens");
        assert_eq!(files, paths[1..]);
        assert!(left_out.contains("1 to test"), "{left_out}");
    }

    #[test]
    fn of_several_sets_one_is_to_be_named() {
        let paths =
            ["wikitext-103-v1/train-0.parquet", "wikitext-2-v1/test-0.parquet", "wikitext-2-v1/train-0.parquet"];
        let refused = selected("", &paths).expect_err("two sets");
        assert!(refused.contains("2 sets of files: wikitext-103-v1, wikitext-2-v1"), "{refused}");
        assert!(refused.contains("hf://datasets/o/n/wikitext-103-v1; or all: hf://datasets/o/n/**"), "{refused}");
        assert_eq!(selected("/wikitext-2-v1", &paths).map(|found| found.0), Ok(vec![paths[2].to_owned()]));
        assert_eq!(selected("/**", &paths).map(|found| found.0.len()), Ok(2));
        // Folders that only number or name the parts.
        let parts =
            ["data/train/000/a.jsonl", "data/train/001/a.jsonl", "train-2/part-3/b.jsonl", "default/train/x.txt"];
        assert_eq!(selected("", &parts).map(|found| found.0.len()), Ok(4));
        let sets = ["a.txt", "data/python/a.txt", "data/c/a.txt"];
        assert!(selected("", &sets).is_err_and(|refused| refused.contains("outside of folders, data/c, data/python")));
    }
}
