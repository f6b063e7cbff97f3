//! Text to token ids and back: byte-level BPE (GPT-2, Llama 3, one's own) and SentencePiece-style BPE (small Llamas).

mod bpe;
mod byte_level;
mod cache;
mod char_level;
mod chars;
mod default_split;
mod error;
mod files;
mod gpt2;
mod names;
mod pretokenize;
mod special;
mod train;
mod vocab;

use std::path::Path;
use std::sync::Arc;

pub use error::{FormatError, TokenizerError};
pub use files::GgufVocab;
pub use special::Roles;
pub use train::{TrainOptions, WordCounts};

use byte_level::ByteLevel;
use cache::PieceCache;
use char_level::{CharLevel, Prefix};
use names::{Later, Names, Passes};
use special::{Part, Specials};
use vocab::Vocab;

/// The token that marks the border between documents, in GPT-2's vocabulary and in those trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A vocabulary with its rule for encoding. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Bytes of each id; a special token has its name's bytes.
    vocab: Vocab,
    level: Level,
    /// Recognised in a text only where the caller allows it.
    specials: Specials,
    /// Added to the vocabulary by hand, and recognised in every text.
    added: Specials,
    names: Names,
    roles: Roles,
    end_of_text: u32,
    stops: Vec<u32>,
}

#[derive(Debug)]
enum Level {
    Bytes(ByteLevel),
    Chars(CharLevel),
}

impl Level {
    /// Whether a text is normalised before names are looked for later. What `Metaspace` does comes behind both.
    fn normalizes_before_names(&self) -> bool {
        matches!(self, Level::Chars(level) if !level.normalizer.unless_space)
    }

    /// A text as later names are looked for in it.
    fn written(&self, text: &str) -> String {
        if self.normalizes_before_names() { char_level::written(text) } else { text.to_owned() }
    }

    /// A name as normalising makes it.
    fn normal_name(&self, name: &str) -> String {
        match self {
            Level::Chars(level) if self.normalizes_before_names() => {
                char_level::written(&level.normalizer.apply(name, true))
            }
            _ => name.to_owned(),
        }
    }
}

impl Tokenizer {
    /// GPT-2's vocabulary: 50,257 tokens, the end of text last.
    pub fn gpt2() -> Tokenizer {
        gpt2::gpt2()
    }

