//! Requests over HTTP: JSON in proto3's mapping, one tenant a token, and an OpenAPI document that is generated from
//! the same table as the routes.
//!
//! # Map
//!
//! - `options`: [`HttpOptions`]; `server`: [`Server`], connections, TLS and the drain.
//! - `api`: [`Api`], what the routes answer from.
//! - `routes`: the table of operations and the router made from it; `operation`: what an operation declares.
//! - `requests`, `progress`, `shards`, `dead`, `overview`, `fleet`: the handlers.
//! - `explain`: where a shard is and why, in words. Pure.
//! - `authentication`: whose token it is; `parameter`: query and path; `body`: reading JSON; `failure`: typed errors.
//! - `openapi`, `schema`: the document, and JSON schemas from the protobuf descriptors.
//!
//! # What always holds
//!
//! Whatever arrives is answered with the JSON of a message or of an `ErrorBody` (only what is no HTTP at all is left
//! to the HTTP library). A tenant sees its own requests alone; those of others do not exist for it. No token is logged
//! or kept.

mod api;
mod authentication;
mod body;
mod dead;
mod explain;
mod failure;
mod fleet;
mod openapi;
mod operation;
mod options;
mod overview;
mod parameter;
mod progress;
mod requests;
mod routes;
mod schema;
mod server;
mod shards;
mod shares;

pub use api::Api;
pub use options::HttpOptions;
pub use server::Server;
