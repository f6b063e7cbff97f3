//! tar and zip: their members, each read as a file.

use std::fs::File;
use std::io::{BufRead, BufReader};

use super::compressed::Guard;
use super::{Place, ProblemKind};
use crate::data::document::Flow;

/// Reads the members of a tar stream.
pub(super) fn tar(place: &mut Place<'_>, reader: &mut dyn BufRead) -> Flow {
    let mut archive = tar::Archive::new(reader);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(e) => return place.broken(&e, 0, 0),
    };
    for (record, entry) in (0u64..).zip(entries) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => return place.broken(&e, record, 0),
        };
        let kind = entry.header().entry_type();
        let offset = entry.raw_header_position();
        if kind.is_gnu_sparse() {
            place.report(ProblemKind::Unsupported, record, offset, "a sparse file is not read")?;
        }
        if !matches!(kind, tar::EntryType::Regular | tar::EntryType::Continuous) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if is_hidden(&name) {
            continue;
        }
        let mut reader = BufReader::with_capacity(1 << 16, entry);
        place.member(&name).stream(&mut reader)?;
    }
    Flow::Continue(())
}

/// Reads the members of a zip file.
pub(super) fn zip(place: &mut Place<'_>, file: &File) -> Flow {
    let mut archive = match zip::ZipArchive::new(BufReader::new(file)) {
        Ok(archive) => archive,
        Err(e) => return place.report(ProblemKind::Damaged, 0, 0, e.to_string()),
    };
    for i in 0..archive.len() {
        let entry = match archive.by_index(i) {
            Ok(entry) => entry,
            Err(zip::result::ZipError::UnsupportedArchive(what)) => {
                place.report(ProblemKind::Unsupported, i as u64, 0, what)?;
                continue;
            }
            Err(e) => {
                place.report(ProblemKind::Damaged, i as u64, 0, e.to_string())?;
                continue;
            }
        };
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if !entry.is_file() || is_hidden(&name) {
            continue;
        }
        let compressed = entry.compressed_size();
        let mut reader = BufReader::with_capacity(1 << 16, Guard::of_size(entry, compressed));
        place.member(&name).stream(&mut reader)?;
    }
    Flow::Continue(())
}

/// Members of editors, version control and other systems' metadata are no text of the user's.
fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') && part.len() > 1 && part != "..") || name.starts_with("__MACOSX/")
}