    /// Trains a vocabulary: the end of text is id 0, the bytes follow, then the merges in their order.
    pub fn train<'a>(
        docs: impl IntoIterator<Item = &'a str>,
        vocab_size: usize,
        options: TrainOptions,
    ) -> Result<Tokenizer, TokenizerError> {
        let mut counts = WordCounts::new(options);
        docs.into_iter().for_each(|doc| counts.add(doc));
        counts.train(vocab_size)
    }

    /// Reads a tokenizer file of any kind that [`FormatError::UnknownKind`] names, or the one in a folder.
    pub fn load(path: &Path) -> Result<Tokenizer, TokenizerError> {
        files::load(path)
    }

    /// Reads the bytes of a tokenizer file that needs no other file beside it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Tokenizer, FormatError> {
        files::parse(bytes)
    }

    /// The vocabulary that a GGUF file carries.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Tokenizer, FormatError> {
        files::from_gguf(vocab)
    }

    /// The vocabulary as a GGUF file keeps it, for tokenizers of characters; `None` where scores cannot say what its merges say, and
    /// for byte-level ones, which keep their merges there. Of several pairs that make one token the leftmost then goes first.
    pub fn to_gguf(&self) -> Option<GgufVocab> {
        files::to_gguf(&self.inner)
    }

    /// The name by which a GGUF file calls the pattern that splits a text (`tokenizer.ggml.pre`); `None` for tokenizers of
    /// characters, which split none.
    pub fn gguf_pre(&self) -> Option<&'static str> {
        match &self.inner.level {
            Level::Bytes(level) => Some(files::pre_of(level.split)),
            Level::Chars(_) => None,
        }
    }

    /// The Hugging Face tokenizer.json with the same ids.
    ///
    /// That format gives every pair a rank of its own. Where a vocabulary of ranks or scores lets several pairs make one
    /// token, overlapping pairs of those (in runs of one character) can come out otherwise from the file, as they do from
    /// the files that `transformers` converts.
    pub fn to_json(&self) -> String {
        let mut bytes = Vec::new();
        // Nothing fails in memory, and what is written is UTF-8.
        let _ = self.write_json(&mut bytes);
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Writes [`Tokenizer::to_json`] without holding it whole.
    pub fn write_json(&self, out: impl std::io::Write) -> std::io::Result<()> {
        files::write_json(&self.inner, out)
    }

    /// The tokenizer_config.json that belongs beside it: names of the special tokens, and the class of `transformers` that
    /// takes tokenizer.json as it stands, where others build a tokenizer of their own rules from its vocabulary.
    pub fn to_config_json(&self) -> String {
        files::to_config_json(&self.inner)
    }

    /// The files of a folder that hold the tokenizer, each with its name: first what names its special tokens.
    pub fn files(&self) -> [(&'static str, String); 2] {
        [("tokenizer_config.json", self.to_config_json()), ("tokenizer.json", self.to_json())]
    }

    fn new(
        vocab: Vocab,
        level: Level,
        specials: Specials,
        added: Specials,
        later: Later,
        roles: Roles,
    ) -> Result<Tokenizer, FormatError> {
        let roles = roles.complete(&specials);
        let named = [roles.bos, roles.eos, roles.unk];
        if let Some(id) = named.into_iter().flatten().find(|id| *id as usize >= vocab.len()) {
            let token = "special token".to_owned();
            return Err(FormatError::IdOutOfRange { token, id: u64::from(id), size: vocab.len() });
        }
        let missing = || FormatError::MissingSpecial { name: "end-of-text".to_owned() };
        // A token that text can contain marks no border, and its role could not be written into a file.
        let end_of_text = roles.eos.filter(|id| specials.has(*id) || added.has(*id)).ok_or_else(missing)?;
        let stops = roles.stops(&specials);
        let names = Names::new(&level, &specials, &added, later);
        Ok(Tokenizer { inner: Arc::new(Inner { vocab, level, specials, added, names, roles, end_of_text, stops }) })
    }

    /// Ids of a text, without BOS. Strings that look like special tokens are ordinary text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        Encoder::for_text(self, text.len()).encode(text, &mut ids);
        ids
    }

    /// Ids of a text, without BOS, in which special tokens may stand by name.
    pub fn encode_with_special(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        Encoder::for_text(self, text.len()).encode_with_special(text, &mut ids);
        ids
    }

    /// Text of a whole sequence of ids; bytes that are not UTF-8 become the replacement character. A special token is
    /// written by its name.
    pub fn decode(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids)).into_owned()
    }

    /// The bytes of ids, which may begin or end inside of a character.
    pub fn decode_bytes(&self, ids: &[u32]) -> Vec<u8> {
        let prefix = self.prefix();
        let mut bytes = Vec::with_capacity(4 * ids.len());
        let mut starts = prefix != Prefix::Never;
        for id in ids {
            let token = self.token_bytes(*id);
            // The space that encoding put in front is taken away again.
            bytes.extend_from_slice(token.strip_prefix(b" ").filter(|_| starts).unwrap_or(token));
            starts = self.is_special(*id) && (prefix == Prefix::Always || (starts && prefix == Prefix::First));
        }
        bytes
    }

    /// Text of ids that go on from others.
    pub fn decode_continuation(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.token_bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes of a token; none for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.inner.vocab.get(id)
    }

    /// Bytes of a token behind others: without the space that encoding put in front of a text, where the token begins one.
    /// What a stream shows token by token is then what [`Tokenizer::decode`] gives for all of them.
    pub fn token_bytes_after(&self, before: &[u32], id: u32) -> &[u8] {
        let token = self.token_bytes(id);
        let starts = match self.prefix() {
            Prefix::Never => false,
            Prefix::Always => before.last().is_none_or(|last| self.is_special(*last)),
            Prefix::First => before.iter().all(|id| self.is_special(*id)),
        };
        if starts { token.strip_prefix(b" ").unwrap_or(token) } else { token }
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab.len()
    }

    /// The fewest tokens that a text of so many bytes can have, known without reading it. 0 where encoding may drop or join
    /// any part of a text.
    pub fn fewest_tokens(&self, bytes: usize) -> usize {
        let keeps = match &self.inner.level {
            Level::Bytes(_) => true,
            Level::Chars(level) => level.keeps_all(),
        };
        let longest = (0..self.vocab_size() as u32).map(|id| self.token_bytes(id).len()).max().unwrap_or(0);
        // A token for what is unknown stands for a character, which may be longer than its name.
        let longest = longest.max(self.inner.names.longest()).max(char::MAX.len_utf8());
        if keeps { bytes.div_ceil(longest) } else { 0 }
    }

    /// The id that marks the border between documents.
    pub fn end_of_text(&self) -> u32 {
        self.inner.end_of_text
    }

    /// The id in front of a text: BOS, or the end of the document before where the vocabulary has no BOS (GPT-2).
    pub fn start_of_text(&self) -> u32 {
        self.inner.roles.bos.unwrap_or(self.inner.end_of_text)
    }

    /// The id to put in front of a text: [`Tokenizer::start_of_text`], and none where the file says that none goes there.
    pub fn front(&self) -> Option<u32> {
        (self.inner.roles.add_bos != Some(false)).then(|| self.start_of_text())
    }

    /// Ids that end what a model writes: the end of text and, in vocabularies with turns, the end of a turn.
    pub fn stop_ids(&self) -> &[u32] {
        &self.inner.stops
    }

    /// What the file says of its special tokens.
    pub fn roles(&self) -> &Roles {
        &self.inner.roles
    }

    /// Names and ids of the special tokens, in the order of their ids.
    pub fn special_tokens(&self) -> Vec<(&str, u32)> {
        self.inner.specials.sorted()
    }

    /// Whether an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.specials.has(id)
    }

    /// What kind of vocabulary it is, in words.
    pub fn kind(&self) -> String {
        match &self.inner.level {
            Level::Bytes(level) => format!(
                "byte-level BPE, text split as {}{}",
                level.split.in_words(),
                if level.takes_whole_pieces() { ", pieces that are tokens taken whole" } else { "" }
            ),
            Level::Chars(level) => format!(
                "SentencePiece-style BPE, {}",
                if level.byte_ids().is_some() { "bytes for unknown characters" } else { "no bytes" }
            ),
        }
    }

    /// Number of pairs that merge.
    pub fn merge_count(&self) -> usize {
        match &self.inner.level {
            Level::Bytes(level) => level.merge_count(),
            Level::Chars(level) => level.merge_count(),
        }
    }

    /// How many rows of a model with `vocab_size` are padding behind this vocabulary; an error where they are too few.
    pub fn padding_in(&self, vocab_size: usize) -> Result<usize, TokenizerError> {
        let tokenizer = self.vocab_size();
        vocab_size.checked_sub(tokenizer).ok_or(TokenizerError::Mismatch { tokenizer, model: vocab_size })
    }

    /// A checksum of the vocabulary, to tell whether two tokenizers give the same ids: of what [`Tokenizer::to_json`] says
    /// of its pieces, merges, special tokens and the rules for a text. Whether BOS is to stand in front is no part of it.
    pub fn fingerprint(&self) -> String {
        checksum(|out| files::write_ids_json(&self.inner, out))
    }

    /// Whether a recorded fingerprint is this tokenizer's. Earlier versions counted in whether BOS is to stand in front, and left
    /// out which names are looked for in the normalised text.
    pub fn has_fingerprint(&self, recorded: &str) -> bool {
        let earlier = |later, front| checksum(|out| files::write_earlier_json(&self.inner, later, front, out));
        recorded == self.fingerprint()
            || recorded == earlier(true, true)
            || (!self.inner.names.later.is_empty()
                && [true, false].iter().any(|front| recorded == earlier(false, *front)))
    }

    fn prefix(&self) -> Prefix {
        match &self.inner.level {
            Level::Bytes(_) => Prefix::Never,
            Level::Chars(level) => level.normalizer.prefix,
        }
    }
}

