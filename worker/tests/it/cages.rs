//! Cages: made, resized, removed, and swept when a worker has died.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_protos::ids::{RunId, WorkerId};
use forecastle_resources::{Bytes, CpuMillis};
use forecastle_worker::enforcement::cage::{Cage, dismantle};
use forecastle_worker::enforcement::{EnforcementOptions, Limits};

use crate::bench::{cgroups, enforcer, until};

fn limits(memory: Bytes) -> Limits {
    Limits { memory: Some(memory), cpu: CpuMillis(500), io: None }
}

/// A process that sleeps inside these cgroups.
fn sleeper(joining: &[PathBuf]) -> Child {
    let joins = joining.iter().map(|file| format!("echo 0 > '{}'; ", file.display())).collect::<Vec<_>>().concat();
    let script = format!("{joins} echo in; exec sleep 300");
    let mut child = Command::new("/bin/sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    child
}

fn ends(child: &mut Child) {
    let end = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "the process lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_cage_is_resized_while_something_runs_in_it() {
    let detected = enforcer(&EnforcementOptions::default(), WorkerId::new());
    let cage: Arc<dyn Cage> =
        detected.enforcer.create(&RunId::new().to_string(), &limits(Bytes::mib(64))).unwrap().into();
    let mut child = sleeper(cage.joining());
    for mebibytes in [128, 32, 256] {
        cage.resize(&limits(Bytes::mib(mebibytes))).unwrap();
        let files = ["memory.max", "memory.limit_in_bytes"];
        let mut paths = cage.joining().iter().flat_map(|joining| files.map(|file| joining.with_file_name(file)));
        let text = std::fs::read_to_string(paths.find(|path| path.exists()).unwrap()).unwrap();
        assert_eq!(text.trim(), (mebibytes << 20).to_string());
    }
    assert!(cage.remove().is_err(), "a process is inside");
    assert!(cage.sample().unwrap().unwrap().memory > Bytes::ZERO);
    dismantle(&cage, Duration::from_secs(10)).await.unwrap();
    ends(&mut child);
    cage.remove().unwrap();
    assert_eq!(cage.kill_all().unwrap(), 0, "also when it is gone");
}

#[tokio::test]
async fn a_cage_that_is_dropped_kills_what_is_in_it_and_goes() {
    let detected = enforcer(&EnforcementOptions::default(), WorkerId::new());
    let run = RunId::new();
    let cage = detected.enforcer.create(&run.to_string(), &limits(Bytes::mib(64))).unwrap();
    let mut child = sleeper(cage.joining());
    assert!(!cgroups(run).is_empty());
    drop(cage);
    ends(&mut child);
    until(|| cgroups(run).is_empty(), "the cage to go").await;
}

#[tokio::test]
async fn what_a_dead_worker_left_is_swept_and_a_living_one_is_left_alone() {
    let living = enforcer(&EnforcementOptions::default(), WorkerId::new());
    let (run, dead) = (RunId::new(), RunId::new());
    let cage = living.enforcer.create(&run.to_string(), &limits(Bytes::mib(64))).unwrap();
    let mut neighbour = sleeper(cage.joining());

    for while_running in [true, false] {
        // The same folders under the name of another worker, whom nobody locks.
        let dead_worker = WorkerId::new().to_string();
        let joining: Vec<PathBuf> = cage
            .joining()
            .iter()
            .map(|file| {
                let base = file.ancestors().nth(3).unwrap();
                assert_eq!(base.file_name().unwrap(), "forecastle");
                let folder = base.join(&dead_worker).join(dead.to_string());
                std::fs::create_dir_all(&folder).unwrap();
                folder.join("cgroup.procs")
            })
            .collect();
        let mut orphan = sleeper(&joining);
        let other = joining[0].ancestors().nth(3).unwrap().join("not-a-worker");
        std::fs::create_dir(&other).unwrap();

        let next = if while_running {
            assert!(living.enforcer.sweep() > 0, "a neighbour that lives sweeps");
            assert_eq!(living.enforcer.sweep(), 0, "there is nothing left");
            None
        } else {
            Some(enforcer(&EnforcementOptions::default(), WorkerId::new()))
        };
        ends(&mut orphan);
        let gone = |file: &PathBuf| !Path::new(file).ancestors().nth(2).unwrap().exists();
        assert!(joining.iter().all(gone), "its folders are gone");
        assert!(other.exists(), "what has no worker's name is not touched");
        std::fs::remove_dir(&other).unwrap();
        assert!(neighbour.try_wait().unwrap().is_none(), "the neighbour runs on");
        drop(next);
    }
    drop(cage);
    ends(&mut neighbour);
    until(|| cgroups(run).is_empty(), "the cage to go").await;
}
