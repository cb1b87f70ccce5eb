//! Whole catalogues: a sound one, and everything that can be wrong with one.

mod example;
mod faults;
