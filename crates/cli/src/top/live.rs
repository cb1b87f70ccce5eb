//! The terminal: drawing, keys, and looking again.

use std::io;
use std::pin::Pin;
use std::time::Instant;

use crossterm::event::{Event, EventStream, KeyEventKind};
use forecastle_protos::v1;
use futures::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep_until;

use super::controls::{Controls, Reaction};
use super::screen::View;
use super::snapshot::Snapshot;
use crate::api::Api;
use crate::failure::Failure;
use crate::output::Output;
use crate::quantities::span;

/// The terminal in our hands. Dropping it gives it back as it was; a panic does so too, before it is told.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // Half of it may have been done.
            ratatui::try_restore().ok();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        ratatui::try_restore().ok();
    }
}

/// Signals that end programs. Caught, so that the terminal is given back first.
struct Endings([Signal; 3]);

impl Endings {
    fn new() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

type Look<'a> = Pin<Box<dyn Future<Output = Result<v1::FleetStatus, Failure>> + 'a>>;

/// Shows the fleet until told to stop. What may pass is shown, over the last that was known; what may not is the answer.
pub(super) async fn run(
    api: &Api,
    output: Output,
    first: v1::FleetStatus,
    mut controls: Controls,
) -> Result<(), Failure> {
    let url = api.url().to_string();
    let mut endings = Endings::new()?;
    let mut screen = Screen::take()?;
    let mut events = EventStream::new();
    let mut snapshot = Snapshot::of(&first);
    let mut looked = tokio::time::Instant::now();
    let mut trouble: Option<(Instant, Failure)> = None;
    let mut looking: Option<Look<'_>> = None;
    loop {
        let told = trouble.as_ref().map(|(since, failure)| {
            let lasts = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            format!("{failure} (for {})", span(lasts))
        });
        let view = View {
            snapshot: &snapshot,
            controls: &controls,
            url: &url,
            trouble: told.as_deref(),
            colour: output.colour,
        };
        let drawn = screen.0.draw(|frame| view.draw(frame))?;
        let (rows, page) = view.focused(drawn.area.height);
        let idle = looking.is_none();
        tokio::select! {
            () = endings.next() => return Err(Failure::Stopped),
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    match controls.press(key, page, rows) {
                        Reaction::Refresh if idle => looking = Some(Box::pin(api.fleet())),
                        Reaction::Redraw | Reaction::Refresh => {}
                        Reaction::Quit => return Ok(()),
                        Reaction::Interrupt => return Err(Failure::Stopped),
                    }
                }
                // Another size, or what means nothing here.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Failure::Stopped),
            },
            answer = answer_of(&mut looking) => {
                looking = None;
                looked = tokio::time::Instant::now();
                match answer {
                    Ok(fleet) => {
                        snapshot = Snapshot::of(&fleet);
                        trouble = None;
                    }
                    Err(failure) if failure.may_pass() => {
                        let since = trouble.take().map_or_else(Instant::now, |(since, _)| since);
                        trouble = Some((since, failure));
                    }
                    Err(failure) => return Err(failure),
                }
            }
            () = sleep_until(looked + controls.interval), if idle && !controls.paused => {
                looking = Some(Box::pin(api.fleet()));
            }
        }
    }
}

/// What the frontend answers; for ever without a question.
async fn answer_of(looking: &mut Option<Look<'_>>) -> Result<v1::FleetStatus, Failure> {
    match looking {
        Some(look) => look.as_mut().await,
        None => std::future::pending().await,
    }
}
