//! Pages of a Parquet column whose claims are compared with their bytes before the library takes memory for them.

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// Values that a page of data may claim: four times what the usual writers put into a whole row group.
const VALUES: u32 = 4 << 20;

/// The pages of a column of byte arrays that is not repeated.
pub(super) struct Pages {
    inner: Box<dyn PageReader>,
    /// Whether values may be missing, so that levels stand in front of them.
    nullable: bool,
}

impl Pages {
    pub(super) fn new(inner: Box<dyn PageReader>, nullable: bool) -> Pages {
        Pages { inner, nullable }
    }

    fn check(&self, page: Page) -> Result<Page> {
        let (values, encoding) = match &page {
            // Each value of a dictionary has a length of four bytes in front.
            Page::DictionaryPage { buf, num_values, .. } if u64::from(*num_values) * 4 > buf.len() as u64 => {
                return Err(too_many(u64::from(*num_values), "a dictionary"));
            }
            Page::DictionaryPage { .. } => return Ok(page),
            Page::DataPage { num_values, .. } | Page::DataPageV2 { num_values, .. } if *num_values > VALUES => {
                return Err(too_many(u64::from(*num_values), "a page"));
            }
            Page::DataPage { buf, encoding, .. } => (behind_levels(buf, self.nullable), *encoding),
            Page::DataPageV2 { buf, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                (usize::try_from(levels).ok().and_then(|levels| buf.get(levels..)), *encoding)
            }
        };
        let streams = match encoding {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => return Ok(page),
        };
        let mut rest = Cursor(values.ok_or_else(|| damaged("levels longer than their page"))?);
        for _ in 0..streams {
            rest.skip_deltas(page.num_values())?;
        }
        Ok(page)
    }
}

/// A page of version 1 has the levels' length in front of them.
fn behind_levels(page: &Bytes, nullable: bool) -> Option<&[u8]> {
    if !nullable {
        return Some(page);
    }
    let length = u32::from_le_bytes(*page.first_chunk()?);
    page.get(4..)?.get(usize::try_from(length).ok()?..)
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.inner.get_next_page()?.map(|page| self.check(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }
}

/// Bytes that are read from the front.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn skip(&mut self, bytes: u64) -> Result<()> {
        let rest = usize::try_from(bytes).ok().and_then(|bytes| self.0.get(bytes..));
        self.0 = rest.ok_or_else(|| damaged("deltas end early"))?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.0.first().copied().ok_or_else(|| damaged("deltas end early"))?;
        self.skip(1)?;
        Ok(byte)
    }

    /// A number in groups of seven bits, the lowest first.
    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged("a number of more than 64 bits"))
    }

    /// A stream of lengths in Parquet's DELTA_BINARY_PACKED: a header, then blocks of so many parts, each part packed in bits of
    /// its own width. It must not claim more values than its page.
    fn skip_deltas(&mut self, most: u32) -> Result<()> {
        let (block, parts, values) = (self.number()?, self.number()?, self.number()?);
        let _first = self.number()?;
        if values > u64::from(most) {
            return Err(too_many(values, "a stream of lengths"));
        }
        let part = block.checked_div(parts).unwrap_or(0);
        if part == 0 || part % 32 != 0 || part > u64::from(u32::MAX) {
            return Err(damaged("deltas in parts that are no multiple of 32"));
        }
        let mut left = values.saturating_sub(1);
        while left > 0 {
            let _least = self.number()?;
            let mut widths = Cursor(self.0);
            self.skip(parts)?;
            for _ in 0..parts.min(left.div_ceil(part)) {
                self.skip(u64::from(widths.byte()?) * part / 8)?;
                left = left.saturating_sub(part);
            }
        }
        Ok(())
    }
}

