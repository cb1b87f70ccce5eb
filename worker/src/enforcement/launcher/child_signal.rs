//! SIGCHLD.

use std::io;

/// Sees to it that children that have ended wait to be asked for. A process that ignores SIGCHLD has none to ask for,
/// and whoever starts it can have made it ignore the signal: that is inherited.
pub(crate) fn expect_children() -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix sets no dispositions; the default one runs no code of this process")]
    let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
