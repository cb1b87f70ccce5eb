//! What the kernel is told of a cage's limits, and what it makes of them, without a runner in between. The same for
//! both versions of cgroups: `infra/test-enforcement` runs these tests under kernels with either.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_protos::ids::{RunId, WorkerId};
use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis};
use forecastle_worker::enforcement::block_device::BlockDevice;
use forecastle_worker::enforcement::cage::{Cage, dismantle};
use forecastle_worker::enforcement::{CpuMode, Detected, EnforcementOptions, Limits, Mechanism};

use crate::bench::{enforcer, until};

const WITHIN: Duration = Duration::from_secs(20);

fn limits(memory: Bytes) -> Limits {
    Limits { memory: Some(memory), cpu: CpuMillis::cores(1), io: None }
}

/// A cage and what is in it; both are gone in the end.
struct Caged {
    cage: Arc<dyn Cage>,
    children: Vec<Child>,
    detected: Detected,
}

impl Caged {
    fn new(options: &EnforcementOptions, limits: &Limits) -> Self {
        let detected = enforcer(options, WorkerId::new());
        let cage = detected.enforcer.create(&RunId::new().to_string(), limits).unwrap().into();
        Self { cage, children: Vec::new(), detected }
    }

    /// Runs a program in the cage; its standard output, line by line. Its standard input stays open.
    fn start(&mut self, argv: &[&str]) -> BufReader<ChildStdout> {
        let joins = |file: &PathBuf| format!("echo 0 > '{}'; ", file.display());
        let joins = self.cage.joining().iter().map(joins).collect::<Vec<_>>().concat();
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{joins} exec \"$@\""), "sh"])
            .args(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        self.children.push(child);
        output
    }

    /// Lets the last program that was started read a line.
    fn go_on(&mut self) {
        self.children.last_mut().unwrap().stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// The text of one of the kernel's files, from whichever hierarchy has it.
    fn text(&self, file: &str) -> String {
        let folders = self.cage.joining().iter().map(|joining| joining.parent().unwrap());
        let found: Vec<PathBuf> = folders.map(|folder| folder.join(file)).filter(|path| path.exists()).collect();
        assert!(!found.is_empty(), "this kernel has no {file}");
        std::fs::read_to_string(&found[0]).unwrap().trim().to_owned()
    }

    fn is_version_2(&self) -> bool {
        self.detected.enforcer.mechanism() == Mechanism::CgroupV2
    }

    fn sample(&self) -> forecastle_worker::enforcement::Sample {
        self.cage.sample().unwrap().unwrap()
    }

    fn alive(&mut self) -> bool {
        self.children.iter_mut().all(|child| child.try_wait().unwrap().is_none())
    }
}

