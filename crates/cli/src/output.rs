//! What is printed and where: answers to standard output, everything else to standard error; tables, colours.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use forecastle_protos::v1::RequestState;
use serde::Serialize;

use crate::failure::{Failure, state_name};

/// How to print.
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts of two streams, not states")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// One JSON document, or one a line.
    pub(crate) json: bool,
    /// Standard output is a terminal.
    pub(crate) terminal: bool,
    /// Standard output is a terminal that can be drawn on.
    pub(crate) screen: bool,
    /// Standard error is a terminal that can redraw.
    pub(crate) bars: bool,
    /// Colours are wanted on standard output.
    pub(crate) colour: bool,
}

impl Output {
    /// For this process's standard streams.
    pub(crate) fn new(json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal();
        Self {
            json,
            terminal,
            screen: terminal && !dumb,
            bars: io::stderr().is_terminal() && !dumb,
            colour: terminal && !dumb && !plain,
        }
    }

    /// Text that ends with its own line break, if any.
    #[expect(clippy::unused_self, reason = "whoever prints has an Output")]
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// A line of the answer.
    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// The answer as one JSON document.
    pub(crate) fn document(self, message: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(message).map_err(|error| Failure::Misunderstood(error.to_string()))?;
        self.line(&text)
    }

    /// One of several JSON documents, in a line of its own.
    pub(crate) fn document_line(self, message: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(message).map_err(|error| Failure::Misunderstood(error.to_string()))?;
        self.line(&text)
    }

    /// Something for the person in front, not part of the answer.
    #[expect(clippy::unused_self, reason = "whoever prints has an Output")]
    pub(crate) fn note(self, text: &str) {
        // A standard error that is closed leaves nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A table that fits the terminal; as wide as it needs elsewhere.
    pub(crate) fn table(self, header: &[&str], rows: Vec<Vec<Cell>>) -> Result<(), Failure> {
        self.line(&render(self, header, rows))
    }

    /// A cell in a colour, where colours are wanted.
    pub(crate) fn cell(self, text: impl AsRef<str>, tone: Tone) -> Cell {
        let cell = Cell::new(printable(text.as_ref()));
        match tone.colour() {
            Some(colour) if self.colour => cell.fg(colour),
            _ => cell,
        }
    }

    /// Text in a colour, where colours are wanted.
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A state's cell.
    pub(crate) fn state(self, state: RequestState) -> Cell {
        self.cell(state_name(state), Tone::of(state))
    }
}

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Tone {
    pub(crate) fn of(state: RequestState) -> Self {
        match state {
            RequestState::Succeeded => Self::Good,
            RequestState::Failed => Self::Bad,
            RequestState::Cancelled => Self::Doubtful,
            RequestState::Unspecified | RequestState::Admitted | RequestState::Running => Self::Plain,
        }
    }

    fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::Green),
            Self::Doubtful => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
        }
    }
}

fn render(output: Output, header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if output.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
    }
    if output.colour {
        table.enforce_styling();
    }
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A plain cell.
pub(crate) fn plain(text: impl AsRef<str>) -> Cell {
    Cell::new(printable(text.as_ref()))
}

/// Text from elsewhere, without what would steer the terminal: control characters become `\u{fffd}`, but line breaks
/// and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// `1 shard`, `2 shards`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Output = Output { json: false, terminal: false, screen: false, bars: false, colour: false };

    #[test]
    fn a_table_in_a_pipe_has_no_colours_and_no_wrapping() {
        let long = "x".repeat(300);
        let rows = vec![vec![PIPE.state(RequestState::Failed), plain(&long)], vec![plain("a"), plain("b")]];
        let text = render(PIPE, &["STATE", "WHAT"], rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "STATE   WHAT");
        assert_eq!(lines[1], format!("failed  {long}"));
        assert_eq!(lines[2], "a       b");
        assert_eq!(PIPE.paint("ok", Tone::Good), "ok");
    }

    #[test]
    fn colours_are_used_where_they_are_wanted() {
        let colourful = Output { terminal: true, colour: true, ..PIPE };
        assert_eq!(colourful.paint("ok", Tone::Good), "\x1b[32mok\x1b[0m");
        assert!(render(colourful, &[], vec![vec![colourful.state(RequestState::Failed)]]).contains("\x1b["));
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n\tc"), "a\u{fffd}[2Jb\u{fffd}\n\tc");
    }
}
