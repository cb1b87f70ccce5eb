//! What is promised of learning, through the public API.

#![expect(clippy::unwrap_used, reason = "test code throughout, but the lint knows only functions that are tests")]

mod bounds;
mod evaluating;
mod learning;
