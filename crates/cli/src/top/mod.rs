//! `top`: the fleet, live.
//!
//! # Map
//!
//! - [`command`]: [`Top`], its arguments, and which of the two ways it answers.
//! - [`snapshot`]: the fleet as rows, from the frontend's answer. Pure.
//! - [`controls`]: what keys have set: order, filter, pause. Pure.
//! - [`screen`]: draws a snapshot under these controls, with [`bar`]s and [`cells`]. Pure: the same inputs, the same screen.
//! - [`live`]: the terminal, keys and refreshing.
//! - [`text`]: the same as tables, once, for pipes.
//!
//! # What always holds
//!
//! However it ends (a key, a signal, an error, a panic), the terminal is as it was before.

mod bar;
mod cells;
mod command;
mod controls;
mod live;
mod screen;
mod snapshot;
mod text;

pub(crate) use command::Top;
