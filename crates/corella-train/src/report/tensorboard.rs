//! Event files that TensorBoard reads: `tensorboard/events.out.tfevents.…` in the run folder, one per session.
//!
//! A file is a sequence of TFRecords: length (u64), masked CRC-32C of the length, data, masked CRC-32C of the data, all
//! little-endian (tensorflow/core/lib/io/record_writer). The data are protocol buffers of the message `Event`
//! (tensorboard/compat/proto/event.proto); the few fields in use are written by hand.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::step_report::StepReport;

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventFile {
    /// Begins a file at `time` (seconds since 1970) for a session that goes on after `step` updates: TensorBoard drops
    /// what earlier sessions wrote beyond.
    pub fn create(dir: &Path, step: u64, time: f64) -> Result<EventFile, TrainError> {
        fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
        let path = dir.join(format!("events.out.tfevents.{:010}.corella.{}.{step}", time as u64, std::process::id()));
        let file = File::create(&path).map_err(TrainError::io(&path))?;
        let mut events = EventFile { path, file: BufWriter::new(file) };
        events.record(&Message::event(time, 0).text(FILE_VERSION, "brain.Event:2"))?;
        let start = Message::default().varint(STATUS, SESSION_START);
        events.record(&Message::event(time, step + 1).message(SESSION_LOG, &start))?;
        Ok(events)
    }

    /// Adds an update's values.
    pub fn write(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let values = [
            ("train/loss", Some(report.update.loss)),
            ("val/loss", report.val_loss),
            ("val/bits_per_byte", report.val_bits_per_byte),
            ("train/lr", Some(report.update.lr)),
            ("train/norm", Some(report.update.norm)),
            ("speed/tokens_per_second", Some(report.update.tokens_per_second)),
            ("speed/ms", Some(report.update.ms)),
            ("speed/mfu", report.mfu),
        ];
        let scores: Vec<(String, f64)> =
            report.scores.iter().map(|(name, score)| (format!("eval/{name}"), *score)).collect();
        let known = values.into_iter().filter_map(|(tag, v)| Some((tag, v?)));
        let present: Vec<(&str, f64)> = known.chain(scores.iter().map(|(tag, v)| (tag.as_str(), *v))).collect();
        self.scalars(report.update.step, report.time, &present)
    }

    /// Adds named values of a step.
    pub fn scalars(&mut self, step: u64, time: f64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut summary = Message::default();
        for (tag, value) in values {
            summary = summary.message(VALUE, &Message::default().text(TAG, tag).float(SIMPLE_VALUE, *value as f32));
        }
        self.record(&Message::event(time, step).message(SUMMARY, &summary))
    }

    /// Whether the file still stands under its name.
    pub fn is_there(&self) -> bool {
        self.path.is_file()
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        self.file.flush().map_err(TrainError::io(&self.path))
    }

    fn record(&mut self, message: &Message) -> Result<(), TrainError> {
        let length = (message.0.len() as u64).to_le_bytes();
        let parts = [&length[..], &masked(crc32c(&length)), &message.0, &masked(crc32c(&message.0))];
        self.file.write_all(&parts.concat()).map_err(TrainError::io(&self.path))
    }
}

// Field numbers: of Event,
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const SESSION_LOG: u64 = 7;
// of Summary and Summary.Value,
const VALUE: u64 = 1;
const TAG: u64 = 1;
const SIMPLE_VALUE: u64 = 2;
// of SessionLog.
const STATUS: u64 = 1;
const SESSION_START: u64 = 1;

/// A protocol buffer in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn event(time: f64, step: u64) -> Message {
        let mut message = Message::default();
        message.key(WALL_TIME, 1);
        message.0.extend(time.to_le_bytes());
        // A field that is 0 is not written.
        if step == 0 { message } else { message.varint(STEP, step) }
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.number((field << 3) | wire_type);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(mut self, field: u64, value: u64) -> Message {
        self.key(field, 0);
        self.number(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Message {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Message {
        self.key(field, 2);
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, inner: &Message) -> Message {
        self.bytes(field, &inner.0)
    }
}

/// TensorFlow's masking: a checksum of data that holds checksums would be weak.
fn masked(crc: u32) -> [u8; 4] {
    (crc.rotate_right(15).wrapping_add(0xa282_ead8)).to_le_bytes()
}

/// CRC-32C (Castagnoli), reflected, bit by bit: the records are short.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // Appendix B.4: 32 bytes of zeros, of ones, ascending; and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// fixtures/tensorboard/make.py wrote the file with TensorBoard's own writer.
    #[test]
    fn the_bytes_are_those_that_tensorboards_own_writer_makes() {
        let dir = std::env::temp_dir().join(format!("corella-events-{}", std::process::id()));
        let mut events = EventFile::create(&dir, 0, 1_700_000_000.25).expect("created");
        events.scalars(1, 1_700_000_001.5, &[("train/loss", 7.25), ("train/lr", 3e-4)]).expect("written");
        events.scalars(300, 1_700_000_002.0, &[("val/loss", f64::NAN)]).expect("written");
        events.flush().expect("flushed");
        let ours = fs::read(&events.path).expect("read");
        fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(ours, include_bytes!("../../../../fixtures/tensorboard/events.bin"));
    }
}
