//! The program against a server that answers as told: how it reads answers, tries again, follows and exits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod asking;
mod following;
mod program;
mod reference;
mod server;
mod submitting;
mod tls;
