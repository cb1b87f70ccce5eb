//! Profiles of every unit, behind the traits.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use forecastle_resources::Bytes;

use crate::declared::{Declared, DeclaredForecaster};
use crate::experts::{ExpertOptions, Strangers};
use crate::features::Features;
use crate::forecast::{Expert, Forecast, Forecaster};
use crate::observation::{Learner, Observation, Rejection, Sample};
use crate::profile::{Profile, allowance, of_a_stranger};

/// What profiles are made with, and how many are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileOptions {
    /// Of each (request type, unit). One takes some 60 KB, and up to 200 KB more if it has thousands of different inputs.
    pub experts: ExpertOptions,
    /// The part of attempts that may be killed for memory, of request types that have one of their own.
    pub objectives: BTreeMap<String, f64>,
    /// Most (request type, unit) pairs remembered; the one that learnt least recently goes first.
    pub profiles: usize,
}

impl Default for ProfileOptions {
    /// The constants that were chosen, and 16,384 pairs.
    fn default() -> Self {
        Self { experts: ExpertOptions::default(), objectives: BTreeMap::new(), profiles: 16_384 }
    }
}

/// By request type, then by unit, so that looking one up copies no text.
type Profiles = HashMap<String, HashMap<String, Mutex<Profile>>>;

/// A profile of every (request type, unit): constant time for each run, and a bounded memory.
///
/// It learns CPU, memory, I/O and duration of successful runs and the limits of runs that were killed for memory, and
/// looks at the size of the input alone: tenant, items, parameters and machine are not told apart.
#[derive(Debug)]
pub struct ProfileForecaster {
    options: ProfileOptions,
    fallback: DeclaredForecaster,
    profiles: RwLock<Profiles>,
    strangers: RwLock<Strangers>,
    /// Observations that were learnt.
    learnt: AtomicU64,
    rejected: [AtomicU64; Rejection::ALL.len()],
}

impl Default for ProfileForecaster {
    fn default() -> Self {
        Self::new(ProfileOptions::default(), DeclaredForecaster::default())
    }
}

impl ProfileForecaster {
    /// Without any history yet. `fallback` completes what an owner did not declare.
    pub fn new(options: ProfileOptions, fallback: DeclaredForecaster) -> Self {
        Self {
            options,
            fallback,
            profiles: RwLock::default(),
            strangers: RwLock::default(),
            learnt: AtomicU64::new(0),
            rejected: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The part of attempts of this request type that may be killed for memory.
    pub fn objective(&self, request_type: &str) -> f64 {
        self.options.objectives.get(request_type).copied().unwrap_or(self.options.experts.objective)
    }

    /// Observations learnt so far.
    pub fn learnt(&self) -> u64 {
        self.learnt.load(Ordering::Relaxed)
    }

    /// Observations left out so far, by reason; reasons that never occurred are absent.
    pub fn rejected(&self) -> BTreeMap<Rejection, u64> {
        Rejection::ALL
            .into_iter()
            .zip(&self.rejected)
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// (Request type, unit) pairs remembered.
    pub fn profiles(&self) -> usize {
        self.read(|profiles| profiles.values().map(HashMap::len).sum())
    }

    /// Runs remembered, of all pairs.
    pub fn runs(&self) -> usize {
        self.read(|profiles| profiles.values().flat_map(HashMap::values).map(|p| lock(p).len()).sum())
    }

    fn read<T>(&self, with: impl FnOnce(&Profiles) -> T) -> T {
        with(&self.profiles.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes room for one more pair.
    fn make_room(&self, profiles: &mut Profiles) {
        while profiles.values().map(HashMap::len).sum::<usize>() >= self.options.profiles.max(1) {
            let oldest = profiles
                .iter()
                .flat_map(|(kind, units)| units.iter().map(move |(unit, p)| (lock(p).last_used, kind, unit)))
                .min()
                .map(|(_, kind, unit)| (kind.clone(), unit.clone()));
            let Some((kind, unit)) = oldest else { return };
            self.strangers.write().unwrap_or_else(PoisonError::into_inner).forget(&name(&kind, &unit));
            if let Some(units) = profiles.get_mut(&kind) {
                units.remove(&unit);
                if units.is_empty() {
                    profiles.remove(&kind);
                }
            }
        }
    }
}

/// Of a unit, among strangers.
fn name(request_type: &str, unit: &str) -> String {
    format!("{request_type}/{unit}")
}

/// A profile is whole between any two statements that could panic, so a poisoned lock is still good.
fn lock(profile: &Mutex<Profile>) -> MutexGuard<'_, Profile> {
    profile.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Learner for ProfileForecaster {
    fn observe(&self, observation: &Observation) {
        let sample = match Sample::of(observation) {
            Ok(sample) => sample,
            Err(reason) => {
                if let Some(count) = self.rejected.get(reason as usize) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        };
        let declared = &observation.declared;
        let allowance = allowance(declared, &self.fallback.reservation(declared));
        let now = self.learnt.fetch_add(1, Ordering::Relaxed);
        let learn = |profile: &Mutex<Profile>| {
            let mut profile = lock(profile);
            profile.learn(&sample, allowance);
            profile.last_used = now;
        };
        let Features { request_type, unit, .. } = &observation.features;
        let known = self.read(|profiles| profiles.get(request_type).and_then(|units| units.get(unit)).map(learn));
        if known.is_none() {
            let mut profiles = self.profiles.write().unwrap_or_else(PoisonError::into_inner);
            if !profiles.get(request_type).is_some_and(|units| units.contains_key(unit)) {
                self.make_room(&mut profiles);
            }
            let options = ExpertOptions { objective: self.objective(request_type), ..self.options.experts };
            let units = profiles.entry(request_type.clone()).or_default();
            learn(units.entry(unit.clone()).or_insert_with(|| Mutex::new(Profile::new(options))));
        }
        if !sample.censored && declared.reservation.vector.memory > Bytes::ZERO {
            let mut strangers = self.strangers.write().unwrap_or_else(PoisonError::into_inner);
            strangers.learn(&name(request_type, unit), sample.memory as f64, allowance.declared);
        }
    }
}

impl Expert for ProfileForecaster {
    /// Answers once a run of this (request type, unit) succeeded, or one was killed for memory that concerns it; or once
    /// runs of several others did, which shows how much owners need of what they declare.
    fn consider(&self, features: &Features, declared: &Declared) -> Option<Forecast> {
        let known = self.read(|profiles| {
            let profile = profiles.get(&features.request_type)?.get(&features.unit)?;
            lock(profile).forecast(features, declared, &self.fallback)
        });
        known.or_else(|| {
            let strangers = self.strangers.read().unwrap_or_else(PoisonError::into_inner);
            of_a_stranger(&strangers, declared, &self.fallback)
        })
    }
}

impl Forecaster for ProfileForecaster {
    fn forecast(&self, features: &Features, declared: &Declared) -> Forecast {
        self.consider(features, declared).unwrap_or_else(|| self.fallback.forecast(features, declared))
    }
}
