//! Version 2 of cgroups: delegation to a user, what is said where that fails, and what only version 2 has.
//!
//! These tests need root on a kernel that has version 2 alone, and change its root cgroup. `infra/test-enforcement`,
//! which `make test` runs, gives them one of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use forecastle_protos::ids::{RunId, WorkerId};
use forecastle_protos::v1::Outcome;
use forecastle_resources::{Bytes, CpuMillis};
use forecastle_worker::enforcement::{EnforcementOptions, Limits, Mechanism, detect};
use forecastle_worker::runner::RunnerOptions;

use crate::bench::{Bench, enforcer, spec};

const ROOT: &str = "/sys/fs/cgroup";

/// Nobody: a user who may do nothing.
const USER: u32 = 65534;

/// A cgroup made for a test, and those below it gone after it.
struct Made(PathBuf);

impl Made {
    /// With controllers, and the user's if it is delegated as systemd does it.
    fn new(name: &str, delegated: bool) -> Self {
        let root = Path::new(ROOT);
        assert!(
            root.join("cgroup.controllers").exists(),
            "this test needs cgroups of version 2: infra/test-enforcement"
        );
        std::fs::write(root.join("cgroup.subtree_control"), "+cpu +io +memory +pids").unwrap();
        let made = Self(root.join(name));
        std::fs::create_dir(&made.0).unwrap();
        if delegated {
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                std::os::unix::fs::chown(made.0.join(file), Some(USER), Some(USER)).unwrap();
            }
        }
        made
    }

    /// What a worker in this cgroup finds, as the user or as root.
    fn finds(&self, user: bool, before: &str) -> String {
        // Reading whatever it likes, wherever the tests were built; that gives no right to write.
        let privileges = if user {
            format!(
                "setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
            )
        } else {
            String::new()
        };
        let script =
            format!("set -e; echo 0 > '{}/cgroup.procs'; {before} exec {privileges} \"$0\" \"$@\"", self.0.display());
        let output: Output = Command::new("/usr/bin/unshare")
            .args(["--mount", "/bin/sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "version_2::what_a_worker_finds_here", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for below in ["forecastle-supervisor", "forecastle", "inner"] {
            let _ = std::fs::remove_dir(self.0.join(below));
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn what_a_worker_finds_here() {
    let detected = detect(&EnforcementOptions::default(), WorkerId::new()).unwrap();
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let shortfall = detected.shortfall.unwrap_or_else(|| "nothing".to_owned());
    println!("FOUND {} IN {} MISSING {shortfall}", detected.enforcer.mechanism(), cgroup.trim());
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn a_user_to_whom_a_cgroup_is_delegated_needs_no_root() {
    let made = Made::new("delegated", true);
    let found = made.finds(true, "");
    assert!(found.contains("FOUND cgroup-v2"), "{found}");
    assert!(found.contains("MISSING nothing"), "{found}");
    assert!(found.contains("0::/delegated/forecastle-supervisor"), "the worker is out of the way: {found}");
    let given = std::fs::read_to_string(made.0.join("cgroup.subtree_control")).unwrap();
    assert_eq!(given.trim(), "cpu io memory pids");
    // The next life starts where the last one ended.
    let aside = Made(made.0.join("forecastle-supervisor"));
    let found = aside.finds(true, "");
    assert!(found.contains("FOUND cgroup-v2") && found.contains("0::/delegated/forecastle-supervisor"), "{found}");
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn a_user_to_whom_nothing_is_delegated_is_told_what_to_do() {
    let found = Made::new("not-delegated", false).finds(true, "");
    assert!(found.contains("FOUND rusage"), "{found}");
    assert!(found.contains(&format!("user {USER} may not")) && found.contains("Delegate=yes"), "{found}");
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn cgroups_that_are_mounted_read_only_are_told_apart() {
    let made = Made::new("read-only", true);
    let found = made.finds(false, "mount -o remount,bind,ro /sys/fs/cgroup;");
    assert!(found.contains("FOUND rusage") && found.contains("mounted read-only"), "{found}");
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn a_controller_that_is_not_handed_on_is_traced_to_who_withholds_it() {
    let made = Made::new("outer", true);
    let inner = Made(made.0.join("inner"));
    std::fs::create_dir(&inner.0).unwrap();
    let found = inner.finds(false, "");
    assert!(found.contains("FOUND rusage") && found.contains("/outer/inner has no memory controller"), "{found}");
    assert!(found.contains("/sys/fs/cgroup/outer/cgroup.subtree_control does not hand it on"), "{found}");
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn processes_in_the_way_are_named() {
    let made = Made::new("crowded", true);
    let mut crowd = InTheWay::new(&made.0);
    let found = made.finds(true, "");
    assert!(found.contains("FOUND rusage"), "{found}");
    assert!(found.contains(&format!("({} sleep)", crowd.0.id())), "{found}");
    assert!(found.contains("0::/crowded MISSING"), "the worker is back where it was: {found}");
    crowd.end();
    let found = made.finds(true, "");
    assert!(found.contains("FOUND cgroup-v2"), "{found}");
}

/// A process in a cgroup.
struct InTheWay(Child);

impl InTheWay {
    fn new(cgroup: &Path) -> Self {
        let child = Command::new("/bin/sleep").arg("300").spawn().unwrap();
        std::fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for InTheWay {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn a_base_that_is_not_there_is_named() {
    let options = EnforcementOptions {
        mechanism: Some(Mechanism::CgroupV2),
        base: Some("/no/such/cgroup".into()),
        ..EnforcementOptions::default()
    };
    let error = detect(&options, WorkerId::new()).unwrap_err();
    assert!(error.to_string().contains("there is no cgroup /sys/fs/cgroup/no/such/cgroup"), "{error}");
}

#[tokio::test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
async fn a_run_in_its_headroom_is_slowed_for_a_moment_and_not_for_ever() {
    let options = EnforcementOptions { memory_headroom_percent: 50, ..EnforcementOptions::default() };
    let bench = Bench::with(&options, &RunnerOptions::default(), |_| {});
    // It needs 75 of 100 MiB, and takes them again and again: left alone, the kernel would have it wait for minutes.
    let churn = "command = [\"/usr/bin/perl\", \"-e\", \"for (1..4) {{ my $x; vec($x, 70 * 1048576, 8) = 1; undef $x }} print 7\"]\ninvoke = \"once\"\nstdout = \"said\"";
    let mut spec = spec(churn);
    spec.reservation.memory = Bytes::mib(100);
    let ending = bench.run(spec).await;
    assert_eq!(ending.outcome, Outcome::Succeeded, "{ending:?}");
}

#[test]
#[ignore = "needs a kernel of its own: infra/test-enforcement"]
fn the_mark_goes_when_it_has_served_and_comes_back_with_a_new_limit() {
    let options = EnforcementOptions { memory_headroom_percent: 50, ..EnforcementOptions::default() };
    let detected = enforcer(&options, WorkerId::new());
    let limits = |memory| Limits { memory: Some(memory), cpu: CpuMillis::cores(1), io: None };
    let cage = detected.enforcer.create(&RunId::new().to_string(), &limits(Bytes::mib(100))).unwrap();
    let folder = cage.joining()[0].parent().unwrap().to_owned();
    let high = || std::fs::read_to_string(folder.join("memory.high")).unwrap().trim().to_owned();
    assert!(high().parse::<u64>().unwrap().abs_diff(50 << 20) < 8192, "{}", high());
    let script =
        format!("echo 0 > '{}'; exec perl -e 'vec($x, 60 * 1048576, 8) = 1; sleep 300'", cage.joining()[0].display());
    let mut child = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while high() != "max" && std::time::Instant::now() < end {
        cage.sample().unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let (lifted, resized) = (high(), cage.resize(&limits(Bytes::mib(200))));
    let anew = high();
    let _ = cage.kill_all();
    let _ = child.wait();
    assert_eq!(lifted, "max");
    resized.unwrap();
    assert!(anew.parse::<u64>().unwrap().abs_diff(100 << 20) < 8192, "{anew}");
}
