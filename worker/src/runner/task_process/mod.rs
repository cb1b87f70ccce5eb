//! A process of its own for each run of an isolated task: the worker's program, started again.
//!
//! # Map
//!
//! - [`mod@serve`]: inside that process: it is ready, runs one task and ends.
//! - `conversation`: the worker's end: the order, changes of the allocation, the word to end, and the answer.
//! - `protocol`: what they tell each other, over that process's standard input, a socket.
//!
//! # What always holds
//!
//! A process serves one run: nothing of a run can be seen by the next. It is in its cage before the worker's program is
//! loaded, so all that it uses is measured and limited. It ends with its worker.

pub(crate) mod conversation;
pub(crate) mod protocol;
pub mod serve;

pub use serve::{is_asked, serve};