/// The checksum of what is written, as eight digits.
fn checksum(write: impl FnOnce(&mut Checksum) -> std::io::Result<()>) -> String {
    let mut checksum = Checksum(crc32fast::Hasher::new());
    // A checksum takes everything.
    let _ = write(&mut checksum);
    format!("{:08x}", checksum.0.finalize())
}

/// Takes bytes and keeps their CRC-32.
struct Checksum(crc32fast::Hasher);

impl std::io::Write for Checksum {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Encodes many texts, and remembers the words of the earlier ones: for short documents this is a few times as fast as
/// [`Tokenizer::encode`], and gives the same ids. One for each thread; at most 1.6 MB.
#[derive(Debug)]
pub struct Encoder {
    tokenizer: Tokenizer,
    cache: PieceCache,
}

impl Encoder {
    /// An encoder that remembers much.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Encoder::for_text(tokenizer, usize::MAX >> 1)
    }

    fn for_text(tokenizer: &Tokenizer, bytes: usize) -> Self {
        Encoder { tokenizer: tokenizer.clone(), cache: PieceCache::for_text(bytes) }
    }

    /// Appends what [`Tokenizer::encode`] gives.
    pub fn encode(&mut self, text: &str, ids: &mut Vec<u32>) {
        let inner = Arc::clone(&self.tokenizer.inner);
        self.encode_named(text, &inner.names.always, ids);
    }

