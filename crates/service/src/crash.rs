//! Named crash points: places where a test kills the program, to prove that what comes after a restart is right.
//!
//! A crate declares its points in one place with [`crash_points!`](crate::crash_points); its code can use only declared
//! ones, and a test lists them from the code through `ALL`. The environment arms at most one:
//!
//! - `FORECASTLE_CRASH_AT=name` aborts the process when that point is reached, `name#3` the third time.
//! - `FORECASTLE_CRASH_LOG=file`: the name is appended there first, so that a test sees that it was reached.
//!
//! Aborting is like `kill -9`: no destructor runs and nothing is flushed. Unarmed, a point is one atomic load.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that arms a point.
pub const CRASH_AT: &str = "FORECASTLE_CRASH_AT";
/// The variable that names the file where a reached point is noted.
pub const CRASH_LOG: &str = "FORECASTLE_CRASH_LOG";

/// A declared place where the program can be made to crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint(&'static str);

impl CrashPoint {
    /// For [`crash_points!`](crate::crash_points) only.
    #[doc(hidden)]
    pub const fn declared(name: &'static str) -> Self {
        Self(name)
    }

    /// Its name, such as `completions/after-commit`.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// Aborts the process if this point is armed.
    #[inline]
    pub fn hit(self) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        if let Some(armed) = ARMED.get_or_init(Armed::from_environment)
            && armed.strikes(self.0)
        {
            armed.note(self.0);
            std::process::abort();
        }
    }
}

#[derive(Debug)]
struct Armed {
    name: String,
    /// Which hit it is that crashes, from 1.
    nth: u64,
    hits: AtomicU64,
    log: Option<PathBuf>,
}

impl Armed {
    fn from_environment() -> Option<Self> {
        let armed = Self::parse(&std::env::var(CRASH_AT).ok()?, std::env::var_os(CRASH_LOG).map(PathBuf::from));
        tracing::warn!(point = armed.name, hit = armed.nth, "armed to crash, by {CRASH_AT}");
        Some(armed)
    }

    /// A text whose part after `#` is no number from 1 on names no point: declared names have no `#`.
    fn parse(text: &str, log: Option<PathBuf>) -> Self {
        let numbered = text.rsplit_once('#').and_then(|(name, nth)| Some((name, nth.parse().ok()?)));
        let (name, nth) = numbered.filter(|(_, nth)| *nth > 0).unwrap_or((text, 1));
        Self { name: name.to_owned(), nth, hits: AtomicU64::new(0), log }
    }

    fn strikes(&self, name: &str) -> bool {
        // Only the count matters: nothing else is published by it.
        self.name == name && self.hits.fetch_add(1, Ordering::Relaxed) + 1 == self.nth
    }

    fn note(&self, name: &str) {
        let Some(path) = &self.log else { return };
        let written = std::fs::OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| {
            // One write, so that lines of several processes do not mix.
            file.write_all(format!("{name}\n").as_bytes())
        });
        if let Err(error) = written {
            tracing::error!(%error, path = %path.display(), "cannot note the crash");
        }
    }
}

