//! The catalogue of request types and units: one validated TOML file that the frontend and the workers both read.
//!
//! Producers name request types, never commands; the commands stand only here.
//!
//! # Map
//!
//! - [`catalogue`]: [`Catalogue`], the whole of it: parse, load, look up, hash.
//! - [`request_type`]: [`RequestType`] and its [`Stage`]s: what a producer can ask for and how it is split.
//! - [`parameter`]: declared parameters, and checking what a producer gives against them.
//! - [`mod@unit`]: [`Unit`], what one shard runs, with its reservation, clamps, limits and retry budgets.
//! - [`command`]: [`Command`], an argv of [`Template`]s, and the meaning of exit codes.
//! - [`template`]: text with placeholders; a value can never add an argument.
//! - [`duration`], [`name`]: the small types of the file's vocabulary.
//! - [`error`]: everything that is wrong with a file, all at once, each with its path.
//!
//! # What always holds
//!
//! A [`Catalogue`] exists only if the whole file is sound: every unit that a stage names is declared, stages stand in
//! an order in which each follows those it depends on, every placeholder has a value wherever its unit is used, and
//! every program is an absolute path without placeholders. Nothing here panics, whatever the file or the parameters.

pub mod catalogue;
pub mod command;
pub mod duration;
pub mod error;
pub mod name;
pub mod parameter;
pub mod request_type;
pub mod template;
pub mod unit;

mod section;
mod stage_order;
mod suggestion;

pub use catalogue::{Catalogue, UnknownName};
pub use command::{Command, ExitMeaning, Invoke};
pub use duration::{HumanDuration, ParseDurationError};
pub use error::{CatalogueError, CatalogueErrors, Problem, SyntaxError};
pub use name::{NameError, TypeName, UnitName};
pub use parameter::{Parameter, ParameterError, ParameterKind, ParameterValue};
pub use request_type::{InputKind, Over, RequestType, ShardBounds, Stage};
pub use template::{RenderError, Template, TemplateError};
pub use unit::{Accepts, Ceiling, Retry, TypedTask, Unit, Work};
