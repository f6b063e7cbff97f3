//! Token shards and their indexes, written piece by piece, so that a shard need not fit into memory and an interrupted one
//! can be taken up again.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::folder::PARTIAL;
use super::super::index::{ENTRY, INDEX_HEADER, IndexEntry, index_header};
use super::super::shard::{HEADER, shard_header, token_bytes, width};
use super::super::{DataError, Origin};
use super::PrepareReport;

/// Where the writing of a part stands: all that is needed to go on behind a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartState {
    /// Documents, tokens and bytes so far.
    pub size: PrepareReport,
    /// Finished shards, and their checksums.
    pub shards: Vec<(String, u32)>,
    /// Finished indexes, and their checksums.
    pub indexes: Vec<(String, u32)>,
    /// Tokens in the open shard.
    tokens: u64,
    /// CRC-32 of these.
    tokens_crc: u32,
    /// Entries in the open index.
    entries: u64,
    /// CRC-32 of these.
    entries_crc: u32,
}

/// Writes the shards of one part of the data.
pub(super) struct PartWriter {
    dir: PathBuf,
    /// `train` or `val`.
    part: &'static str,
    vocab_size: usize,
    shard_tokens: u64,
    state: PartState,
    open: Option<OpenShard>,
}

/// The two files that are being written, under their temporary names.
struct OpenShard {
    tokens: Checked,
    index: Checked,
}

/// A file with the checksum of all that was written behind its header.
struct Checked {
    out: BufWriter<File>,
    path: PathBuf,
    crc: crc32fast::Hasher,
}

impl Checked {
    /// Opens a file to go on behind `length` bytes that have the checksum `crc`.
    fn open(path: PathBuf, header: usize, length: u64, crc: u32) -> Result<Checked, DataError> {
        let whole = header as u64 + length;
        if length > 0 && fs::metadata(&path).map_or(0, |m| m.len()) < whole {
            let why =
                format!("fewer than the {whole} bytes that were noted; remove the folder .prepare to begin again");
            return Err(DataError::bad(&path, why));
        }
        let open = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            // What was written since the last note goes; it will come again.
            file.set_len(whole)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(DataError::io(&path))?;
        let crc = crc32fast::Hasher::new_with_initial_len(crc, length);
        Ok(Checked { out: BufWriter::with_capacity(1 << 18, file), path, crc })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.crc.update(bytes);
        self.out.write_all(bytes).map_err(DataError::io(&self.path))
    }

    fn sync(&mut self) -> Result<(), DataError> {
        self.out.flush().and_then(|()| self.out.get_ref().sync_data()).map_err(DataError::io(&self.path))
    }

    /// Puts the header in front, syncs, and gives the file its name. Returns the checksum of the whole.
    fn finish(mut self, header: &[u8], name: &Path) -> Result<u32, DataError> {
        let mut write = || -> std::io::Result<()> {
            self.out.flush()?;
            let file = self.out.get_mut();
            file.seek(SeekFrom::Start(0))?;
            file.write_all(header)?;
            file.sync_all()?;
            fs::rename(&self.path, name)
        };
        write().map_err(DataError::io(&self.path))?;
        let mut whole = crc32fast::Hasher::new();
        whole.update(header);
        whole.combine(&self.crc);
        Ok(whole.finalize())
    }
}

/// The temporary name of a file.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

impl PartWriter {
    /// A writer that goes on where `state` ends; the default state is the beginning.
    pub(super) fn new(
        dir: &Path,
        part: &'static str,
        vocab_size: usize,
        shard_tokens: usize,
        state: PartState,
    ) -> Result<PartWriter, DataError> {
        let shard_tokens = (shard_tokens as u64).clamp(1, i32::MAX as u64);
        let mut writer = PartWriter { dir: dir.to_path_buf(), part, vocab_size, shard_tokens, state, open: None };
        if writer.state.tokens > 0 || writer.state.entries > 0 {
            // The shard may have been finished since the last note.
            for path in [writer.path("bin"), writer.path("idx")] {
                if !partial(&path).exists() && path.exists() {
                    fs::rename(&path, partial(&path)).map_err(DataError::io(&path))?;
                }
            }
            writer.open_shard()?;
        }
        Ok(writer)
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}_{:06}.{ending}", self.part, self.state.shards.len()))
    }

    fn open_shard(&mut self) -> Result<(), DataError> {
        let s = &self.state;
        let length = s.tokens * width(self.vocab_size) as u64;
        let tokens = Checked::open(partial(&self.path("bin")), HEADER, length, s.tokens_crc)?;
        let index = Checked::open(partial(&self.path("idx")), INDEX_HEADER, s.entries * ENTRY as u64, s.entries_crc)?;
        self.open = Some(OpenShard { tokens, index });
        Ok(())
    }

    /// Adds a document: its tokens, the end-of-text token first.
    pub(super) fn append(
        &mut self,
        origin: &Origin,
        source: u32,
        hash: u64,
        bytes: usize,
        ids: &[u32],
    ) -> Result<(), DataError> {
        let entry = IndexEntry {
            start: self.state.tokens,
            record: origin.record,
            offset: origin.offset,
            hash,
            source,
            tokens: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        };
        let mut begins = Some(entry.to_bytes());
        let mut rest = ids;
        while !rest.is_empty() {
            if self.open.is_none() {
                self.open_shard()?;
            }
            let room = (self.shard_tokens - self.state.tokens) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            if let Some(open) = &mut self.open {
                if let Some(entry) = begins.take() {
                    open.index.write(&entry)?;
                    self.state.entries += 1;
                }
                for piece in now.chunks(1 << 16) {
                    open.tokens.write(&token_bytes(piece, self.vocab_size))?;
                }
            }
            self.state.tokens += now.len() as u64;
            rest = later;
            if self.state.tokens == self.shard_tokens {
                self.finish_shard()?;
            }
        }
        self.state.size.documents += 1;
        self.state.size.tokens += ids.len() as u64;
        self.state.size.bytes += bytes as u64;
        Ok(())
    }

    fn finish_shard(&mut self) -> Result<(), DataError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let (bin, idx) = (self.path("bin"), self.path("idx"));
        let entries_crc = open.index.crc.clone().finalize();
        let index = index_header(self.state.entries, self.state.tokens, entries_crc);
        let index = open.index.finish(&index, &idx)?;
        let shard = open.tokens.finish(&shard_header(self.state.tokens as u32, self.vocab_size), &bin)?;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.state.shards.push((name(&bin), shard));
        self.state.indexes.push((name(&idx), index));
        (self.state.tokens, self.state.entries) = (0, 0);
        (self.state.tokens_crc, self.state.entries_crc) = (0, 0);
        Ok(())
    }

    /// Brings everything to the disk and tells where the writing stands.
    pub(super) fn note(&mut self) -> Result<PartState, DataError> {
        if let Some(open) = &mut self.open {
            open.tokens.sync()?;
            open.index.sync()?;
            self.state.tokens_crc = open.tokens.crc.clone().finalize();
            self.state.entries_crc = open.index.crc.clone().finalize();
        }
        Ok(self.state.clone())
    }

    /// Finishes the last shard.
    pub(super) fn finish(mut self) -> Result<PartState, DataError> {
        self.finish_shard()?;
        Ok(self.state)
    }
}
