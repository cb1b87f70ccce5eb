//! A request until it ends: over its event stream, which is opened again when it breaks, and by asking while there is
//! none.

use std::time::Duration;

use forecastle_protos::v1;
use tokio::time::{Instant, sleep, timeout};

use crate::event_stream::{Event, Parser};
use crate::failure::{Failure, has_ended};

/// Where a request can be followed.
pub(crate) trait Source {
    /// The bytes of a stream of events.
    type Chunks: Chunks;
    /// Opens the stream.
    async fn events(&self) -> Result<Self::Chunks, Failure>;
    /// Asks once.
    async fn status(&self) -> Result<v1::RequestStatus, Failure>;
}

/// Bytes as they come.
pub(crate) trait Chunks {
    /// The next of them, or `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure>;
}

/// How often the status is asked for while there is no stream.
const POLL: Duration = Duration::from_secs(1);

/// A stream that is silent for so long is dead: the frontend sends something every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);

/// The pauses before a broken stream is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A frontend that has not answered for so long is not waited for any more.
const GIVE_UP: Duration = Duration::from_mins(2);

/// Follows a request until it ends, and answers its last status. `update` sees every status that differs from the one
/// before. Fails when the frontend refuses to tell, or has not answered for two minutes; the request goes on then.
pub(crate) async fn follow<S: Source>(
    source: &S,
    mut update: impl FnMut(&v1::RequestStatus) -> Result<(), Failure>,
) -> Result<v1::RequestStatus, Failure> {
    let mut last: Option<v1::RequestStatus> = None;
    // True if that is the end.
    let mut see = |status: &v1::RequestStatus| {
        if last.as_ref() != Some(status) {
            update(status)?;
            last = Some(status.clone());
        }
        Ok::<bool, Failure>(has_ended(status.state()))
    };
    let mut heard_at = Instant::now();
    let mut pause = FIRST_PAUSE;
    // `None` once the frontend has said that it has no streams.
    let mut stream_at = Some(Instant::now());
    loop {
        if stream_at.is_some_and(|at| at <= Instant::now()) {
            match stream(source, &mut see).await {
                Streamed::Ended(status) => return Ok(*status),
                Streamed::Refused(failure) => return Err(failure),
                Streamed::Unsupported => stream_at = None,
                Streamed::Broke { heard } => {
                    if heard {
                        heard_at = Instant::now();
                        pause = FIRST_PAUSE;
                    }
                    stream_at = Some(Instant::now() + pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        match source.status().await {
            Ok(status) => {
                heard_at = Instant::now();
                if see(&status)? {
                    return Ok(status);
                }
            }
            Err(failure) if failure.may_pass() && heard_at.elapsed() < GIVE_UP => {}
            Err(failure) => return Err(failure),
        }
        let until_stream = stream_at.map(|at| at.saturating_duration_since(Instant::now()));
        sleep(until_stream.unwrap_or(POLL).min(POLL)).await;
    }
}

/// What became of a stream.
enum Streamed {
    /// The request ended.
    Ended(Box<v1::RequestStatus>),
    /// It broke; `heard` if it told something before.
    Broke { heard: bool },
    /// There are no streams here.
    Unsupported,
    /// The frontend refuses to tell.
    Refused(Failure),
}

async fn stream<S: Source>(source: &S, see: &mut impl FnMut(&v1::RequestStatus) -> Result<bool, Failure>) -> Streamed {
    let mut chunks = match source.events().await {
        Ok(chunks) => chunks,
        Err(failure) if failure.may_pass() => return Streamed::Broke { heard: false },
        // Something in between that does not let streams through; asking may work.
        Err(Failure::Misunderstood(_)) => return Streamed::Unsupported,
        Err(Failure::Rejected(detail)) if ["method-not-allowed", "unknown-route"].contains(&&*detail.code) => {
            return Streamed::Unsupported;
        }
        Err(failure) => return Streamed::Refused(failure),
    };
    let mut parser = Parser::default();
    let mut heard = false;
    loop {
        let Ok(Ok(Some(chunk))) = timeout(SILENCE, chunks.next()).await else { return Streamed::Broke { heard } };
        let Ok(events) = parser.feed(&chunk) else { return Streamed::Broke { heard } };
        for event in events {
            let status = match read(&event) {
                Some(Ok(status)) => status,
                // Asking will tell.
                Some(Err(_)) => return Streamed::Broke { heard },
                None => continue,
            };
            heard = true;
            match see(&status) {
                Ok(true) => return Streamed::Ended(Box::new(status)),
                Ok(false) => {}
                Err(failure) => return Streamed::Refused(failure),
            }
        }
    }
}

/// The status in an event; `None` for events that this program does not know.
fn read(event: &Event) -> Option<Result<v1::RequestStatus, serde_json::Error>> {
    match &*event.name {
        "status" => Some(serde_json::from_str(&event.data)),
        "finished" => {
            Some(serde_json::from_str::<v1::Finished>(&event.data).map(|finished| finished.status.unwrap_or_default()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    use super::*;
    use v1::RequestState;

    /// What the stream does next; the last is done again and again.
    #[derive(Clone)]
    enum Act {
        Refuse,
        Fail(&'static str),
        /// Tells these statuses, then ends.
        Tell(Vec<v1::RequestStatus>),
        Garbage,
        Silent,
    }

    struct Script {
        streams: RefCell<VecDeque<Act>>,
        /// What asking answers; nothing is no connection.
        status: RefCell<Option<v1::RequestStatus>>,
        /// Becomes the status after so many questions.
        later: Option<(u32, v1::RequestStatus)>,
        asked: Cell<u32>,
        opened: Cell<u32>,
    }

    impl Script {
        fn new(streams: impl IntoIterator<Item = Act>, status: Option<v1::RequestStatus>) -> Self {
            let streams = RefCell::new(streams.into_iter().collect());
            Self { streams, status: RefCell::new(status), later: None, asked: Cell::new(0), opened: Cell::new(0) }
        }
    }

    fn lost() -> Failure {
        Failure::Unreachable { url: "http://x".to_owned(), reason: "cut".to_owned() }
    }

    fn status(state: RequestState, succeeded: u32) -> v1::RequestStatus {
        let stages = vec![v1::StageStatus { name: "work".to_owned(), shards: 4, succeeded, ..Default::default() }];
        v1::RequestStatus { state: state.into(), stages, ..Default::default() }
    }

    enum Played {
        Bytes(VecDeque<Vec<u8>>),
        Silent,
    }

    impl Chunks for Played {
        async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
            match self {
                Self::Bytes(chunks) => Ok(chunks.pop_front()),
                Self::Silent => std::future::pending().await,
            }
        }
    }

    impl Source for Script {
        type Chunks = Played;

        async fn events(&self) -> Result<Played, Failure> {
            self.opened.set(self.opened.get() + 1);
            let mut streams = self.streams.borrow_mut();
            let act = if streams.len() > 1 { streams.pop_front() } else { streams.front().cloned() };
            match act.unwrap() {
                Act::Refuse => Err(lost()),
                Act::Fail(code) => {
                    Err(Failure::Rejected(v1::ErrorDetail { code: code.to_owned(), ..Default::default() }))
                }
                Act::Silent => Ok(Played::Silent),
                Act::Garbage => Ok(Played::Bytes([b"event: status\ndata: {\n\n".to_vec()].into())),
                Act::Tell(statuses) => {
                    let text: String = statuses
                        .iter()
                        .map(|status| {
                            let ended = has_ended(status.state());
                            let name = if ended { "finished" } else { "status" };
                            let data = if ended {
                                serde_json::to_string(&v1::Finished { status: Some(status.clone()) }).unwrap()
                            } else {
                                serde_json::to_string(status).unwrap()
                            };
                            format!(": keep alive\n\nevent: other\ndata: x\n\nevent: {name}\ndata: {data}\n\n")
                        })
                        .collect::<Vec<_>>()
                        .concat();
                    // Cut where it hurts, and with half an event at the end.
                    let mut chunks: VecDeque<_> = text.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
                    chunks.push_back(b"event: status\ndata: {\"requ".to_vec());
                    Ok(Played::Bytes(chunks))
                }
            }
        }

        async fn status(&self) -> Result<v1::RequestStatus, Failure> {
            self.asked.set(self.asked.get() + 1);
            if let Some((after, later)) = &self.later
                && self.asked.get() > *after
            {
                *self.status.borrow_mut() = Some(later.clone());
            }
            self.status.borrow().clone().ok_or_else(lost)
        }
    }

    async fn followed(script: &Script) -> (Result<v1::RequestStatus, Failure>, Vec<u32>) {
        let mut seen = Vec::new();
        let end = follow(script, |status| {
            seen.push(status.stages[0].succeeded);
            Ok(())
        })
        .await;
        (end, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_breaks_in_the_middle_is_opened_again_and_nothing_is_told_twice() {
        let running = |n| status(RequestState::Running, n);
        let script = Script::new(
            [
                Act::Tell(vec![running(0), running(1)]),
                Act::Garbage,
                Act::Tell(vec![running(1), running(3)]),
                Act::Tell(vec![running(3), status(RequestState::Succeeded, 4)]),
            ],
            None,
        );
        let (end, seen) = followed(&script).await;
        assert_eq!(end.unwrap().state(), RequestState::Succeeded);
        assert_eq!(seen, [0, 1, 3, 4]);
        assert_eq!(script.opened.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn without_streams_it_asks_every_second() {
        for act in [Act::Fail("unknown-route"), Act::Fail("method-not-allowed"), Act::Refuse] {
            let mut script = Script::new([act], Some(status(RequestState::Running, 1)));
            script.later = Some((10, status(RequestState::Failed, 2)));
            let began = Instant::now();
            let (end, seen) = followed(&script).await;
            assert_eq!(end.unwrap().state(), RequestState::Failed);
            assert_eq!(seen, [1, 2]);
            assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_left_and_asking_finds_the_end() {
        let script = Script::new([Act::Silent], Some(status(RequestState::Cancelled, 0)));
        let began = Instant::now();
        assert_eq!(followed(&script).await.0.unwrap().state(), RequestState::Cancelled);
        assert_eq!(began.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frontend_that_stays_away_is_given_up_but_not_too_soon() {
        let script = Script::new([Act::Refuse], None);
        let began = Instant::now();
        let failure = followed(&script).await.0.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
        assert!((GIVE_UP..GIVE_UP + LONGEST_PAUSE).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_frontend_refuses_ends_at_once() {
        let script = Script::new([Act::Fail("unknown-request")], None);
        assert!(matches!(followed(&script).await.0.unwrap_err(), Failure::Rejected(_)));
        assert_eq!((script.opened.get(), script.asked.get()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_has_gone_ends_it() {
        let script = Script::new([Act::Tell(vec![status(RequestState::Running, 0)])], None);
        let end = follow(&script, |_| Err(Failure::Output(std::io::ErrorKind::BrokenPipe.into()))).await;
        assert!(matches!(end, Err(Failure::Output(_))));
    }
}
