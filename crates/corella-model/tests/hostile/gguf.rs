//! GGUF: rows L1 to L13, L20 and L22 of the list of files that broke other readers.

use std::path::Path;

use corella_model::formats::gguf::{Gguf, Value, open, parse};
use corella_model::formats::{Cause, Encoding, FormatError};

use crate::{Folder, cause};

/// A header that is written byte by byte, right or wrong.
struct File(Vec<u8>);

impl File {
    fn new(version: u32, tensors: u64, pairs: u64) -> File {
        let mut file = File(b"GGUF".to_vec());
        file.u32(version).u64(tensors).u64(pairs);
        file
    }
    fn u32(&mut self, v: u32) -> &mut File {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn u64(&mut self, v: u64) -> &mut File {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn text(&mut self, text: &str) -> &mut File {
        self.u64(text.len() as u64).0.extend(text.as_bytes());
        self
    }
    fn pair_u32(&mut self, key: &str, value: u32) -> &mut File {
        self.text(key).u32(4).u32(value)
    }
    fn tensor(&mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> &mut File {
        self.text(name).u32(dims.len() as u32);
        for d in dims {
            self.u64(*d);
        }
        self.u32(type_id).u64(offset)
    }
    fn data(&mut self, bytes: usize) -> &mut File {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self
    }
    fn parse(&self) -> Result<Gguf, FormatError> {
        parse(&self.0[..], self.0.len() as u64, Path::new("crafted.gguf"))
    }
    fn cause(&self) -> Cause {
        cause(self.parse())
    }
}

const F32: u32 = 0;
const Q4_0: u32 = 2;

fn one_tensor(dims: &[u64], type_id: u32, data: usize) -> File {
    let mut file = File::new(3, 1, 0);
    file.tensor("w", dims, type_id, 0).data(data);
    file
}

#[test]
fn a_right_file_is_read() {
    for version in [2, 3] {
        let mut file = File::new(version, 2, 2);
        file.pair_u32("a", 7).text("b").u32(9).u32(8).u64(2).text("x").text("");
        file.tensor("first", &[4, 2], F32, 0).tensor("second", &[32], Q4_0, 32).data(32 + 18);
        let gguf = file.parse().expect("right");
        assert_eq!(gguf.get("a").and_then(Value::as_u64), Some(7));
        assert_eq!(gguf.tensors[0].dims, [4, 2]);
        assert_eq!((gguf.tensors[1].encoding, gguf.tensors[1].bytes), (Encoding::Q4_0, 18));
        assert_eq!(gguf.tensors[1].begin as usize, file.0.len() - 18);
        // Every truncation is an error, none a panic.
        for len in 0..file.0.len() {
            assert!(parse(&file.0[..len], len as u64, Path::new("cut.gguf")).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn l1_wrong_magic_and_versions() {
    let magic = |bytes: &[u8]| cause(parse(bytes, bytes.len() as u64, Path::new("x")));
    assert!(matches!(magic(b"GGML\x01\0\0\0"), Cause::BadMagic { looks_like: None, .. }));
    let safetensors = b"\x20\0\0\0\0\0\0\0{\"a\":{\"dtype\"";
    assert!(matches!(magic(safetensors), Cause::BadMagic { looks_like: Some("a safetensors file"), .. }));
    assert!(matches!(magic(b"GG"), Cause::Truncated { .. }));
    for version in [0, 1, 4, u32::MAX] {
        assert!(matches!(
            File::new(version, 0, 0).cause(),
            Cause::UnsupportedVersion { found, .. } if found == u64::from(version)
        ));
    }
}

#[test]
fn l2_counts_beyond_the_file() {
    for count in [u64::MAX, 1 << 40, 1] {
        assert!(matches!(
            File::new(3, count, 0).cause(),
            Cause::CountTooLarge { field: "tensor_count", found, allowed: 0 } if found == count
        ));
        assert!(matches!(File::new(3, 0, count).cause(), Cause::CountTooLarge { field: "metadata_kv_count", .. }));
    }
}

#[test]
fn l3_lengths_beyond_the_file() {
    for length in [u64::MAX, u64::MAX - 7, 1 << 50, 1000] {
        let mut key = File::new(3, 0, 1);
        key.u64(length).data(64);
        assert!(matches!(key.cause(), Cause::LengthBeyondFile { found, .. } if found == length));
        let mut text = File::new(3, 0, 1);
        text.text("k").u32(8).u64(length).data(64);
        assert!(matches!(text.cause(), Cause::LengthBeyondFile { found, .. } if found == length));
        for element in [0, 4, 8, 12] {
            let mut array = File::new(3, 0, 1);
            array.text("k").u32(9).u32(element).u64(length).data(64);
            assert!(matches!(array.cause(), Cause::LengthBeyondFile { found, .. } if found == length));
        }
    }
    let mut error = File::new(3, 0, 1);
    error.text("key").u32(8).u64(99);
    let message = error.parse().expect_err("broken").to_string();
    assert_eq!(message, "crafted.gguf at byte 39: key has length 99; at most 0 is possible here");
}

#[test]
fn l4_empty_names() {
    let mut key = File::new(3, 0, 1);
    key.u64(0).u32(0).data(32);
    assert!(matches!(key.cause(), Cause::EmptyKey { field: "metadata key" }));
    let mut tensor = File::new(3, 1, 0);
    tensor.tensor("", &[1], F32, 0).data(4);
    assert!(matches!(tensor.cause(), Cause::EmptyKey { field: "tensor name" }));
}

#[test]
fn l5_duplicate_names() {
    let mut keys = File::new(3, 0, 2);
    keys.pair_u32("k", 1).pair_u32("k", 2);
    assert!(matches!(keys.cause(), Cause::DuplicateName { first: Some(24), .. }));
    let mut tensors = File::new(3, 2, 0);
    tensors.tensor("w", &[8], F32, 0).tensor("w", &[8], F32, 32).data(64);
    assert!(matches!(tensors.cause(), Cause::DuplicateName { first: Some(24), .. }));
}

#[test]
fn l6_unknown_types() {
    for id in [13, 14, 255, u32::MAX] {
        let mut value = File::new(3, 0, 1);
        value.text("k").u32(id).data(32);
        assert!(matches!(value.cause(), Cause::UnknownType { found, .. } if found == id.to_string()));
        let mut array = File::new(3, 0, 1);
        array.text("k").u32(9).u32(id).u64(1).data(32);
        assert!(matches!(array.cause(), Cause::UnknownType { .. }));
    }
    for id in [4, 5, 31, 1000, u32::MAX] {
        let found = one_tensor(&[32], id, 256).cause();
        assert!(matches!(found, Cause::UnknownType { found, .. } if found == (id as i32).to_string()));
    }
}

#[test]
fn l7_alignments() {
    for alignment in [0, 13, 1 << 17, u32::MAX] {
        let mut file = File::new(3, 0, 1);
        file.pair_u32("general.alignment", alignment);
        assert!(matches!(file.cause(), Cause::BadAlignment { found } if found == alignment.to_string()));
    }
    let mut text = File::new(3, 0, 1);
    text.text("general.alignment").u32(8).text("32");
    assert!(matches!(text.cause(), Cause::BadAlignment { .. }));
    let mut wide = File::new(3, 0, 1);
    wide.text("general.alignment").u32(10).u64(32);
    assert!(matches!(wide.cause(), Cause::BadAlignment { .. }));
}

#[test]
fn l8_dimensions_and_nesting() {
    assert!(matches!(one_tensor(&[1; 5], F32, 4).cause(), Cause::TooManyDims { found: 5, .. }));
    assert!(matches!(one_tensor(&[], F32, 4).cause(), Cause::TooManyDims { found: 0, .. }));
    let mut many = File::new(3, 1, 0);
    many.text("w").u32(u32::MAX).data(64);
    assert!(matches!(many.cause(), Cause::TooManyDims { found: u32::MAX, .. }));
    let mut nested = File::new(3, 0, 1);
    nested.text("k").u32(9);
    for _ in 0..256 {
        nested.u32(9).u64(1);
    }
    assert!(matches!(nested.cause(), Cause::NestingTooDeep { .. }));
}

#[test]
fn l9_and_l13_dimensions_of_zero() {
    for dims in [&[0u64][..], &[4, 0], &[0, 0, 0, 0], &[32, 1, 0, 1]] {
        assert!(matches!(one_tensor(dims, F32, 0).cause(), Cause::ZeroDim { .. }));
        assert!(matches!(one_tensor(dims, Q4_0, 0).cause(), Cause::ZeroDim { .. }));
    }
}

#[test]
fn l10_products_that_overflow() {
    // The published cases: the element count wraps to a small number in 64 bits.
    for dims in [
        &[4_194_305u64, 4_194_305, 211_106_198_978_564][..],
        &[u64::MAX],
        &[1 << 32, 1 << 32],
        &[1 << 62, 1],
        &[1 << 61, 4],
    ] {
        assert!(matches!(one_tensor(dims, F32, 64).cause(), Cause::SizeOverflow { .. }), "{dims:?}");
    }
    // Two tensors of bytes whose sum wraps: the first already lies outside the file.
    let mut two = File::new(3, 2, 0);
    let huge = 0x7fff_ffff_ffff_ffc0;
    two.tensor("a", &[huge], 24, 0).tensor("b", &[huge], 24, huge).data(64);
    assert!(matches!(two.cause(), Cause::TensorOutOfBounds { .. }));
    assert!(matches!(one_tensor(&[33], Q4_0, 64).cause(), Cause::RaggedRow { row: 33, block: 32, .. }));
}

#[test]
fn l11_tensors_beyond_the_file() {
    assert!(matches!(one_tensor(&[1 << 20], F32, 4).cause(), Cause::TensorOutOfBounds { data: 4, .. }));
    for offset in [32, u64::MAX, u64::MAX - 31, 1 << 63] {
        let mut file = File::new(3, 1, 0);
        file.tensor("w", &[8], F32, offset).data(32);
        assert!(matches!(file.cause(), Cause::TensorOutOfBounds { begin, .. } if begin == offset));
    }
}

#[test]
fn l12_layouts_with_holes_overlap_or_disorder() {
    let two = |first, second, data| {
        let mut file = File::new(3, 2, 0);
        file.tensor("a", &[8], F32, first).tensor("b", &[8], F32, second).data(data);
        file.cause()
    };
    for (first, second) in [(0, 0), (0, 16), (0, 64), (32, 0), (0, 33)] {
        assert!(matches!(two(first, second, 128), Cause::BadLayout { .. }), "{first} {second}");
    }
    assert!(matches!(two(0, 32, 40), Cause::TensorOutOfBounds { .. }));
}

#[test]
fn l20_big_endian_and_version_1() {
    let mut swapped = File(b"GGUF".to_vec());
    swapped.0.extend(3u32.to_be_bytes());
    swapped.u64(0).u64(0);
    assert!(matches!(swapped.cause(), Cause::UnsupportedEndianness));
    let reversed = b"FUGG\0\0\0\x03";
    let found = cause(parse(&reversed[..], 8, Path::new("x")));
    assert!(matches!(found, Cause::UnsupportedEndianness));
    assert!(matches!(File::new(1, 0, 0).cause(), Cause::UnsupportedVersion { found: 1, .. }));
}

#[test]
fn l19_a_file_cut_while_it_is_read() {
    let folder = Folder::new("cut");
    let path = folder.write("model.gguf", &one_tensor(&[1024], F32, 4096).0);
    let (file, gguf) = open(&path).expect("right");
    assert!(file.check_unchanged().is_ok());
    std::fs::OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(100)).expect("cut");
    let mut bytes = vec![0; 4096];
    assert!(matches!(cause(file.read_at(gguf.tensors[0].begin, &mut bytes)), Cause::FileChanged));
    assert!(matches!(cause(file.check_unchanged()), Cause::FileChanged));
}

#[test]
fn l22_pickles() {
    for head in [&b"\x80\x02}q\x00X\x05\0\0\0"[..], b"PK\x03\x04\0\0\0\0\0\0\0\0archive/data.pkl"] {
        let folder = Folder::new("pickle");
        let path = folder.write("model.gguf", head);
        assert!(matches!(cause(open(&path)), Cause::PickleRefused));
    }
}
