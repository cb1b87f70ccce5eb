//! What producers use: submitting requests over AMQP.
//!
//! ```no_run
//! use forecastle_client::{Client, ClientOptions};
//! use forecastle_protos::v1;
//!
//! # async fn example() -> Result<(), forecastle_client::Error> {
//! let client = Client::connect(ClientOptions::new("amqp://user:password@127.0.0.1:5672/%2f")).await?;
//! let submission = client
//!     .submit(v1::SubmitRequest {
//!         request_type: "archive".to_owned(),
//!         input: Some(v1::Input { kind: Some(v1::input::Kind::Directory("/data/in".to_owned())) }),
//!         idempotency_key: "archive-of-monday".to_owned(),
//!         ..Default::default()
//!     })
//!     .await?; // the broker has it, durably
//! let accepted = submission.accepted().await?; // the frontend's ledger has it
//! let status = submission.finished().await?; // it succeeded, failed or was cancelled
//! # let _ = (accepted, status);
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! - [`client`]: [`Client`], a cheap clone that submits.
//! - [`options`]: [`ClientOptions`], where the broker is and how long to wait.
//! - [`submission`]: [`Submission`], the handle to the replies of one request.
//! - [`error`]: [`Error`]; [`Error::is_retryable`] says whether the same submission may be sent again.
//! - `channels`: the pool of confirming channels, over deadpool-lapin's pool of connections.
//! - `replies`: the one consumer of replies, on a connection of its own, which comes back by itself.
//! - `pending`: who waits for which reply.
//! - `correlation`: the correlation id, which is a function of what is submitted.
//!
//! # What always holds
//!
//! - `Ok` from [`Client::submit`] means that the broker confirmed the message: durably queued.
//! - Every submission carries an idempotency key. After a retryable error the same request with the same key may be
//!   submitted again and is the same request to the frontend.
//! - A caller that waits for a reply learns of the loss of the connection at once; it never waits for a reply that
//!   this client knows cannot come.
//! - No lapin type is in the interface, no password in an error, and no queue is declared with arguments.
//!
//! The frontend replies to whoever submitted a key last. Replies that were sent while the connection was down are lost;
//! submitting the same request again, from this [`Client`] or from another process, hears `accepted` and, once the
//! request has ended, `finished`.

mod channels;
pub mod client;
mod correlation;
pub mod error;
pub mod options;
mod pending;
mod replies;
pub mod submission;

pub use client::Client;
pub use error::{Awaited, Error};
pub use options::ClientOptions;
pub use submission::Submission;
