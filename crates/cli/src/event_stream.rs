//! Server-sent events, as WHATWG's HTML standard defines the format: bytes in, however they are cut; events out.
//!
//! Lines end with LF, CR or CRLF. `event` and `data` are understood; `id`, `retry`, comments and unknown fields are
//! passed over. An event without data is none.

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its type; `message` if it has none.
    pub(crate) name: String,
    /// Its data; several `data` lines are joined by line feeds.
    pub(crate) data: String,
}

/// The largest event in bytes. A stream with a larger one is broken or hostile.
const LARGEST: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event is larger than this program takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {LARGEST} bytes")]
pub(crate) struct TooLarge;

/// A parser, in the state after some bytes.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The last byte was a CR: an LF now is part of the same line end.
    after_return: bool,
    /// The first line has ended.
    begun: bool,
    name: String,
    /// Each `data` line with a line feed behind it.
    data: String,
}

impl Parser {
    /// Takes the next bytes and answers the events that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in bytes {
            let continues = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if continues => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() + self.data.len() >= LARGEST => return Err(TooLarge),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let mut line = &*line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        match field {
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                self.data.push_str(&String::from_utf8_lossy(value));
                self.data.push('\n');
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        // Nothing to take away if there was no data line.
        data.pop()?;
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        chunks.iter().flat_map(|chunk| parser.feed(chunk).unwrap()).collect()
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn reads_what_the_standard_shows() {
        assert_eq!(parse(&[b"data: a\n\n"]), [event("message", "a")]);
        assert_eq!(parse(&[b"event: status\ndata: {\"a\":\ndata:1}\n\n"]), [event("status", "{\"a\":\n1}")]);
        assert_eq!(
            parse(&[b"\xef\xbb\xbfdata: a\r\r: comment\rid: 7\rretry: 10\rdata\r\r"]),
            [event("message", "a"), event("message", "")]
        );
        // Only one space is taken away; an event without data is none, and takes its name with it.
        assert_eq!(
            parse(&[b"data:  a\n\nevent: lost\n\ndata: b\n\n"]),
            [event("message", " a"), event("message", "b")]
        );
        // What is not ended by an empty line is not told.
        assert_eq!(parse(&[b"data: a\n\ndata: half"]), [event("message", "a")]);
    }

    #[test]
    fn an_event_without_end_is_refused_and_not_hoarded() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1 << 20];
        let refused = (0..20).find(|_| parser.feed(&chunk) == Err(TooLarge));
        assert_eq!(refused, Some(16));
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &chunk, b"\n"].concat();
        assert!((0..20).any(|_| parser.feed(&line) == Err(TooLarge)));
    }

    /// The format, read with the whole text at hand.
    fn reference(text: &[u8]) -> Vec<Event> {
        let text = String::from_utf8_lossy(text).replace("\r\n", "\n").replace('\r', "\n");
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let Some((whole, _)) = text.rsplit_once('\n') else { return Vec::new() };
        let (mut events, mut name, mut data) = (Vec::new(), "", Vec::new());
        for line in whole.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (line, field) {
                ("", _) => {
                    if !data.is_empty() {
                        events.push(event(if name.is_empty() { "message" } else { name }, &data.join("\n")));
                    }
                    (name, data) = ("", Vec::new());
                }
                (_, "event") => name = value,
                (_, "data") => data.push(value),
                _ => {}
            }
        }
        events
    }

    /// Bytes that are likely to mean something.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => prop::sample::select(vec!["\n", "\r", "\r\n", "data:", "data: ", "event: status", ":", " ", "id: 1", "\u{feff}", "é"])
                .prop_map(|text| text.as_bytes().to_vec()),
            2 => "[a-z{}\":]{0,6}".prop_map(String::into_bytes),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn the_same_events_come_however_the_bytes_are_cut(
            bytes in stream(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let events = parse(&chunks);
            prop_assert_eq!(&events, &parse(&[&bytes]));
            let single: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(&events, &parse(&single));
            prop_assert_eq!(events, reference(&bytes));
        }

        #[test]
        fn what_is_written_is_read_back(
            events in prop::collection::vec(("[a-z]{1,8}", "[ -~é]{0,12}(\n[ -~é]{0,12}){0,3}"), 0..6),
            end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
        ) {
            let mut text = String::new();
            for (name, data) in &events {
                text.push_str(&["event: ", name, end].concat());
                for line in data.split('\n') {
                    text.push_str(&["data: ", line, end].concat());
                }
                text.push_str(end);
            }
            let expected: Vec<_> = events.iter().map(|(name, data)| event(name, data)).collect();
            prop_assert_eq!(parse(&[text.as_bytes()]), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Parser::default().feed(&bytes);
        }
    }
}
