//! What a command says, kept in a file up to a bound, with the end at hand.

use std::collections::VecDeque;
use std::path::PathBuf;

use forecastle_resources::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// The most that an event carries of it, in bytes.
pub const LONGEST_TAIL: usize = 16 << 10;

/// A log in a file. The file is made with the first byte.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    limit: u64,
    file: Option<File>,
    kept: u64,
    dropped: u64,
    tail: VecDeque<u8>,
    /// The file system's first refusal; the tail goes on.
    fault: Option<std::io::Error>,
}

impl BoundedLog {
    /// A log that keeps its first `limit` bytes in the file at `path`, which must not be there.
    pub fn new(path: PathBuf, limit: Bytes) -> Self {
        Self { path, limit: limit.get(), file: None, kept: 0, dropped: 0, tail: VecDeque::new(), fault: None }
    }

    /// Reads `stream` to its end, or until `give_up` is cancelled.
    pub async fn follow(mut self, mut stream: impl AsyncRead + Unpin, give_up: CancellationToken) -> Self {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let read = tokio::select! {
                biased;
                read = stream.read(&mut buffer) => read,
                () = give_up.cancelled() => break,
            };
            match read {
                Ok(0) | Err(_) => break,
                Ok(bytes) => self.append(&buffer[..bytes]).await,
            }
        }
        self
    }

    /// Appends.
    pub async fn append(&mut self, bytes: &[u8]) {
        let latest = &bytes[bytes.len().saturating_sub(LONGEST_TAIL)..];
        let excess = (self.tail.len() + latest.len()).saturating_sub(LONGEST_TAIL);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend(latest);
        let room = usize::try_from(self.limit - self.kept).unwrap_or(usize::MAX).min(bytes.len());
        let (keep, drop) = bytes.split_at(if self.fault.is_some() { 0 } else { room });
        self.dropped += drop.len() as u64;
        if !keep.is_empty() {
            match self.write(keep).await {
                Ok(()) => self.kept += keep.len() as u64,
                Err(error) => {
                    self.dropped += keep.len() as u64;
                    self.fault = Some(error);
                }
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::create_new(&self.path).await?),
        };
        file.write_all(bytes).await
    }

    /// Writes down what is missing, if anything is, and closes the file. What went wrong is said in the worker's log.
    pub async fn close(&mut self) {
        if let Some(file) = &mut self.file {
            let note = format!("\n[{} more bytes were not kept]\n", self.dropped);
            let note = if self.dropped > 0 { note.as_bytes() } else { &[] };
            let closed = async {
                file.write_all(note).await?;
                file.flush().await
            };
            if let Err(error) = closed.await {
                self.fault.get_or_insert(error);
            }
        }
        if let Some(error) = self.fault.take() {
            tracing::warn!(path = %self.path.display(), %error, "a log of a run is incomplete");
        }
        self.file = None;
    }

    /// The end of it: at most [`LONGEST_TAIL`] bytes of text. What is no UTF-8 is replaced.
    pub fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        // A character that was cut in two at the start is left out whole.
        let cut = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
        let start = if bytes.len() == LONGEST_TAIL { cut } else { 0 };
        let text = String::from_utf8_lossy(&bytes[start..]).into_owned();
        // A replacement is longer than what it replaces.
        let excess = text.len().saturating_sub(LONGEST_TAIL);
        let start = (excess..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text[start..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn the_file_is_bounded_and_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stderr.log");
        let log = BoundedLog::new(path.clone(), Bytes(10));
        let mut log = log.follow(&b"0123456789abc"[..], CancellationToken::new()).await;
        log.append(b"de").await;
        log.close().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123456789\n[5 more bytes were not kept]\n");
        assert_eq!(log.tail(), "0123456789abcde");
    }

    #[tokio::test]
    async fn nothing_said_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout.log");
        let mut log = BoundedLog::new(path.clone(), Bytes(10)).follow(&b""[..], CancellationToken::new()).await;
        log.close().await;
        assert!(!path.exists() && log.tail().is_empty());
    }

    fn tail_of(chunks: &[Vec<u8>]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut log = BoundedLog::new(PathBuf::new(), Bytes::ZERO);
        runtime.block_on(async {
            for chunk in chunks {
                log.append(chunk).await;
            }
        });
        log.tail()
    }

    #[test]
    fn a_character_that_is_cut_in_two_is_left_out() {
        let tail = tail_of(&["é".repeat(LONGEST_TAIL).into_bytes(), b"x".to_vec()]);
        assert!(tail.len() <= LONGEST_TAIL && tail.starts_with('é') && tail.ends_with("éx"), "{}", tail.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_tail_is_short_text_whatever_bytes_come(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..6)
        ) {
            let tail = tail_of(&chunks);
            prop_assert!(tail.len() <= LONGEST_TAIL);
            let all: Vec<u8> = chunks.concat();
            if all.is_ascii() && all.len() <= LONGEST_TAIL {
                prop_assert_eq!(tail.as_bytes(), &all[..]);
            }
        }
    }
}
