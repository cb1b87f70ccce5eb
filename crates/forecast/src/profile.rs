//! What is known of one unit from its runs: memory by the [`crate::experts`], with the ladder that follows; duration, CPU
//! and I/O by the same guesses.

use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Reservation, ResourceVector};

use crate::declared::{Declared, DeclaredForecaster};
use crate::experts::{Allowance, ExpertOptions, PROBABILITIES, Sized, Strangers, Target, UnitSizer};
use crate::features::{Features, Source};
use crate::forecast::{Forecast, Need, NeedQuantile};
use crate::observation::{LARGEST_MEMORY, Sample};

/// The least CPU reserved, in thousandths of a core.
const LEAST_CPU: f64 = 50.0;

/// CPU above what was measured. A run that is held back by its limit is measured at that limit: with headroom the
/// reservation grows from run to run until the limit no longer binds.
const CPU_HEADROOM: f64 = 1.15;

/// What a duration is above the quantile: a part that never goes away, and one for what a short history has not shown,
/// divided by its length.
const DURATION_MARGIN: (f64, f64) = (0.10, 0.60);

/// Index of the 90th and the 95th percentile in [`PROBABILITIES`].
const P90: usize = 1;
const P95: usize = 2;

/// What stands for a rate of nothing: logarithms need something.
const NEXT_TO_NOTHING: f64 = 1.0;

/// What is known of one unit.
#[derive(Debug)]
pub(crate) struct Profile {
    memory: UnitSizer,
    seconds: Target,
    cpu_millis: Target,
    io_bytes_per_second: Target,
    /// When it last learnt, in the forecaster's count of observations.
    pub(crate) last_used: u64,
}

impl Profile {
    pub(crate) fn new(options: ExpertOptions) -> Self {
        Self {
            memory: UnitSizer::new(options),
            seconds: Target::default(),
            cpu_millis: Target::default(),
            io_bytes_per_second: Target::default(),
            last_used: 0,
        }
    }

    /// Runs remembered.
    pub(crate) fn len(&self) -> usize {
        self.memory.successes() + self.memory.unsettled()
    }

    /// Learns from a run, in amortised constant time.
    pub(crate) fn learn(&mut self, sample: &Sample, allowance: Allowance) {
        let size = sample.input_bytes as f64;
        if sample.censored {
            self.memory.learn_kill(size, sample.memory as f64);
            return;
        }
        self.memory.learn(size, sample.memory as f64, sample.seconds * 1000.0, allowance);
        self.seconds.learn(size, sample.seconds);
        self.cpu_millis.learn(size, sample.cpu_millis.max(NEXT_TO_NOTHING));
        self.io_bytes_per_second.learn(size, sample.io_bytes_per_second.max(NEXT_TO_NOTHING));
    }

    /// What history says of this shard; `None` if there is no success, and no kill that concerns it.
    pub(crate) fn forecast(
        &self,
        features: &Features,
        declared: &Declared,
        fallback: &DeclaredForecaster,
    ) -> Option<Forecast> {
        let said = fallback.reservation(declared);
        let size = features.input_bytes as f64;
        let sized = self.memory.size(size, allowance(declared, &said))?;
        let runs = self.memory.successes();
        // Of what never succeeded only memory is known.
        let at_declared = |value: u64| [value as f64; 4];
        let cpu = self.cpu_millis.quantiles(size);
        let io = self.io_bytes_per_second.quantiles(size);
        let seconds = self.seconds.quantiles(size);
        let vector = ResourceVector {
            cpu: cpu.map_or(said.vector.cpu, |cpu| CpuMillis::from_f64((cpu[P90] * CPU_HEADROOM).max(LEAST_CPU))),
            // I/O is reserved only where its owner declared some: most workers offer none of it.
            io: match io {
                Some(io) if said.vector.io.0 > 0 => BytesPerSecond::from_f64(rate(io[P90])),
                _ => said.vector.io,
            },
            // Scratch disk and named resources are as declared: nobody measures what would have been enough.
            ..said.vector.clone()
        };
        let margin = DURATION_MARGIN.0 + DURATION_MARGIN.1 / runs.max(1) as f64;
        let duration = seconds.map_or(said.duration, |seconds| self::seconds(seconds[P95] * (1.0 + margin)));
        let cpu = cpu.unwrap_or(at_declared(said.vector.cpu.0));
        let io = io.map_or(at_declared(said.vector.io.0), |io| io.map(rate));
        let seconds = seconds.unwrap_or([said.duration.as_secs_f64(); 4]);
        let need = PROBABILITIES.iter().enumerate().map(|(index, probability)| NeedQuantile {
            probability: *probability,
            cpu_millis: cpu[index],
            memory_bytes: sized.quantiles[index],
            io_bytes_per_second: io[index],
            duration: self::seconds(seconds[index]),
        });
        let need = Need::new(need.collect());
        Some(forecast(&sized, runs, need, Reservation::new(vector, duration), declared))
    }
}

/// Of a unit that never ran: its memory is what others needed of theirs, all else is as declared. `None` while too few
/// are known, or if nothing was declared.
pub(crate) fn of_a_stranger(
    strangers: &Strangers,
    declared: &Declared,
    fallback: &DeclaredForecaster,
) -> Option<Forecast> {
    if declared.reservation.vector.memory == Bytes::ZERO {
        return None;
    }
    let said = fallback.reservation(declared);
    let memory = said.vector.memory.0 as f64;
    let rungs = strangers.ladder(memory);
    if rungs.len() < 2 {
        return None;
    }
    let units = strangers.len();
    let covers = units as f64 / (units as f64 + 1.0);
    let need = Need::new(vec![NeedQuantile {
        probability: covers,
        cpu_millis: said.vector.cpu.0 as f64,
        memory_bytes: rungs[0],
        io_bytes_per_second: said.vector.io.0 as f64,
        duration: said.duration,
    }]);
    let sized = Sized { by: "transfer", rungs, covers, quantiles: [memory; 4] };
    Some(forecast(&sized, units, need, said, declared))
}

/// The profile's memory in a reservation that has everything else.
fn forecast(sized: &Sized, of: usize, need: Need, reservation: Reservation, declared: &Declared) -> Forecast {
    let planned: Vec<Bytes> = sized.rungs.iter().map(|rung| Bytes::from_f64(rung.min(LARGEST_MEMORY as f64))).collect();
    let memory = planned.first().copied().unwrap_or(reservation.vector.memory);
    let vector = ResourceVector { memory, ..reservation.vector };
    let version = format!("profile-2/{}/{of}", sized.by);
    let reservation = Reservation::new(vector, reservation.duration);
    Forecast::new(Source::Profile, version, need, sized.covers, reservation, &planned, declared)
}

/// What the experts must know of a declaration; `said` is it, completed.
pub(crate) fn allowance(declared: &Declared, said: &Reservation) -> Allowance {
    Allowance { declared: said.vector.memory.0 as f64, most: declared.maximum_memory().map(|maximum| maximum.0 as f64) }
}

fn rate(learnt: f64) -> f64 {
    if learnt > NEXT_TO_NOTHING { learnt } else { 0.0 }
}

/// A duration of so many seconds, at most a century.
fn seconds(value: f64) -> Duration {
    const CENTURY: f64 = 100.0 * 365.25 * 86_400.0;
    Duration::try_from_secs_f64(value.clamp(0.0, CENTURY)).unwrap_or(Duration::ZERO)
}
