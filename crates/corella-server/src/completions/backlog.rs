//! Events on their way from the engine, which waits for nobody, to a client that may read slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use corella_infer::{Event, TokenLogProb};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of events that may wait for the reader of a stream.
pub const MOST: usize = 16 << 20;

/// More was written than the reader took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread;

/// What both ends know.
#[derive(Debug)]
struct Level {
    most: usize,
    waiting: AtomicUsize,
    full: AtomicBool,
}

/// The engine's end, one for each prompt.
#[derive(Clone, Debug)]
pub struct Inlet {
    send: UnboundedSender<(usize, Event)>,
    level: Arc<Level>,
}

/// The answer's end.
#[derive(Debug)]
pub struct Outlet {
    received: UnboundedReceiver<(usize, Event)>,
    level: Arc<Level>,
}

/// Both ends of a channel in which no more waits once `most` bytes do.
pub fn backlog(most: usize) -> (Inlet, Outlet) {
    let (send, received) = unbounded_channel();
    let level = Arc::new(Level { most, waiting: AtomicUsize::new(0), full: AtomicBool::new(false) });
    (Inlet { send, level: level.clone() }, Outlet { received, level })
}

/// Memory of an event, near enough.
fn size(event: &Event) -> usize {
    let tokens = |list: &[TokenLogProb]| -> usize {
        list.iter().map(|t| size_of::<TokenLogProb>() + size_of_val(&t.top[..])).sum()
    };
    let own = match event {
        Event::Piece { text, tokens: list, .. } => text.len() + tokens(list),
        Event::Prompt(list) => tokens(list),
        Event::Failed(why) => why.len(),
        Event::Progress { .. } | Event::Finished { .. } | Event::Done(_) => 0,
    };
    size_of::<(usize, Event)>() + own
}

impl Inlet {
    /// Hands over an event of prompt number `prompt`, without waiting. False means that nobody will read it.
    pub fn send(&self, prompt: usize, event: Event) -> bool {
        let full = || self.level.waiting.load(Ordering::Relaxed) >= self.level.most;
        if self.level.full.load(Ordering::Relaxed) || full() {
            self.level.full.store(true, Ordering::Relaxed);
            return false;
        }
        self.level.waiting.fetch_add(size(&event), Ordering::Relaxed);
        self.send.send((prompt, event)).is_ok()
    }
}

impl Outlet {
    /// The next event; none where the engine has stopped. Once too much has waited, that is all there is to say.
    pub async fn next(&mut self) -> Option<Result<(usize, Event), Unread>> {
        let (prompt, event) = self.received.recv().await?;
        self.level.waiting.fetch_sub(size(&event), Ordering::Relaxed);
        // Something was waiting when it became full, so the end comes here in any case.
        Some(if self.level.full.load(Ordering::Relaxed) { Err(Unread) } else { Ok((prompt, event)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(tokens: usize) -> Event {
        let token = TokenLogProb { top: vec![(1, -1.0); 10], ..TokenLogProb::default() };
        Event::Piece { choice: 0, text: "x".to_owned(), tokens: vec![token; tokens] }
    }

    #[tokio::test]
    async fn what_is_read_makes_room_and_what_is_not_ends_the_stream() {
        let (inlet, mut outlet) = backlog(10_000);
        for _ in 0..100 {
            // More than half of what may wait.
            assert!(inlet.send(3, piece(40)));
            assert_eq!(outlet.next().await, Some(Ok((3, piece(40)))));
        }
        let taken = (0..1000).take_while(|_| inlet.send(0, piece(4))).count();
        let bytes = taken * 4 * 10 * size_of::<(u32, f32)>();
        assert!(bytes > 2_000 && bytes < 10_000, "{taken} pieces");
        // No other prompt of the same stream adds any more.
        assert!(!inlet.clone().send(1, piece(1)));
        assert_eq!(outlet.next().await, Some(Err(Unread)));
        assert!(!inlet.send(1, piece(1)), "it does not begin again in the middle");
    }

    #[tokio::test]
    async fn one_event_may_be_larger_than_what_may_wait() {
        let (inlet, mut outlet) = backlog(10);
        assert!(inlet.send(0, piece(100)));
        assert_eq!(outlet.next().await, Some(Ok((0, piece(100)))));
        drop(inlet);
        assert_eq!(outlet.next().await, None);
    }
}
