//! What the terminal shows while tokens come.

use std::borrow::Cow;
use std::io::{IsTerminal, Result, Write};

use corella_infer::{Event, TokenBytes, TokenLogProb};

use super::colour;
use super::columns::Columns;
use crate::cli::{Common, GenerateArgs};
use crate::printable;

/// Width of a terminal that does not say.
const WIDTH: usize = 80;

/// How continuations are shown.
#[derive(Debug)]
enum Layout {
    /// Not at all: they are printed as JSON at the end.
    Silent,
    /// One behind the other; those that come early wait in the list for their turn.
    Text { current: usize, waiting: Vec<(String, bool)> },
    /// Side by side.
    Columns(Columns),
    /// A row for each token.
    Table { rows: Vec<usize> },
}

/// Shows the events of a request.
pub struct View {
    bytes: TokenBytes,
    layout: Layout,
    n: usize,
    coloured: bool,
    /// Control characters are replaced: somebody looks at them. What a pipe takes stays as it is.
    terminal: bool,
    prompt: String,
    prompt_len: usize,
    /// Positions of the prompt are shown when their probabilities have come.
    prompt_scored: bool,
}

impl View {
    /// The view that the flags and the terminal ask for.
    pub fn new(args: &GenerateArgs, common: &Common, bytes: TokenBytes) -> View {
        let n = args.n as usize;
        let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0));
        let terminal = std::io::stdout().is_terminal();
        let columns = if n > 1 && terminal { Columns::new(n, width) } else { None };
        let layout = match columns {
            _ if common.json => Layout::Silent,
            _ if args.show_tokens => Layout::Table { rows: vec![0; n] },
            Some(columns) => Layout::Columns(columns),
            None => Layout::Text { current: 0, waiting: vec![Default::default(); n] },
        };
        let coloured = args.logprobs.is_some() && colour::shown();
        View { bytes, layout, n, coloured, terminal, prompt: String::new(), prompt_len: 0, prompt_scored: false }
    }

    /// Shows the prompt where it belongs in front of the text.
    pub fn prompt(&mut self, text: &str, ids: &[u32]) -> Result<()> {
        let text = self.shown(text);
        (self.prompt, self.prompt_len) = (text.clone().into_owned(), ids.len());
        match self.layout {
            Layout::Text { .. } => {
                self.heading(0)?;
                show(&text)
            }
            Layout::Columns(_) => show(&format!("{text}\n\n")),
            Layout::Table { .. } => show("sample position      id   prob  token\n"),
            Layout::Silent => Ok(()),
        }
    }

    /// A text as it is shown.
    fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.terminal { printable::visible(text) } else { text.into() }
    }

    fn heading(&self, sample: usize) -> Result<()> {
        if self.n > 1 { show(&format!("--- sample {} of {}\n", sample + 1, self.n)) } else { Ok(()) }
    }

    /// Shows what an event brings.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Prompt(scores) if matches!(self.layout, Layout::Table { .. }) => {
                self.prompt_scored = true;
                scores.iter().enumerate().try_for_each(|(at, token)| self.row("prompt", at, token))
            }
            Event::Piece { choice, text, tokens } => self.piece(*choice, text, tokens),
            Event::Finished { choice, .. } => self.finished(*choice),
            _ => Ok(()),
        }
    }

    fn piece(&mut self, choice: usize, text: &str, tokens: &[TokenLogProb]) -> Result<()> {
        // A piece of several tokens takes the colour of its least likely one.
        let least = tokens.iter().filter_map(|t| t.logprob).reduce(f32::min);
        let paint = |text: &str| match least {
            Some(logprob) if self.coloured => colour::by_probability(text, logprob),
            _ => text.to_owned(),
        };
        let shown = self.shown(text);
        match &mut self.layout {
            Layout::Silent => Ok(()),
            Layout::Text { current, .. } if *current == choice => show(&paint(&shown)),
            Layout::Text { waiting, .. } => {
                waiting[choice].0.push_str(&paint(&shown));
                Ok(())
            }
            Layout::Columns(columns) => {
                columns.push(choice, text, &paint);
                show(&columns.ready())
            }
            Layout::Table { rows } => {
                let first = self.prompt_len + rows[choice];
                rows[choice] += tokens.len();
                let name = (choice + 1).to_string();
                tokens.iter().enumerate().try_for_each(|(i, token)| self.row(&name, first + i, token))
            }
        }
    }

    fn finished(&mut self, choice: usize) -> Result<()> {
        match &mut self.layout {
            Layout::Columns(columns) => {
                columns.end(choice);
                show(&columns.ready())
            }
            Layout::Text { current, waiting } => {
                waiting[choice].1 = true;
                let mut next = *current;
                // The next one's turn, and of those behind it that have ended already.
                let mut turns = Vec::new();
                while next < self.n && waiting[next].1 {
                    next += 1;
                    turns.push((next, waiting.get_mut(next).map(|w| std::mem::take(&mut w.0)).unwrap_or_default()));
                }
                *current = next;
                for (sample, text) in turns {
                    show("\n")?;
                    if sample < self.n {
                        self.heading(sample)?;
                        show(&self.prompt)?;
                        show(&text)?;
                    }
                }
                Ok(())
            }
            Layout::Silent | Layout::Table { .. } => Ok(()),
        }
    }

    /// One token of the table.
    fn row(&self, sample: &str, position: usize, token: &TokenLogProb) -> Result<()> {
        // As the vocabulary has it: behind another token, so not as the first word of a text.
        let piece = |id: u32| format!("{:?}", String::from_utf8_lossy(&(self.bytes)(&[id], id)));
        let percent = |logprob: f32| format!("{:5.1}%", 100.0 * logprob.exp());
        let mut text = piece(token.id);
        if let Some(logprob) = token.logprob.filter(|_| self.coloured) {
            text = colour::by_probability(&text, logprob);
        }
        let alternatives: Vec<String> = token
            .top
            .iter()
            .map(|(id, logprob)| format!("{} {}", piece(*id), percent(*logprob).trim_start()))
            .collect();
        let probability = token.logprob.map_or("     –".to_owned(), percent);
        let likeliest =
            if alternatives.is_empty() { String::new() } else { format!("   [{}]", alternatives.join(", ")) };
        show(&format!("{sample:>6} {position:8} {:7} {probability}  {text}{likeliest}\n", token.id))
    }

    /// After the last event.
    pub fn end(&self) {
        if self.coloured {
            eprintln!("{}", colour::legend());
        }
    }
}

/// Prints at once.
fn show(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
