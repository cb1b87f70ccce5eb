//! Deliberate faults, to show that the tests would notice them. They exist in development builds only, and only in a
//! process whose environment asks for one.

use std::sync::OnceLock;

/// The variable that asks for a mutant by name.
pub const VARIABLE: &str = "FORECASTLE_MUTANT";

/// Requests are acknowledged before the ledger has them: a crash between the two loses them.
pub fn ack_before_commit() -> bool {
    static ASKED: OnceLock<bool> = OnceLock::new();
    cfg!(debug_assertions)
        && *ASKED.get_or_init(|| std::env::var(VARIABLE).is_ok_and(|name| name == "ack-before-commit"))
}
