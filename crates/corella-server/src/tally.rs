//! What a server has answered and how fast, for `/metrics`: answers by status, and times as histograms.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;

/// Upper ends of the buckets, in seconds.
const ENDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A histogram of times.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Times of each bucket alone; the last is for those beyond all ends.
    counts: [AtomicU64; ENDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// Adds a time, as often as `times` says.
    pub fn add(&self, time: Duration, times: u64) {
        let seconds = time.as_secs_f64();
        let bucket = ENDS.partition_point(|end| *end < seconds);
        self.counts[bucket].fetch_add(times, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros.saturating_mul(times), Ordering::Relaxed);
    }

    /// Its lines in Prometheus' text format, in which a bucket has the times of those before it too.
    fn write(&self, name: &str, text: &mut String) {
        let mut count = 0;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (i, own) in self.counts.iter().enumerate() {
            count += own.load(Ordering::Relaxed);
            let end = ENDS.get(i).map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {count}");
        }
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "{name}_sum {seconds}\n{name}_count {count}");
    }
}

/// Times of requests to the engine.
#[derive(Debug, Default)]
pub struct Times {
    /// From a request to the first text that is drawn for it.
    pub first_token: Histogram,
    /// From a token to the next of the same continuation.
    pub between_tokens: Histogram,
    /// Until a request's first token is computed.
    pub queue: Histogram,
}

impl Times {
    /// Their lines, by the names that vLLM gives them.
    pub fn write(&self, text: &mut String) {
        self.first_token.write("corella_time_to_first_token_seconds", text);
        self.between_tokens.write("corella_inter_token_latency_seconds", text);
        self.queue.write("corella_request_queue_time_seconds", text);
    }
}

/// Answers by their status.
#[derive(Debug, Default)]
pub struct Responses(Mutex<BTreeMap<u16, u64>>);

impl Responses {
    /// Counts one.
    pub fn add(&self, status: StatusCode) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(status.as_u16()).or_default() += 1;
    }

    /// Their lines.
    pub fn write(&self, text: &mut String) {
        let name = "corella_http_responses_total";
        let _ = writeln!(text, "# TYPE {name} counter");
        for (code, count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "{name}{{code=\"{code}\"}} {count}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_all_times_up_to_its_end() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_millis(10), 1);
        histogram.add(Duration::from_millis(11), 2);
        histogram.add(Duration::from_secs(1000), 1);
        let mut text = String::new();
        histogram.write("x", &mut text);
        for line in [
            "x_bucket{le=\"0.005\"} 0",
            "x_bucket{le=\"0.01\"} 1",
            "x_bucket{le=\"0.025\"} 3",
            "x_bucket{le=\"300\"} 3",
            "x_bucket{le=\"+Inf\"} 4",
            "x_sum 1000.032",
            "x_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