/// For [`crash_points!`](crate::crash_points): names are distinct and have no `#`.
#[doc(hidden)]
pub const fn names_are_sound(names: &[&str]) -> bool {
    let mut i = 0;
    while i < names.len() {
        let name = names[i].as_bytes();
        let mut at = 0;
        while at < name.len() {
            if name[at] == b'#' {
                return false;
            }
            at += 1;
        }
        let mut j = i + 1;
        while j < names.len() {
            if same(name, names[j].as_bytes()) {
                return false;
            }
            j += 1;
        }
        i += 1;
    }
    true
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Declares the crash points of a crate: a module with a constant for each and `ALL`, the names of all of them.
///
/// ```
/// forecastle_service::crash_points! {
///     /// Where the ledger can be made to crash.
///     pub mod crash_points {
///         /// Completions are committed, their messages not acknowledged yet.
///         COMPLETIONS_AFTER_COMMIT = "completions/after-commit";
///         /// The plan is committed, no shard is released yet.
///         PLAN_AFTER_COMMIT = "plan/after-commit";
///     }
/// }
///
/// crash_points::COMPLETIONS_AFTER_COMMIT.hit();
/// assert_eq!(crash_points::ALL, ["completions/after-commit", "plan/after-commit"]);
/// ```
///
/// Two points of the same name do not compile:
///
/// ```compile_fail
/// forecastle_service::crash_points! {
///     /// Twice the same.
///     pub mod crash_points {
///         /// One.
///         ONE = "same";
///         /// Another.
///         OTHER = "same";
///     }
/// }
/// ```
#[macro_export]
macro_rules! crash_points {
    (
        $(#[$module_doc:meta])*
        $visibility:vis mod $module:ident {
            $($(#[$doc:meta])* $point:ident = $name:literal;)+
        }
    ) => {
        $(#[$module_doc])*
        #[allow(unreachable_pub, clippy::allow_attributes, reason = "whether it is reachable depends on the module")]
        $visibility mod $module {
            $(
                $(#[$doc])*
                pub const $point: $crate::CrashPoint = $crate::CrashPoint::declared($name);
            )+
            /// The names of all of them.
            pub const ALL: &[&str] = &[$($name),+];

            const _: () = assert!(
                $crate::crash::names_are_sound(ALL),
                "names of crash points are distinct and have no #"
            );
        }
    };
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Output};

    use super::*;

    crate::crash_points! {
        /// For the tests below.
        mod points {
            /// Armed.
            FIRST = "tests/first";
            /// Not armed.
            SECOND = "tests/second";
        }
    }

    /// Set in the child only.
    const CHILD: &str = "FORECASTLE_TEST_CRASH_CHILD";

    struct SaysGoodbye;
    impl Drop for SaysGoodbye {
        fn drop(&mut self) {
            println!("goodbye");
        }
    }

    /// Runs `test` of this binary again in a child that passes both points three times.
    fn child(test: &str, crash_at: Option<&str>, log: &std::path::Path) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env(CRASH_LOG, log).env_remove(CRASH_AT);
        if let Some(crash_at) = crash_at {
            command.env(CRASH_AT, crash_at);
        }
        command.output().unwrap()
    }

    fn pass_points_if_child() -> bool {
        let is_child = std::env::var_os(CHILD).is_some();
        if is_child {
            let _goodbye = SaysGoodbye;
            for round in 1..=3 {
                println!("round {round}");
                points::SECOND.hit();
                points::FIRST.hit();
            }
        }
        is_child
    }

    fn said(output: &Output, text: &str) -> bool {
        String::from_utf8_lossy(&output.stdout).contains(text)
    }

    #[test]
    fn an_armed_point_aborts_without_destructors_and_is_noted() {
        if pass_points_if_child() {
            return;
        }
        let test = "crash::tests::an_armed_point_aborts_without_destructors_and_is_noted";
        let directory = tempfile::tempdir().unwrap();
        for (crash_at, rounds) in [("tests/first", 1), ("tests/first#1", 1), ("tests/first#3", 3)] {
            let log = directory.path().join(format!("{rounds}-{}", crash_at.len()));
            let output = child(test, Some(crash_at), &log);
            assert_eq!(output.status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{output:?}");
            assert!(said(&output, &format!("round {rounds}")), "{output:?}");
            assert!(!said(&output, &format!("round {}", rounds + 1)) && !said(&output, "goodbye"), "{output:?}");
            assert_eq!(std::fs::read_to_string(&log).unwrap(), "tests/first\n");
        }
    }

    #[test]
    fn unarmed_or_armed_elsewhere_nothing_happens() {
        if pass_points_if_child() {
            return;
        }
        let test = "crash::tests::unarmed_or_armed_elsewhere_nothing_happens";
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        for crash_at in [None, Some(""), Some("tests/third"), Some("tests/first#4"), Some("tests/first#0")] {
            let output = child(test, crash_at, &log);
            assert!(output.status.success() && said(&output, "goodbye"), "{crash_at:?}: {output:?}");
            assert!(!log.exists(), "{crash_at:?}");
        }
    }

    #[test]
    fn the_list_names_every_declared_point() {
        assert_eq!(points::ALL, [points::FIRST.name(), points::SECOND.name()]);
        assert!(!names_are_sound(&["a", "b", "a"]) && !names_are_sound(&["a#1"]) && names_are_sound(&["a", "ab"]));
    }
}
