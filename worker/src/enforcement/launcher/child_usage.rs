//! What the kernel says of children that were waited for.

use std::io;

use crate::enforcement::launcher::protocol::ChildUsage;

/// The unit of `ru_inblock` and `ru_oublock`, whatever the device's own.
const BLOCK: u64 = 512;

/// `getrusage(RUSAGE_CHILDREN)`.
pub(crate) fn child_usage() -> io::Result<ChildUsage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[expect(unsafe_code, reason = "rustix has no getrusage; the pointer is to a whole, writable rusage")]
    let answer = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "zeros are a sound rusage, and the kernel has filled it in")]
    let usage = unsafe { usage.assume_init() };
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    let microseconds = |time: libc::timeval| positive(time.tv_sec).saturating_mul(1_000_000) + positive(time.tv_usec);
    Ok(ChildUsage {
        // KiB on Linux.
        largest_resident_bytes: positive(usage.ru_maxrss).saturating_mul(1024),
        cpu_microseconds: microseconds(usage.ru_utime).saturating_add(microseconds(usage.ru_stime)),
        read_bytes: positive(usage.ru_inblock).saturating_mul(BLOCK),
        written_bytes: positive(usage.ru_oublock).saturating_mul(BLOCK),
    })
}
