//! A runner with real limits, in folders of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_catalogue::{Catalogue, ParameterValue};
use forecastle_protos::ids::{RequestId, RunId, ShardId, WorkerId};
use forecastle_protos::v1;
use forecastle_resources::{Bytes, CpuMillis, ResourceVector};
use forecastle_task::Registry;
use forecastle_worker::enforcement::{Detected, EnforcementOptions, Mechanism, detect};
use forecastle_worker::runner::{AllowedRoots, Places, PreallocationOptions, RunSpec, Runner, RunnerOptions};
use forecastle_worker::{Allocation, Ending, StopSignal, UsageNow, tasks};

pub(crate) struct Bench {
    worker: WorkerId,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) runner: Runner,
}

/// The example of a worker with tasks of its own.
pub(crate) fn task_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_forecastle-worker")).with_file_name("examples").join("own_tasks");
    assert!(program.is_file(), "{} is not there: cargo build -p forecastle-worker --examples", program.display());
    program
}

/// The enforcer of this machine, which must have cgroups.
pub(crate) fn enforcer(options: &EnforcementOptions, worker: WorkerId) -> Detected {
    let detected = detect(options, worker).unwrap();
    if let Some(shortfall) = &detected.shortfall
        && options.mechanism != Some(Mechanism::Rusage)
    {
        panic!("this test needs cgroups that it may use (run it as root, or in a delegated cgroup): {shortfall}");
    }
    detected
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(&EnforcementOptions::default(), &RunnerOptions::default(), |_| {})
    }

    /// Isolated tasks run in the example of a worker with tasks of its own.
    pub(crate) fn with(
        enforcement: &EnforcementOptions,
        options: &RunnerOptions,
        register: impl FnOnce(&mut Registry),
    ) -> Self {
        let options = RunnerOptions { task_program: Some(task_program()), ..options.clone() };
        Self::exactly(enforcement, &options, register)
    }

    /// Isolated tasks run in the program that the options name.
    pub(crate) fn exactly(
        enforcement: &EnforcementOptions,
        options: &RunnerOptions,
        register: impl FnOnce(&mut Registry),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("input")).unwrap();
        let worker = WorkerId::new();
        let mut registry = Registry::new();
        tasks::register(&mut registry).unwrap();
        register(&mut registry);
        let options =
            RunnerOptions { launcher: Some(env!("CARGO_BIN_EXE_forecastle-launch").into()), ..options.clone() };
        let places = Places {
            roots: AllowedRoots::new(&[folder.path().join("input")]).unwrap(),
            store: folder.path().join("store"),
            scratch: folder.path().join("scratch"),
        };
        let enforcer = enforcer(enforcement, worker).enforcer;
        let runner = Runner::new(worker, enforcer, places, registry, options, PreallocationOptions::default());
        Self { worker, folder, runner: runner.unwrap() }
    }

    /// The cgroups of what is kept ready, in one hierarchy.
    pub(crate) fn waiting(&self) -> Vec<PathBuf> {
        let worker = self.worker.to_string();
        let is_warm = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("warm-"));
        let mut found =
            cgroups_where(|path| is_warm(path) && path.iter().any(|part| part.to_string_lossy().contains(&worker)));
        found.sort_by(|a, b| a.file_name().cmp(&b.file_name()).then_with(|| a.cmp(b)));
        found.dedup_by(|a, b| a.file_name() == b.file_name());
        found
    }

    /// Writes an input; its item.
    pub(crate) fn item(&self, name: &str, content: impl AsRef<[u8]>) -> v1::Item {
        let path = self.folder.path().join("input").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &content).unwrap();
        v1::Item {
            path: path.to_str().unwrap().to_owned(),
            name: name.to_owned(),
            bytes: content.as_ref().len() as u64,
        }
    }

    pub(crate) async fn run(&self, spec: RunSpec) -> Ending {
        let ending = self.runner.run(spec).await;
        let scratch = self.folder.path().join("scratch");
        for worker in std::fs::read_dir(scratch).unwrap() {
            let left: Vec<_> = std::fs::read_dir(worker.unwrap().path()).unwrap().collect();
            assert!(left.is_empty(), "scratch is gone after every run: {left:?}");
        }
        ending
    }
}

/// The folder of an ending's results.
pub(crate) fn output(ending: &Ending) -> PathBuf {
    PathBuf::from(ending.output_uri.strip_prefix("file://").unwrap())
}

/// The text of a result.
pub(crate) fn result(ending: &Ending, name: &str) -> String {
    std::fs::read_to_string(output(ending).join(name)).unwrap()
}

/// The names of an ending's results.
pub(crate) fn names(ending: &Ending) -> Vec<&str> {
    ending.files.iter().map(|file| file.path.as_str()).collect()
}

/// A run of a unit, given as the entries of its table in a catalogue: 64 MiB and a core.
pub(crate) fn spec(unit: &str) -> RunSpec {
    let catalogue = catalogue(unit);
    RunSpec {
        checkpoint: None,
        run: RunId::new(),
        shard: ShardId { request: RequestId::new(), stage: 0, index: 7 },
        attempt: 1,
        request_type: "t".to_owned(),
        tenant: "tests".to_owned(),
        unit: Arc::new(catalogue.unit("u").unwrap().clone()),
        items: Vec::new(),
        parameters: BTreeMap::<String, ParameterValue>::new(),
        upstream: Vec::new(),
        reservation: ResourceVector::new(CpuMillis::cores(1), Bytes::mib(64)),
        limit: Some(Duration::from_mins(1)),
        traceparent: None,
        stop: StopSignal::new(),
        usage: UsageNow::default(),
        expected: Duration::from_secs(1),
        deadline_unix_ms: None,
        allocation: Allocation::default(),
    }
}

/// A catalogue of one unit, `u`, given as the entries of its table.
pub(crate) fn catalogue(unit: &str) -> Catalogue {
    let text = format!(
        "version = 1\n[types.t]\ninput = \"items\"\n[[types.t.stages]]\nname = \"s\"\nunits = [\"u\"]\n\
         over = \"items\"\nshard = {{ max_items = 9, max_shards = 9 }}\n[units.u]\n{unit}\n"
    );
    Catalogue::parse(&text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// A run of a shell script, once for the shard.
pub(crate) fn script(text: &str) -> RunSpec {
    spec(&format!("command = [\"/bin/sh\", \"-c\", {}]\ninvoke = \"once\"", quote(text)))
}

/// A text as TOML writes it, braces doubled for the template.
pub(crate) fn quote(text: &str) -> String {
    serde_json::to_string(&text.replace('{', "{{").replace('}', "}}")).unwrap()
}

/// Whether a process with this environment variable lives.
pub(crate) fn lives(run: RunId) -> bool {
    let wanted = format!("FORECASTLE_RUN_ID={run}");
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
    })
}

/// Waits until a file is there, with a deadline.
pub(crate) async fn appears(path: &Path) {
    until(|| path.exists(), &format!("{} to appear", path.display())).await;
}

/// Waits for the outside world, with a deadline.
pub(crate) async fn until(condition: impl Fn() -> bool, what: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every cgroup of a run, in all hierarchies.
pub(crate) fn cgroups(run: RunId) -> Vec<PathBuf> {
    cgroups_where(|path| path.file_name().and_then(|name| name.to_str()) == Some(&run.to_string()))
}

fn cgroups_where(wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if wanted(&path) {
                    found.push(path.clone());
                }
                open.push(path);
            }
        }
    }
    found
}
