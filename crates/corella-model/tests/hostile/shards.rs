//! Sharded checkpoints: row L15.

use corella_model::formats::Cause;
use corella_model::formats::safetensors::Shards;

use crate::{Folder, cause};

const INDEX: &str = "model.safetensors.index.json";

fn shard(names: &[&str]) -> Vec<u8> {
    let entries: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(i, n)| format!(r#""{n}":{{"dtype":"U8","shape":[4],"data_offsets":[{},{}]}}"#, i * 4, i * 4 + 4))
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + names.len() * 4, 7);
    bytes
}

fn index(folder: &Folder, map: &[(&str, &str)]) {
    let map: serde_json::Map<String, serde_json::Value> =
        map.iter().map(|(t, f)| ((*t).to_owned(), (*f).into())).collect();
    let index = serde_json::json!({"metadata": {"total_size": 8}, "weight_map": map});
    folder.write(INDEX, index.to_string().as_bytes());
}

#[test]
fn right_shards_are_read() {
    let folder = Folder::new("right");
    folder.write("one.safetensors", &shard(&["a", "b"]));
    folder.write("two.safetensors", &shard(&["c"]));
    index(&folder, &[("a", "one.safetensors"), ("b", "one.safetensors"), ("c", "two.safetensors")]);
    let shards = Shards::open(&folder.0).expect("right");
    assert_eq!(shards.files.len(), 2);
    assert_ne!(shards.tensors["a"].file, shards.tensors["c"].file);
}

#[test]
fn l15_missing_shards_and_tensors_in_two_or_none() {
    let folder = Folder::new("missing");
    folder.write("one.safetensors", &shard(&["a"]));
    index(&folder, &[("a", "one.safetensors"), ("b", "two.safetensors")]);
    assert!(matches!(cause(Shards::open(&folder.0)), Cause::MissingShard { shard } if shard == "two.safetensors"));
    folder.write("two.safetensors", &shard(&["a", "b"]));
    assert!(matches!(cause(Shards::open(&folder.0)), Cause::TensorInTwoShards { tensor, .. } if tensor == "a"));
    folder.write("two.safetensors", &shard(&["c"]));
    assert!(matches!(cause(Shards::open(&folder.0)), Cause::TensorInNoShard { tensor, .. } if tensor == "b"));
    // The tensor is there, but not where the index says.
    folder.write("two.safetensors", &shard(&["b"]));
    index(&folder, &[("a", "two.safetensors"), ("b", "one.safetensors")]);
    assert!(matches!(cause(Shards::open(&folder.0)), Cause::TensorInNoShard { .. }));
    let empty = Folder::new("empty");
    assert!(matches!(cause(Shards::open(&empty.0)), Cause::MissingShard { .. }));
}

#[test]
fn l15_names_that_lead_out_of_the_folder() {
    let outside = Folder::new("outside");
    let secret = outside.write("secret.safetensors", &shard(&["a"]));
    let folder = Folder::new("inside");
    std::fs::create_dir(folder.0.join("sub")).expect("made");
    folder.write("sub/in.safetensors", &shard(&["a"]));
    let absolute = secret.display().to_string();
    for name in ["../x/secret.safetensors", &absolute, "sub/in.safetensors", "..", ".", "", "a\0b", "C:x", "sub\\in"] {
        index(&folder, &[("a", name)]);
        assert!(matches!(cause(Shards::open(&folder.0)), Cause::PathEscapes { .. }), "{name:?}");
    }
}

#[cfg(unix)]
#[test]
fn l15_links_out_of_the_folder_are_refused_but_those_of_the_download_cache_are_not() {
    use std::os::unix::fs::symlink;
    let outside = Folder::new("linked");
    let secret = outside.write("secret.safetensors", &shard(&["a"]));
    let folder = Folder::new("links");
    symlink(&secret, folder.0.join("one.safetensors")).expect("linked");
    index(&folder, &[("a", "one.safetensors")]);
    assert!(matches!(cause(Shards::open(&folder.0)), Cause::PathEscapes { .. }));

    let cache = Folder::new("cache");
    let snapshot = cache.0.join("snapshots/0123");
    std::fs::create_dir_all(&snapshot).expect("made");
    std::fs::create_dir_all(cache.0.join("blobs")).expect("made");
    cache.write("blobs/abc", &shard(&["a"]));
    symlink("../../blobs/abc", snapshot.join("one.safetensors")).expect("linked");
    let index = r#"{"weight_map":{"a":"one.safetensors"}}"#;
    cache.write(&format!("snapshots/0123/{INDEX}"), index.as_bytes());
    assert_eq!(Shards::open(&snapshot).expect("the usual cache").tensors.len(), 1);
}

#[test]
fn l22_a_folder_with_a_pickle_only() {
    let folder = Folder::new("pickled");
    folder.write("pytorch_model.bin", b"PK\x03\x04");
    assert!(matches!(cause(Shards::open(&folder.0)), Cause::PickleRefused));
}

#[test]
fn a_broken_index_is_an_error() {
    let folder = Folder::new("index");
    for text in ["", "{}", "[]", r#"{"weight_map":{"a":1}}"#, r#"{"weight_map":[]}"#] {
        folder.write(INDEX, text.as_bytes());
        assert!(matches!(cause(Shards::open(&folder.0)), Cause::BadJson { .. }), "{text}");
    }
}