fn too_many(values: u64, what: &str) -> ParquetError {
    ParquetError::General(format!("{what} claims {values} values, more than its bytes can hold or than is read"))
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column without pages: only the check is under test.
    struct Nothing;

    impl Iterator for Nothing {
        type Item = Result<Page>;

        fn next(&mut self) -> Option<Result<Page>> {
            None
        }
    }

    impl PageReader for Nothing {
        fn get_next_page(&mut self) -> Result<Option<Page>> {
            Ok(None)
        }

        fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
            Ok(None)
        }

        fn skip_next_page(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn check(num_values: u32, encoding: Encoding, buf: &[u8], nullable: bool) -> Option<String> {
        let pages = Pages::new(Box::new(Nothing), nullable);
        let buf = Bytes::copy_from_slice(buf);
        let rle = Encoding::RLE;
        let page = Page::DataPage {
            buf,
            num_values,
            encoding,
            def_level_encoding: rle,
            rep_level_encoding: rle,
            statistics: None,
        };
        pages.check(page).err().map(|e| e.to_string())
    }

    /// Blocks of 128 in four parts; `values` equal ones take no bits at all.
    fn equal_lengths(values: u8) -> Vec<u8> {
        let header = [0x80, 0x01, 4, values, 6];
        let blocks = usize::from(values.saturating_sub(1)).div_ceil(128);
        [&header[..], &[0, 0, 0, 0, 0].repeat(blocks)].concat()
    }

    #[test]
    fn lengths_of_more_values_than_the_page_has_are_refused() {
        let (one, two) = (Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY);
        let good = equal_lengths(100);
        assert_eq!(check(100, one, &good, false), None);
        assert_eq!(check(100, two, &[&good[..], &good].concat(), false), None);
        assert!(check(99, one, &good, false).is_some_and(|e| e.contains("claims 100 values")));
        // The second stream is found behind the first, and levels in front of both are passed over.
        let second = [&good[..], &equal_lengths(101)].concat();
        assert!(check(100, two, &second, false).is_some_and(|e| e.contains("claims 101 values")));
        assert_eq!(check(101, two, &[&[2, 0, 0, 0, 200, 1], &second[..]].concat(), true), None);
        // Two thousand million lengths in eleven bytes.
        let bomb = [0x80, 0x01, 4, 0xff, 0xff, 0xff, 0xff, 0x07, 6, 0, 0];
        assert!(check(100, one, &bomb, false).is_some_and(|e| e.contains("claims 2147483647 values")));
    }

    #[test]
    fn packed_parts_are_passed_over_by_their_widths() {
        // 40 values: one block, two of its parts in use, of 3 and 5 bits a delta.
        let first = [&[0x80, 0x01, 4, 40, 6, 0, 3, 5, 0, 0][..], &[0xaa; 12 + 20]].concat();
        let two = Encoding::DELTA_BYTE_ARRAY;
        assert_eq!(check(40, two, &[&first[..], &equal_lengths(40)].concat(), false), None);
        let claimed = check(40, two, &[&first[..], &equal_lengths(41)].concat(), false);
        assert!(claimed.is_some_and(|e| e.contains("claims 41 values")));
        assert!(check(40, two, &first[..20], false).is_some_and(|e| e.contains("end early")));
        assert!(check(40, two, &[0x80, 0x01, 0, 40, 6, 0], false).is_some_and(|e| e.contains("multiple of 32")));
    }

    #[test]
    fn pages_and_dictionaries_that_claim_too_many_values_are_refused() {
        assert_eq!(check(VALUES, Encoding::PLAIN, &[], true), None);
        assert!(check(VALUES + 1, Encoding::PLAIN, &[], true).is_some());
        let pages = Pages::new(Box::new(Nothing), false);
        let dictionary = |num_values| Page::DictionaryPage {
            buf: Bytes::from_static(&[1, 0, 0, 0, b'a', 0, 0, 0, 0]),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        assert!(pages.check(dictionary(2)).is_ok());
        assert!(pages.check(dictionary(3)).is_err());
    }
}
