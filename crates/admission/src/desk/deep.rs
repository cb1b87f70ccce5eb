//! Deep windows, for shards that last for milliseconds.
//!
//! Such a shard would wait longer for the confirmation of its claim than it runs. So it runs at once, and its delivery is
//! acknowledged when its completion is confirmed; if its worker dies before, the broker offers it again. That is right
//! only as long as it is short: a delivery must not stay unsettled for long, and what waits behind it in the window is
//! hidden from other workers.

use std::time::Duration;

use forecastle_resources::SizeClass;

/// How many shards of a deep window may be unsettled at a time: as many as last, one after the other, for less than
/// other offers are held.
const WINDOW: u16 = 16;

/// After so long a run of a deep window is claimed like others, and the window is closed.
pub const LONGEST_IN_DEEP_WINDOW: Duration = Duration::from_secs(1);

/// True if shards of this class run before they are claimed.
pub const fn is_deep(class: SizeClass) -> bool {
    matches!(class, SizeClass::Tiny)
}

/// How many unsettled offers a queue of this class may have at a worker, unless it is browsed.
pub const fn window(class: SizeClass) -> u16 {
    if is_deep(class) { WINDOW } else { 1 }
}
