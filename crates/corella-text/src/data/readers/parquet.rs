//! A string column of Parquet files, row group by row group, page by page.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use bytes::Bytes;
use parquet::basic::{Compression, ConvertedType, LogicalType, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::ByteArrayType;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::parquet_pages::Pages;
use super::{Place, ProblemKind, TEXT_FIELDS};
use crate::data::document::Flow;

/// Rows decoded at a time.
const ROWS: usize = 64;
/// A column of a row group may claim this size,
const FREE: i64 = 256 << 20;
/// and beyond it this multiple of its compressed size.
const RATIO: i64 = 1000;

/// Reads the text column of a file.
pub(super) fn read(place: &mut Place<'_>, file: &File) -> Flow {
    let opened = guarded(|| SerializedFileReader::new(Whole::of(file)?));
    let reader = match opened {
        Ok(reader) => reader,
        Err(what) => return place.report(ProblemKind::Damaged, 0, 0, what),
    };
    let column = match text_column(reader.metadata().file_metadata().schema_descr(), place.options.field.as_deref()) {
        Ok(column) => column,
        Err(what) => return place.report(ProblemKind::NoText, 0, 0, what),
    };
    let mut first_row = 0u64;
    for group in 0..reader.num_row_groups() {
        let meta = reader.metadata().row_group(group);
        let chunk = meta.column(column);
        if claims_too_much(chunk) {
            let what = format!("the column claims {} bytes", chunk.uncompressed_size());
            place.report(ProblemKind::Bomb, first_row, group as u64, what)?;
        } else if matches!(
            chunk.compression(),
            Compression::LZO | Compression::BROTLI(_) | Compression::LZ4 | Compression::LZ4_RAW
        ) {
            let what = format!("{} is not read; snappy, gzip and zstd are", chunk.compression());
            place.report(ProblemKind::Unsupported, first_row, group as u64, what)?;
        } else {
            row_group(place, &reader, group, column, first_row)?;
        }
        first_row = first_row.saturating_add(u64::try_from(meta.num_rows()).unwrap_or(0));
    }
    Flow::Continue(())
}

/// Whether a column of a row group claims more than its compressed size makes likely.
pub(super) fn claims_too_much(chunk: &ColumnChunkMetaData) -> bool {
    chunk.uncompressed_size() > FREE.max(chunk.compressed_size().saturating_mul(RATIO))
}

fn row_group(
    place: &mut Place<'_>,
    reader: &SerializedFileReader<Whole>,
    group: usize,
    column: usize,
    first_row: u64,
) -> Flow {
    let mut row = first_row;
    let descriptor = reader.metadata().file_metadata().schema_descr().column(column);
    let present = descriptor.max_def_level();
    let opened = guarded(|| {
        let pages = Pages::new(reader.get_row_group(group)?.get_column_page_reader(column)?, present > 0);
        Ok(ColumnReaderImpl::<ByteArrayType>::new(descriptor, Box::new(pages)))
    });
    let mut rows = match opened {
        Ok(rows) => rows,
        Err(what) => return place.report(ProblemKind::Damaged, row, group as u64, what),
    };
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    // Rows without a text, and the first of them.
    let mut nulls: (u64, u64) = (0, 0);
    loop {
        levels.clear();
        values.clear();
        let read = guarded(|| rows.read_records(ROWS, Some(&mut levels), None, &mut values));
        let records = match read {
            Ok((0, ..)) => break,
            Ok((records, ..)) => records,
            Err(what) => return place.report(ProblemKind::Damaged, row, group as u64, what),
        };
        let mut values = values.iter();
        for i in 0..records {
            // A required column has no levels; where a level is lower than the column's depth, the value is null.
            let text = if levels.get(i).is_none_or(|l| *l == present) { values.next() } else { None };
            match text {
                Some(text) => place.bytes(row, group as u64, text.data().to_vec())?,
                None if nulls.0 == 0 => nulls = (1, row),
                None => nulls.0 += 1,
            }
            row += 1;
        }
    }
    match nulls {
        (0, _) => Flow::Continue(()),
        (count, first) => {
            let what = format!("{count} rows of the row group hold no text (null); this is the first");
            place.report(ProblemKind::NoText, first, group as u64, what)
        }
    }
}

/// The leaf column that holds the text: the one named, else the first of the usual names, else the only string column.
fn text_column(schema: &SchemaDescriptor, field: Option<&str>) -> std::result::Result<usize, String> {
    let flat = |c: &ColumnDescriptor| c.physical_type() == Type::BYTE_ARRAY && c.max_rep_level() == 0;
    let columns: Vec<_> = (0..schema.num_columns()).map(|i| (i, schema.column(i))).collect();
    let named = |name: &str| columns.iter().find(|(_, c)| flat(c) && c.path().string() == name).map(|(i, _)| *i);
    let strings: Vec<_> = columns
        .iter()
        .filter(|(_, c)| {
            flat(c)
                && (matches!(c.logical_type_ref(), Some(LogicalType::String))
                    || c.converted_type() == ConvertedType::UTF8)
        })
        .collect();
    let names = || match strings.iter().map(|(_, c)| c.path().string()).collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => "there is none outside lists and maps, which are not read".to_owned(),
        names => format!("there are: {names}"),
    };
    match field {
        Some(field) => named(field).ok_or_else(|| format!("no string column {field}; {}", names())),
        None => match (TEXT_FIELDS.iter().find_map(|f| named(f)), &strings[..]) {
            (Some(column), _) => Ok(column),
            (None, [(column, _)]) => Ok(*column),
            (None, []) => Err(format!("no string column; {}", names())),
            (None, _) => Err(format!("which column holds the text? {}", names())),
        },
    }
}

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// A panic of the library on a damaged file counts as the file's damage, and is reported as such instead of being printed:
/// mutated files show that its decoders still index out of range.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
    GUARDED.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    match outcome {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(cause) => {
            let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("it cannot be decoded").to_owned())
        }
    }
}

/// What the library reads headers from. The end of the file is an error: where a header claims a list of two thousand million
/// elements, the library would go on asking for each.
pub(super) struct Header(BufReader<File>);

impl Read for Header {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 if !out.is_empty() => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside a header")),
            read => Ok(read),
        }
    }
}

/// A file whose length is compared with every range before memory is taken for it.
pub(super) struct Whole {
    file: File,
    length: u64,
}

impl Whole {
    pub(super) fn of(file: &File) -> Result<Whole> {
        let length = file.metadata()?.len();
        Ok(Whole { file: file.try_clone()?, length })
    }
}

impl Length for Whole {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Whole {
    type T = Header;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Header(BufReader::new(file)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            let what = format!("{length} bytes at {start} lie beyond the file's {} bytes", self.length);
            return Err(ParquetError::EOF(what));
        }
        self.file.get_bytes(start, length)
    }
}
