//! Files of records that are more than a text: objects of JSON or rows of Parquet, whole, plain or compressed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use super::detect::{Format, detect, peek};
use super::json_stream::{Found, Objects};
use super::lines::{Line, Lines};
use super::{DEEPEST, ReadOptions, compressed, parquet_rows};
use crate::data::DataError;

/// Longest line or object that is read.
const LONGEST_LINE: usize = 64 << 20;

/// Takes records with their number in the file, from 1: of JSON lines that of the line, of other JSON that of the object,
/// of Parquet that of the row. The first
/// error of what takes them ends the reading.
pub(super) type Take<'a, E> = &'a mut dyn FnMut(usize, Value) -> Result<ControlFlow<()>, E>;

/// Hands on the records of a file as long as more are wanted. Which format it has, and whether it is packed with gzip or zstd, is
/// told by its content. Blank lines are passed over; whatever is no record ends the reading.
pub fn read_records<E: From<DataError>>(
    path: &Path,
    take: &mut dyn FnMut(usize, Value) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let name = path.to_string_lossy();
    let mut reader: Box<dyn BufRead + '_> = Box::new(BufReader::with_capacity(1 << 16, &file));
    for depth in 0..=DEEPEST {
        let head = peek(&mut *reader).map_err(DataError::io(path))?;
        let format = detect(&head, &name, depth);
        let whole = std::io::Cursor::new(head).chain(reader);
        reader = match format {
            Format::Empty => return Ok(()),
            Format::Gzip => Box::new(BufReader::with_capacity(1 << 16, compressed::of_gzip(whole))),
            Format::Zstd => {
                let window_log = ReadOptions::default().zstd_window_log;
                let inside = compressed::of_zstd(whole, window_log).map_err(DataError::io(path))?;
                Box::new(BufReader::with_capacity(1 << 16, inside))
            }
            Format::Parquet if depth == 0 => return parquet_rows::read(path, &file, take),
            Format::Jsonl | Format::Text | Format::Raw(_) => {
                return lines(path, &mut BufReader::with_capacity(1 << 16, whole), take);
            }
            Format::Json => return objects(path, &mut BufReader::with_capacity(1 << 16, whole), take),
            Format::Unsupported(what) | Format::Binary(what) => return Err(DataError::bad(path, what).into()),
            Format::Tar | Format::Zip | Format::Warc | Format::Parquet => {
                let what = "holds no records: give JSON lines, plain or packed with gzip or zstd, or Parquet";
                return Err(DataError::bad(path, what).into());
            }
        };
    }
    Err(DataError::bad(path, format!("more than {DEEPEST} layers of compression")).into())
}

fn objects<E: From<DataError>>(path: &Path, reader: &mut dyn BufRead, take: Take<'_, E>) -> Result<(), E> {
    let mut objects = Objects::of(reader, LONGEST_LINE);
    let mut object = Vec::new();
    for number in 1.. {
        let Some((_, found)) = objects.next(&mut object).map_err(DataError::io(path))? else { break };
        let what = match found {
            Found::Whole => match serde_json::from_slice(&object) {
                Ok(value) => match take(number, value)? {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(()) => break,
                },
                Err(error) => error.to_string(),
            },
            Found::TooLong => format!("longer than {LONGEST_LINE} bytes"),
            Found::Broken => "ends in the middle".to_owned(),
            Found::Other => "no JSON object".to_owned(),
        };
        return Err(DataError::bad(path, format!("object {number}: {what}")).into());
    }
    Ok(())
}

fn lines<E: From<DataError>>(path: &Path, reader: &mut dyn BufRead, take: Take<'_, E>) -> Result<(), E> {
    let mut lines = Lines::new(reader, LONGEST_LINE);
    let mut line = Vec::new();
    for number in 1.. {
        match lines.next(&mut line).map_err(DataError::io(path))? {
            Line::End => break,
            Line::TooLong => {
                return Err(DataError::bad(path, format!("line {number} is longer than {LONGEST_LINE} bytes")).into());
            }
            Line::Whole => {}
        }
        // Some editors put a mark of the byte order in front of a file.
        let body = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line[..] };
        if body.trim_ascii().is_empty() {
            continue;
        }
        let value = serde_json::from_slice(body).map_err(|e| DataError::bad(path, format!("line {number}: {e}")))?;
        if take(number, value)?.is_break() {
            break;
        }
    }
    Ok(())
}
