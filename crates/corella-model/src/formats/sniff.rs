//! What a file is, from its first bytes: for opening the right way, and for saying what a wrong file really is.

/// The first bytes needed to tell.
pub const HEAD: usize = 16;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GGUF, of either byte order.
    Gguf,
    /// safetensors: a length, then JSON.
    SafeTensors,
    /// A model of llm.c.
    LlmC,
    /// A pickle, bare or in a zip archive (`.pth`, `.pt`, `pytorch_model.bin`).
    Pickle,
    /// Something that is known but holds no model that is read.
    Other(&'static str),
    /// llama2.c's file has no magic: seven small numbers.
    PerhapsLlama2C,
    /// llama2.c's files of version 1 and 2, which begin with their version behind a magic.
    Llama2CLater,
    /// None of these.
    Unknown,
}

/// What stands in for a large file in a repository that was cloned without its large files.
pub const LFS_POINTER: &str = "a Git LFS pointer instead of the file itself";
/// How a safetensors file is called.
pub const SAFETENSORS: &str = "a safetensors file";
/// llm.c's magic numbers.
pub const LLMC_MODEL: u32 = 20240326;
/// llama2.c's magic from version 1 on: "ak42".
const LLAMA2C_LATER: u32 = 0x616b_3432;

/// Tells by the first bytes.
pub fn sniff(head: &[u8]) -> Kind {
    let word = |at: usize| head.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match head {
        [b'G', b'G', b'U', b'F', ..] => return Kind::Gguf,
        [b'F', b'U', b'G', b'G', ..] => return Kind::Gguf,
        [b'P', b'K', 3, 4, ..] => return Kind::Pickle,
        [0x80, 2..=5, b'}' | b']' | b'(' | b'c' | b'X' | 0x8a | 0x95 | b'q', ..] => return Kind::Pickle,
        [b'l' | b'f', b'm', b'g', b'g', ..] | [b't', b'j', b'g', b'g', ..] | [b'a', b'l', b'g', b'g', ..] => {
            return Kind::Other("a llama.cpp file from before GGUF");
        }
        [0x1f, 0x8b, ..] => return Kind::Other("a gzip archive"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Kind::Other("a zstd archive"),
        [0x89, b'H', b'D', b'F', ..] => return Kind::Other("an HDF5 file"),
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] => {
            return Kind::Other(LFS_POINTER);
        }
        _ => {}
    }
    match word(0) {
        Some(LLMC_MODEL) => return Kind::LlmC,
        Some(LLAMA2C_LATER) => return Kind::Llama2CLater,
        Some(20240327) => return Kind::Other("llm.c's debug state"),
        Some(20240328) => return Kind::Other("llm.c's tokenizer"),
        Some(20240520 | 20240801) => return Kind::Other("llm.c's token shards"),
        Some(20240522) => return Kind::Other("llm.c's evaluation questions"),
        Some(20240527) => return Kind::Other("llm.c's training state"),
        _ => {}
    }
    if head.len() > 8 && head[8] == b'{' && word(4) == Some(0) {
        return Kind::SafeTensors;
    }
    match (word(0), word(4), word(8), word(12)) {
        (Some(dim), Some(hidden), Some(layers), Some(heads))
            if (1..1 << 20).contains(&dim)
                && (1..1 << 20).contains(&hidden)
                && (1..1 << 12).contains(&layers)
                && (1..1 << 12).contains(&heads) =>
        {
            Kind::PerhapsLlama2C
        }
        _ => Kind::Unknown,
    }
}

impl Kind {
    /// How the kind is called where a file of another kind was expected.
    pub fn describe(self) -> Option<&'static str> {
        match self {
            Kind::Gguf => Some("a GGUF file"),
            Kind::SafeTensors => Some(SAFETENSORS),
            Kind::LlmC => Some("a model of llm.c"),
            Kind::Pickle => Some("a pickle"),
            Kind::Other(what) => Some(what),
            Kind::Llama2CLater => Some("a model of llama2.c"),
            Kind::PerhapsLlama2C | Kind::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_kind() {
        assert_eq!(sniff(b"GGUF\x03\0\0\0"), Kind::Gguf);
        assert_eq!(sniff(b"\x10\0\0\0\0\0\0\0{\"a\":"), Kind::SafeTensors);
        assert_eq!(sniff(&[&20240326u32.to_le_bytes()[..], &[3, 0, 0, 0]].concat()), Kind::LlmC);
        assert_eq!(sniff(b"\x80\x02}q\x00"), Kind::Pickle);
        assert_eq!(sniff(b"PK\x03\x04data.pkl"), Kind::Pickle);
        let words: Vec<u8> = [64u32, 172, 5, 8].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(sniff(&words), Kind::PerhapsLlama2C);
        assert_eq!(sniff(b"24ka\x01\0\0\0"), Kind::Llama2CLater);
        assert_eq!(sniff(b""), Kind::Unknown);
        assert!(matches!(sniff(b"tjgg\x03"), Kind::Other(_)));
    }
}
