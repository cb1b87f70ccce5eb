//! The launcher by itself, started in ways in which the worker does not start it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use forecastle_worker::enforcement::launcher::descriptors;
use forecastle_worker::enforcement::launcher::protocol::{LaunchOrder, LaunchReport};

const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_launcher_that_inherits_deafness_to_its_children_still_learns_how_they_ended() {
    let (mut worker, other) = UnixStream::pair().unwrap();
    worker.set_read_timeout(Some(WITHIN)).unwrap();
    // Its children would vanish without a trace.
    let mut launcher = Command::new("/usr/bin/env")
        .args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_forecastle-launch"), "supervise"])
        .stdin(Stdio::from(OwnedFd::from(other)))
        .spawn()
        .unwrap();
    let argv = ["/bin/sh", "-c", "(setsid sleep 300 &); exit 3"].map(str::to_owned).to_vec();
    let order = LaunchOrder { argv, environment: BTreeMap::new(), directory: std::env::temp_dir() };
    let mut text = serde_json::to_vec(&order).unwrap();
    text.push(b'\n');
    let (stdin, stderr) = (File::open("/dev/null").unwrap(), std::io::stderr());
    descriptors::send(&worker, &[stdin.as_fd(), stderr.as_fd(), stderr.as_fd()]).unwrap();
    worker.write_all(&text).unwrap();
    let mut report = String::new();
    BufReader::new(&worker).read_line(&mut report).unwrap();
    let report: LaunchReport = serde_json::from_str(&report).unwrap();
    assert!(matches!(&report, LaunchReport::Ended(ended) if ended.exit_code == Some(3)), "{report:?}");
    assert!(launcher.wait().unwrap().success());
}
