//! What is promised of learning, through the public API.

mod bounds;
mod learning;
