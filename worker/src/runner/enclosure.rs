//! What is around the processes of a run: its cage, its meters, its limits and its logs.

use std::sync::Arc;
use std::time::Instant;

use forecastle_protos::v1;
use tokio_util::sync::CancellationToken;

use crate::adjustment::{AllocationFile, Bounds, Follower};
use crate::enforcement::launcher::protocol::{ChildUsage, LaunchReport};
use crate::enforcement::{Cage, Limits, Mechanism};
use crate::runner::logs::Logs;
use crate::runner::meter::{Meter, accumulate};
use crate::runner::options::RunnerOptions;
use crate::runner::output_store::RunFolder;
use crate::runner::run_spec::RunSpec;
use crate::runner::scratch::Scratch;
use crate::runner::scratch_meter::ScratchMeter;
use crate::runner::starting::{Kind, Slot, Waiting, WarmSlots, slot};
use crate::runner::stop_cause::StopWatch;
use crate::runner::verdict::Verdict;

/// What a run with processes of its own is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) spec: &'a RunSpec,
    pub(crate) folder: &'a RunFolder,
    pub(crate) scratch: &'a Scratch,
    /// The file with what it may use, if it reads one.
    pub(crate) allocation: Option<&'a AllocationFile>,
    pub(crate) slots: &'a WarmSlots,
    pub(crate) mechanism: Mechanism,
    pub(crate) options: &'a RunnerOptions,
}

/// How such a run ended.
#[derive(Debug)]
pub(crate) struct CagedEnd {
    pub(crate) verdict: Verdict,
    pub(crate) usage: Option<v1::Usage>,
    pub(crate) log_tail: String,
    /// A small result (JSON); empty if there is none.
    pub(crate) result: String,
}

/// Around the processes of one run, while it lasts.
#[derive(Debug)]
pub(crate) struct Enclosure {
    pub(crate) cage: Arc<dyn Cage>,
    pub(crate) watch: StopWatch,
    pub(crate) logs: Logs,
    children: ChildUsage,
    on_disk: ScratchMeter,
    meter: Meter,
    started: Instant,
    mechanism: Mechanism,
}

impl Surroundings<'_> {
    /// Sets everything up around what is ready for a run of this kind, or is made ready now.
    pub(crate) async fn set_up(&self, kind: Kind) -> Result<(Enclosure, Waiting), CagedEnd> {
        let (spec, started) = (self.spec, Instant::now());
        let on_disk = ScratchMeter::start(self.scratch.work(), spec.reservation.scratch, spec.usage.clone());
        let out_of_memory = CancellationToken::new();
        let watch = StopWatch::start(spec.stop.clone(), spec.limit, out_of_memory.clone(), on_disk.overuse());
        let limits = Limits::of(&spec.reservation);
        let starting = self.slots.start(spec.run.to_string(), &spec.unit.name, kind, limits);
        let Slot { cage, before, waiting } = tokio::select! {
            biased;
            started = starting => {
                started.map_err(|error| CagedEnd::before(Verdict::failed(error.outcome(), error.to_string())))?
            }
            cause = watch.cause() => return Err(CagedEnd::before(Verdict::stopped(&cause))),
        };
        let follower = self.follower(Arc::clone(&cage));
        let meter = Meter::start(Arc::clone(&cage), before, spec.usage.clone(), out_of_memory, follower);
        let logs = Logs::new(self.folder, self.options.log_limit);
        let (children, mechanism) = (ChildUsage::default(), self.mechanism);
        Ok((Enclosure { cage, watch, logs, children, on_disk, meter, started, mechanism }, waiting))
    }

    fn follower(&self, cage: Arc<dyn Cage>) -> Option<Follower> {
        let limited = self.mechanism != Mechanism::Rusage;
        let bounds = Bounds::of(&self.spec.unit, self.spec.reservation.memory, limited);
        Follower::new(&self.spec.allocation, bounds, Some(cage), self.allocation.cloned())
    }
}

impl Enclosure {
    /// Takes account of what a launcher said of a process that has ended.
    pub(crate) fn note(&mut self, report: &Result<LaunchReport, String>) {
        if let Ok(LaunchReport::Ended(ended)) = report {
            accumulate(&mut self.children, &ended.usage);
            if ended.left_behind > 0 {
                tracing::info!(processes = ended.left_behind, "a run left processes behind; they were killed");
            }
        }
    }

    /// Takes everything down. Then none of the run's processes is left, nor its cage.
    pub(crate) async fn take_down(self, verdict: Verdict, result: String) -> CagedEnd {
        let Self { cage, logs, children, on_disk, meter, started, mechanism, .. } = self;
        drop(on_disk);
        let log_tail = logs.close().await;
        let measured = meter.finish().await;
        slot::dismantle(&cage).await;
        let usage = measured.usage(&children, started.elapsed(), mechanism);
        CagedEnd { verdict, usage: Some(usage), log_tail, result }
    }
}

impl CagedEnd {
    /// It ended before there was a cage.
    fn before(verdict: Verdict) -> Self {
        Self { verdict, usage: None, log_tail: String::new(), result: String::new() }
    }
}