impl Drop for Caged {
    fn drop(&mut self) {
        let _ = self.cage.kill_all();
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Takes so many MiB, says so, waits for a line, and takes so many more; then says so and waits again.
fn taking(first: u64, second: u64) -> String {
    format!(
        "$| = 1; vec($x, {first} * 1048576 - 1, 8) = 1; print \"first\\n\"; <STDIN>; \
         vec($y, {second} * 1048576 - 1, 8) = 1; print \"second\\n\"; <STDIN>"
    )
}

/// A folder on a disk whose I/O the kernel can limit.
fn folder_on_a_disk() -> (tempfile::TempDir, BlockDevice) {
    let folder = tempfile::tempdir().unwrap();
    let device = BlockDevice::of(folder.path()).unwrap();
    let device = device.expect("this test needs a folder on a disk: set TMPDIR to one that is not in memory");
    (folder, device)
}

#[test]
fn the_kernels_files_say_what_was_asked_for_and_follow_a_change() {
    let (folder, device) = folder_on_a_disk();
    let options = EnforcementOptions {
        cpu: CpuMode::Quota,
        memory_headroom_percent: 10,
        most_processes: 40,
        limit_io_of: vec![folder.path().join("not/there/yet")],
        ..EnforcementOptions::default()
    };
    let small = Limits { memory: Some(Bytes(100 << 20)), cpu: CpuMillis(500), io: Some(BytesPerSecond::mib(2)) };
    let large = Limits { memory: Some(Bytes(200 << 20)), cpu: CpuMillis(2000), io: Some(BytesPerSecond::mib(4)) };
    let none = Limits { memory: None, cpu: CpuMillis::ZERO, io: None };
    let caged = Caged::new(&options, &small);
    let holds = |expected: &[(&str, &str)]| {
        for (file, text) in expected {
            assert_eq!(&caged.text(file), text, "{file}");
        }
    };
    assert_eq!(caged.text("pids.max"), "40");
    let rates = |rate: u64| format!("{device} {rate}");
    let both = |rate: u64| format!("{device} rbps={rate} wbps={rate} riops=max wiops=max");
    if caged.is_version_2() {
        // The kernel keeps whole pages.
        assert!(caged.text("memory.high").parse::<u64>().unwrap().abs_diff(90 << 20) < 8192);
        holds(&[("memory.max", "104857600"), ("memory.swap.max", "0"), ("memory.oom.group", "1")]);
        holds(&[("cpu.max", "50000 100000"), ("cpu.weight", "20"), ("io.max", &both(2 << 20))]);
        caged.cage.resize(&large).unwrap();
        holds(&[("memory.max", "209715200"), ("cpu.max", "200000 100000"), ("cpu.weight", "79")]);
        holds(&[("io.max", &both(4 << 20))]);
        caged.cage.resize(&none).unwrap();
        holds(&[("memory.max", "max"), ("memory.high", "max"), ("cpu.max", "max 100000"), ("io.max", "")]);
    } else {
        holds(&[("memory.limit_in_bytes", "104857600"), ("cpu.shares", "512"), ("cpu.cfs_quota_us", "50000")]);
        let soft: u64 = caged.text("memory.soft_limit_in_bytes").parse().unwrap();
        assert!(soft.abs_diff(90 << 20) < 8192, "{soft}");
        holds(&[("blkio.throttle.read_bps_device", &rates(2 << 20))]);
        holds(&[("blkio.throttle.write_bps_device", &rates(2 << 20))]);
        caged.cage.resize(&large).unwrap();
        holds(&[("memory.limit_in_bytes", "209715200"), ("cpu.shares", "2048"), ("cpu.cfs_quota_us", "200000")]);
        holds(&[("blkio.throttle.write_bps_device", &rates(4 << 20))]);
        caged.cage.resize(&none).unwrap();
        holds(&[("cpu.cfs_quota_us", "-1"), ("blkio.throttle.write_bps_device", "")]);
        assert!(caged.text("memory.limit_in_bytes").parse::<u64>().unwrap() > 1 << 60);
    }
}

#[test]
fn a_run_that_is_given_more_before_it_takes_it_goes_on() {
    let mut caged = Caged::new(&EnforcementOptions::default(), &limits(Bytes::mib(64)));
    let mut output = caged.start(&["/usr/bin/perl", "-e", &taking(30, 150)]);
    assert_eq!(line(&mut output), "first");
    caged.cage.resize(&limits(Bytes::mib(300))).unwrap();
    caged.go_on();
    assert_eq!(line(&mut output), "second");
    let sample = caged.sample();
    assert!(sample.memory >= Bytes::mib(175) && sample.oom_kills == 0, "{sample:?}");
}

#[test]
fn a_run_that_is_given_nothing_is_killed_and_counted() {
    let mut caged = Caged::new(&EnforcementOptions::default(), &limits(Bytes::mib(64)));
    let mut output = caged.start(&["/usr/bin/perl", "-e", &taking(30, 150)]);
    assert_eq!(line(&mut output), "first");
    caged.go_on();
    assert_eq!(line(&mut output), "", "it never gets there");
    assert!(caged.sample().oom_kills > 0, "{:?}", caged.sample());
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_and_kills_nobody() {
    let mut caged = Caged::new(&EnforcementOptions::default(), &limits(Bytes::mib(200)));
    let mut output = caged.start(&["/usr/bin/perl", "-e", &taking(100, 60)]);
    assert_eq!(line(&mut output), "first");
    let refused = caged.cage.resize(&limits(Bytes::mib(50))).unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    assert!(caged.alive() && caged.sample().oom_kills == 0);
    // What it had before, it still has.
    caged.go_on();
    assert_eq!(line(&mut output), "second");
    assert!(caged.alive() && caged.sample().oom_kills == 0);
}

#[test]
fn page_cache_makes_room_for_a_smaller_limit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    let size: u64 = 100 << 20;
    let mut writing = std::fs::File::create(&file).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..size >> 20 {
        writing.write_all(&block).unwrap();
    }
    // Pages that others have read are charged to them: so they are dropped first.
    writing.sync_all().unwrap();
    rustix::fs::fadvise(&writing, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut caged = Caged::new(&EnforcementOptions::default(), &limits(Bytes::mib(200)));
    let script = format!("cat '{}' | wc -c; read line", file.display());
    let mut output = caged.start(&["/bin/sh", "-c", &script]);
    assert_eq!(line(&mut output), size.to_string());
    let sample = caged.sample();
    assert!(sample.charged_at_most.is_none_or(|charged| charged > Bytes(size / 2)), "{sample:?}");
    assert!(sample.memory < Bytes::mib(20), "{sample:?}");
    caged.cage.resize(&limits(Bytes::mib(32))).unwrap();
    assert!(caged.alive() && caged.sample().oom_kills == 0);
}

#[test]
fn no_more_processes_start_than_are_allowed() {
    let options = EnforcementOptions { most_processes: 16, ..EnforcementOptions::default() };
    let mut caged = Caged::new(&options, &limits(Bytes::mib(64)));
    // Without its standard output, so that its end is seen.
    let fork = "$| = 1; $n = 0; for (1..40) { $p = fork; if (!defined $p) { next } if (!$p) { close STDOUT; sleep 300; exit } $n++ } print \"$n\\n\"; <STDIN>";
    let mut output = caged.start(&["/usr/bin/perl", "-e", fork]);
    assert_eq!(line(&mut output), "15", "and itself");
    assert_eq!(caged.cage.kill_all().unwrap(), 16);
}

#[test]
fn weights_divide_a_core_that_all_want() {
    let options = EnforcementOptions { cpu: CpuMode::Weight, ..EnforcementOptions::default() };
    let detected = enforcer(&options, WorkerId::new());
    let core =
        (0..1024).find(|core| rustix::thread::sched_getaffinity(None).unwrap().is_set(*core)).unwrap().to_string();
    let [mut heavy, mut light] = [4000, 500].map(|cpu| {
        let limits = Limits { memory: Some(Bytes::mib(64)), cpu: CpuMillis(cpu), io: None };
        let cage: Arc<dyn Cage> = detected.enforcer.create(&RunId::new().to_string(), &limits).unwrap().into();
        Caged { cage, children: Vec::new(), detected: detected.clone() }
    });
    for caged in [&mut heavy, &mut light] {
        let busy = ["/usr/bin/taskset", "-c", &core, "/usr/bin/perl", "-e", "$| = 1; print \"in\\n\"; 1 while 1"];
        assert_eq!(line(&mut caged.start(&busy)), "in");
    }
    let cpu = |caged: &Caged| caged.sample().cpu.expect("CPU time is measured");
    // From when both were there.
    let before = (cpu(&heavy), cpu(&light));
    let end = Instant::now() + 3 * WITHIN;
    loop {
        let (heavy, light) = (cpu(&heavy).saturating_sub(before.0), cpu(&light).saturating_sub(before.1));
        if heavy + light > Duration::from_secs(2) {
            assert!(heavy > 2 * light, "eight times the weight: {heavy:?} and {light:?}");
            return;
        }
        assert!(Instant::now() < end, "{heavy:?} and {light:?} of CPU time are too little to tell");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn bytes_to_and_from_a_disk_are_measured_and_held_to_the_rate() {
    let (folder, _) = folder_on_a_disk();
    let path = folder.path();
    let options = EnforcementOptions { limit_io_of: vec![path.to_owned()], ..EnforcementOptions::default() };
    let limits = Limits { io: Some(BytesPerSecond::mib(2)), ..limits(Bytes::mib(64)) };
    let mut caged = Caged::new(&options, &limits);
    let copy = |from: &str, to: &Path, flag: &str| {
        let to = to.display();
        format!("dd if='{from}' of='{to}' bs=256k count=24 {flag}=direct 2>/dev/null; echo $?")
    };
    let file = path.join("file");
    for (script, is_write) in [
        (copy("/dev/zero", &file, "oflag"), true),
        (copy(file.to_str().unwrap(), Path::new("/dev/null"), "iflag"), false),
    ] {
        let started = Instant::now();
        let mut output = caged.start(&["/bin/sh", "-c", &script]);
        assert_eq!(line(&mut output), "0");
        let (sample, took) = (caged.sample(), started.elapsed());
        let bytes = if is_write { sample.io_write } else { sample.io_read };
        assert!((Bytes::mib(6)..Bytes::mib(8)).contains(&bytes), "{sample:?}");
        assert!(took >= Duration::from_secs(2), "6 MiB at 2 MiB/s: {took:?}");
    }
}

#[tokio::test]
async fn whatever_hides_from_its_parents_is_killed_with_the_rest() {
    let mut caged = Caged::new(&EnforcementOptions::default(), &limits(Bytes::mib(64)));
    // Forked twice, a session of its own, stopped, deaf to signals.
    let script = "((sleep 300 &) &); setsid sleep 300 & (trap '' TERM HUP INT; setsid setsid sleep 300) & sleep 300 & kill -STOP $!; echo in; sleep 300";
    let mut output = caged.start(&["/bin/sh", "-c", script]);
    assert_eq!(line(&mut output), "in");
    until(|| caged.text("cgroup.procs").lines().count() >= 6, "all of them to be there").await;
    dismantle(&caged.cage, WITHIN).await.unwrap();
    assert_eq!(caged.cage.kill_all().unwrap(), 0);
    // Its standard output is closed: nobody has it open any more.
    assert_eq!(line(&mut output), "");
}

#[test]
fn a_cage_that_vanished_is_an_error_that_names_it_and_ends_well() {
    let caged = Caged::new(&EnforcementOptions::default(), &limits(Bytes::mib(64)));
    let folders: Vec<_> = caged.cage.joining().iter().map(|file| file.parent().unwrap().to_owned()).collect();
    for folder in &folders {
        std::fs::remove_dir(folder).unwrap();
    }
    for error in [caged.cage.sample().unwrap_err(), caged.cage.resize(&limits(Bytes::mib(32))).unwrap_err()] {
        let text = error.to_string();
        assert!(folders.iter().any(|folder| text.contains(folder.to_str().unwrap())), "{text}");
    }
    assert_eq!(caged.cage.kill_all().unwrap(), 0);
    caged.cage.remove().unwrap();
}
