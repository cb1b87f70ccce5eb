//! How requests come in.
//!
//! # Map
//!
//! - [`http`]: the HTTP/JSON API.
//! - [`amqp`]: the queue `forecastle.requests`.
//! - `json`: reading JSON, the same for both.
//!
//! Both check and admit through [`crate::intake`] and answer only after the ledger's commit.

pub mod amqp;
pub mod http;
mod json;
