//! safetensors: row L14, and rows L10 to L13 and L22 where they touch this format.

use std::path::Path;

use corella_model::formats::Cause;
use corella_model::formats::safetensors::parse;

use crate::cause;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn broken(bytes: &[u8]) -> Cause {
    cause(parse(bytes, bytes.len() as u64, Path::new("crafted.safetensors")))
}

fn entry(dtype: &str, shape: &str, begin: &str, end: &str) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn one(dtype: &str, shape: &str, begin: &str, end: &str, data: usize) -> Cause {
    broken(&file(&format!(r#"{{"w":{}}}"#, entry(dtype, shape, begin, end)), data))
}

#[test]
fn a_right_file_is_read_and_every_cut_of_it_refused() {
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},"a":{},"empty":{},"b":{}}}   "#,
        entry("BF16", "[2,3]", "4", "16"),
        entry("F32", "[0,9]", "4", "4"),
        entry("I8", "[4]", "0", "4")
    );
    let bytes = file(&header, 16);
    let tensors = parse(&bytes[..], bytes.len() as u64, Path::new("x")).expect("right");
    assert_eq!(tensors["a"].shape, [2, 3]);
    assert_eq!((tensors["b"].begin, tensors["b"].bytes), (8 + header.len() as u64, 4));
    assert_eq!(tensors["empty"].bytes, 0, "an empty tensor has no bytes, and takes none from another");
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len], len as u64, Path::new("x")).is_err(), "{len} bytes");
    }
}

#[test]
fn l14_headers() {
    assert!(matches!(broken(&u64::MAX.to_le_bytes()), Cause::HeaderTooLarge { found: u64::MAX, allowed: 0 }));
    let mut long = file("{}", 0);
    long[0] = 3;
    assert!(matches!(broken(&long), Cause::HeaderTooLarge { found: 3, allowed: 2 }));
    // Longer than the limit, in a file that claims to hold it.
    let mut huge = 100_000_001u64.to_le_bytes().to_vec();
    huge.push(b'{');
    let found = cause(parse(&huge[..], 1 << 40, Path::new("x")));
    assert!(matches!(found, Cause::HeaderTooLarge { allowed: 100_000_000, .. }));
    assert!(matches!(broken(&[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]), Cause::HeaderNotUtf8));
    assert!(matches!(broken(&file("[]", 0)), Cause::BadJson { .. }));
    assert!(matches!(broken(&file("{} {}", 0)), Cause::BadJson { .. }));
    assert!(matches!(broken(&file(&"[".repeat(100_000), 0)), Cause::BadJson { .. }));
    let nested = format!(r#"{{"w":{}}}"#, r#"{"a":"#.repeat(100_000));
    assert!(matches!(broken(&file(&nested, 0)), Cause::BadJson { .. }));
    assert!(matches!(broken(b"GGUF\x03\0\0\0\0\0\0\0"), Cause::BadMagic { looks_like: Some("a GGUF file"), .. }));
}

#[test]
fn l14_entries() {
    let many: Vec<String> = (0..100_010).map(|i| format!(r#""{i}":{}"#, entry("U8", "[0]", "0", "0"))).collect();
    assert!(matches!(broken(&file(&format!("{{{}}}", many.join(",")), 0)), Cause::TooManyTensors { .. }));
    let twice = format!(r#"{{"w":{0},"w":{0}}}"#, entry("U8", "[4]", "0", "4"));
    assert!(matches!(broken(&file(&twice, 4)), Cause::DuplicateName { .. }));
    assert!(matches!(one("F33", "[1]", "0", "4", 4), Cause::UnknownType { .. }));
    for (begin, end) in [("-1", "4"), ("0", "-4"), ("0.5", "4"), ("0", "4e0"), ("0", "1e30")] {
        assert!(matches!(one("F32", "[1]", begin, end, 4), Cause::BadOffset { .. }), "{begin} {end}");
    }
    assert!(matches!(one("F32", "[-1]", "0", "4", 4), Cause::BadOffset { field: "shape", .. }));
    assert!(matches!(one("F32", "[2]", "0", "4", 4), Cause::SizeMismatch { expected: 8, found: 4, .. }));
    assert!(matches!(one("BF16", "[1]", "0", "4", 4), Cause::SizeMismatch { .. }));
    let metadata = r#"{"__metadata__":{"a":{"run":"this"}}}"#;
    assert!(matches!(broken(&file(metadata, 0)), Cause::BadJson { .. }));
    assert!(matches!(one("F32", "[1]", "0", "4", 9), Cause::TrailingData { bytes: 5 }));
}

#[test]
fn l10_to_l13_sizes_and_places() {
    for shape in ["[4194305,4194305,211106198978564]", "[18446744073709551615]", "[4294967296,4294967296]"] {
        assert!(matches!(one("F32", shape, "0", "4", 4), Cause::SizeOverflow { .. }), "{shape}");
    }
    assert!(matches!(one("F32", "[2]", "0", "8", 4), Cause::TensorOutOfBounds { data: 4, .. }));
    assert!(matches!(one("F32", "[1]", "8", "4", 16), Cause::TensorOutOfBounds { .. }));
    assert!(matches!(
        one("U8", "[1]", "18446744073709551614", "18446744073709551615", 4),
        Cause::TensorOutOfBounds { .. }
    ));
    let two = |a: (&str, &str), b: (&str, &str), data| {
        let header = format!(r#"{{"a":{},"b":{}}}"#, entry("U8", "[4]", a.0, a.1), entry("U8", "[4]", b.0, b.1));
        broken(&file(&header, data))
    };
    assert!(matches!(two(("0", "4"), ("0", "4"), 8), Cause::BadLayout { .. }), "shared bytes");
    assert!(matches!(two(("0", "4"), ("2", "6"), 8), Cause::BadLayout { .. }), "overlap");
    assert!(matches!(two(("0", "4"), ("6", "10"), 10), Cause::BadLayout { .. }), "a hole");
    assert!(matches!(two(("4", "8"), ("8", "12"), 12), Cause::BadLayout { first: None, .. }), "a hole in front");
}

#[test]
fn l22_a_pickle_with_this_name_and_a_polyglot() {
    assert!(matches!(broken(b"PK\x03\x04\x14\0\0\0\x08\0data.pkl"), Cause::PickleRefused));
    assert!(matches!(broken(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20"), Cause::PickleRefused));
    // A zip archive appended to a right file.
    let mut polyglot = file(&format!(r#"{{"w":{}}}"#, entry("U8", "[4]", "0", "4")), 4);
    polyglot.extend(b"PK\x05\x06\0\0");
    assert!(matches!(broken(&polyglot), Cause::TrailingData { bytes: 6 }));
}