    /// Appends what [`Tokenizer::encode_with_special`] gives.
    pub fn encode_with_special(&mut self, text: &str, ids: &mut Vec<u32>) {
        let inner = Arc::clone(&self.tokenizer.inner);
        self.encode_named(text, &inner.names.with_special, ids);
    }

    /// Encodes what stands between tokens that stand there by name, and those by their ids.
    fn encode_named(&mut self, text: &str, names: &Passes, ids: &mut Vec<u32>) {
        let Encoder { tokenizer, cache } = self;
        let level = &tokenizer.inner.level;
        let mut first = true;
        names.at_once.cut(text, |part| match part {
            Part::Token(id) => {
                ids.push(id);
                first = false;
            }
            Part::Text(text) => encode_between(level, text, &mut first, &names.later, cache, ids),
        });
    }
}

/// Encodes a text in which tokens may stand that are looked for later; `first` says that it begins the whole text.
fn encode_between(
    level: &Level,
    text: &str,
    first: &mut bool,
    later: &Specials,
    cache: &mut PieceCache,
    ids: &mut Vec<u32>,
) {
    match level {
        Level::Bytes(level) => later.cut(text, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text) => level.encode(text, cache, ids),
        }),
        Level::Chars(chars) if level.normalizes_before_names() => {
            let normal = chars.normalizer.apply(text, *first);
            // Only names need the spaces as they are written.
            let normal = if later.is_empty() { normal } else { char_level::written(&normal).into() };
            later.cut(&normal, |part| match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => chars.encode(text, cache, ids),
            });
        }
        Level::Chars(level) => later.cut(text, |part| match part {
            Part::Token(id) => {
                ids.push(id);
                *first = false;
            }
            Part::Text(text) => level.encode(&level.normalizer.apply(text, *first), cache, ids),
        }),
    }
}
