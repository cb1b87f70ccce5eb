//! The descendants of this process.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Kills all descendants, once; answers how many there were. Those that were being made are met by the next call.
pub(crate) fn kill_all() -> io::Result<u32> {
    let mut killed = 0;
    for pid in living()? {
        match kill_process(pid, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => {}
            // Or a descendant with other rights (a set-user-id program) that only its own user may kill: it is there.
            Ok(()) | Err(_) => killed += 1,
        }
    }
    Ok(killed)
}

/// Descendants that have not ended.
fn living() -> io::Result<Vec<Pid>> {
    let mut children: BTreeMap<i32, Vec<(i32, bool)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that is gone meanwhile is no descendant any more.
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { continue };
        if let Some((parent, alive)) = parent_and_life(&stat) {
            children.entry(parent).or_default().push((pid, alive));
        }
    }
    let mut open = vec![getpid().as_raw_pid()];
    let mut found = Vec::new();
    while let Some(parent) = open.pop() {
        for (pid, alive) in children.remove(&parent).unwrap_or_default() {
            open.push(pid);
            found.extend(Pid::from_raw(pid).filter(|_| alive));
        }
    }
    Ok(found)
}

/// From `/proc/PID/stat`: `pid (name) state parent …`. The name can hold anything, parentheses and bytes that are no
/// text included.
fn parent_and_life(stat: &[u8]) -> Option<(i32, bool)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut words = rest.split_whitespace();
    let (state, parent) = (words.next()?, words.next()?);
    Some((parent.parse().ok()?, !matches!(state, "Z" | "X")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_do_not_confuse() {
        assert_eq!(parent_and_life(b"12 (a) S 1 (x) Z 7) S 3 12 12"), Some((3, true)));
        assert_eq!(parent_and_life(b"12 (\xff\n) Z 9 1"), Some((9, false)));
        assert_eq!(parent_and_life(b"12 (a"), None);
        assert_eq!(parent_and_life(b""), None);
    }
}
