//! The pool against a model that keeps a list and adds it up each time.

use std::time::Duration;

use forecastle_admission::{Acquisition, Claim, LeaseId, Pool, ResizeError, Time, UnknownLease};
use forecastle_resources::{Priority, ResourceVector};
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::random::{Amounts, HORIZON, Setting, amounts, priorities, resources, seconds, settings, vector};

#[derive(Debug, Clone)]
struct Entry {
    priority: usize,
    held: Amounts,
    lasting: bool,
    since: u64,
    seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Nothing,
    Acquired,
    Blocked,
    Never,
    Freed(Amounts),
    Unknown,
}

#[derive(Debug, Clone)]
struct Model {
    setting: Setting,
    now: u64,
    /// Every lease that ever was; ended ones hold `None`.
    leases: Vec<Option<Entry>>,
    expected: Expected,
}

#[derive(Debug, Clone)]
enum Step {
    Acquire {
        priority: Priority,
        amounts: Amounts,
        seconds: u64,
    },
    /// Of any lease that ever was, so also of ended ones.
    Release(prop::sample::Index),
    Resize(prop::sample::Index, Amounts),
    Pass(u64),
}

impl Model {
    fn sum(&self, of: impl Fn(&Entry) -> u64) -> u64 {
        self.leases.iter().flatten().map(of).sum()
    }

    fn common(&self, r: usize) -> u64 {
        self.setting.capacity[r] - self.setting.guaranteed.iter().map(|g| g[r]).sum::<u64>()
    }

    /// Whether capacity, common part and maximums are kept of one resource. `grows`: the priority whose maximum
    /// counts.
    fn holds(&self, r: usize, grows: usize) -> bool {
        let beyond: u64 = (0..3)
            .map(|p| {
                let lasting = self.sum(|e| if e.priority == p && e.lasting { e.held[r] } else { 0 });
                lasting.saturating_sub(self.setting.guaranteed[p][r])
            })
            .sum();
        let of_priority = self.sum(|e| if e.priority == grows { e.held[r] } else { 0 });
        let most = self.setting.maximum[grows][r];
        self.sum(|e| e.held[r]) <= self.setting.capacity[r]
            && beyond <= self.common(r)
            && (most == 0 || of_priority <= most)
    }

    fn acquire(&mut self, priority: Priority, held: Amounts, seconds: u64) -> Expected {
        let entry =
            Entry { priority: priority as usize, held, lasting: seconds > HORIZON.as_secs(), since: self.now, seconds };
        let fits = |model: &Self| (0..held.len()).all(|r| held[r] == 0 || model.holds(r, entry.priority));
        let alone = Self { leases: vec![Some(entry.clone())], ..self.clone() };
        if !fits(&alone) {
            return Expected::Never;
        }
        let mut next = self.clone();
        next.leases.push(Some(entry.clone()));
        if !fits(&next) {
            return Expected::Blocked;
        }
        self.leases = next.leases;
        Expected::Acquired
    }

    fn resize(&mut self, place: usize, held: Amounts) -> Expected {
        let Some(before) = self.leases[place].clone() else { return Expected::Unknown };
        let mut next = self.clone();
        next.leases[place] = Some(Entry { held, ..before.clone() });
        if !(0..held.len()).all(|r| held[r] <= before.held[r] || next.holds(r, before.priority)) {
            return Expected::Blocked;
        }
        self.leases = next.leases;
        Expected::Freed(std::array::from_fn(|r| before.held[r].saturating_sub(held[r])))
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        settings().prop_map(|setting| Self { setting, now: 0, leases: Vec::new(), expected: Expected::Nothing }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let acquire = (priorities(), amounts(), seconds()).prop_map(|(priority, amounts, seconds)| Step::Acquire {
            priority,
            amounts,
            seconds,
        });
        if state.leases.is_empty() {
            return acquire.boxed();
        }
        prop_oneof![
            5 => acquire,
            3 => any::<prop::sample::Index>().prop_map(Step::Release),
            3 => (any::<prop::sample::Index>(), amounts()).prop_map(|(which, amounts)| Step::Resize(which, amounts)),
            1 => (0u64..20).prop_map(Step::Pass),
        ]
        .boxed()
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        !state.leases.is_empty() || !matches!(step, Step::Release(_) | Step::Resize(..))
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        state.expected = match step {
            Step::Acquire { priority, amounts, seconds } => state.acquire(*priority, *amounts, *seconds),
            Step::Release(which) => {
                let place = which.index(state.leases.len());
                state.leases[place].take().map_or(Expected::Unknown, |entry| Expected::Freed(entry.held))
            }
            Step::Resize(which, amounts) => {
                let place = which.index(state.leases.len());
                state.resize(place, *amounts)
            }
            Step::Pass(seconds) => {
                state.now += seconds;
                Expected::Nothing
            }
        };
        state
    }
}

struct System {
    pool: Pool,
    /// In the order of the model's leases.
    ids: Vec<LeaseId>,
}

struct PoolMachine;

impl StateMachineTest for PoolMachine {
    type SystemUnderTest = System;
    type Reference = Model;

    fn init_test(model: &Model) -> System {
        System { pool: model.setting.pool(), ids: Vec::new() }
    }

    fn apply(mut system: System, model: &Model, step: Step) -> System {
        let before = system.pool.clone();
        match step {
            Step::Acquire { priority, amounts, seconds } => {
                let claim =
                    Claim { priority, vector: vector(&amounts), predicted_end_after: Duration::from_secs(seconds) };
                let available = before.available(priority, claim.predicted_end_after);
                let answer = system.pool.try_acquire(&claim, Time::from_secs(model.now));
                match (answer, &model.expected) {
                    (Acquisition::Acquired(id), Expected::Acquired) => {
                        assert!(claim.vector.fits_in(&available));
                        assert!(!system.ids.contains(&id), "{id} is used twice");
                        system.ids.push(id);
                    }
                    (Acquisition::BlockedOn(resource), Expected::Blocked)
                    | (Acquisition::NeverFits(resource), Expected::Never) => {
                        assert!(claim.vector.get(&resource) > available.get(&resource), "{resource} is not lacking");
                        assert_eq!(system.pool, before, "nothing may change");
                    }
                    (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
                }
            }
            Step::Release(which) => {
                let id = system.ids[which.index(system.ids.len())];
                let expected = match &model.expected {
                    Expected::Freed(held) => Ok(vector(held)),
                    _ => Err(UnknownLease(id)),
                };
                assert_eq!(system.pool.release(id), expected);
            }
            Step::Resize(which, amounts) => {
                let id = system.ids[which.index(system.ids.len())];
                match (system.pool.resize(id, &vector(&amounts)), &model.expected) {
                    (Ok(freed), Expected::Freed(expected)) => assert_eq!(freed, vector(expected)),
                    (Err(ResizeError::BlockedOn(_)), Expected::Blocked)
                    | (Err(ResizeError::Unknown(_)), Expected::Unknown) => assert_eq!(system.pool, before),
                    (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
                }
            }
            Step::Pass(_) => {}
        }
        system
    }

    fn check_invariants(system: &System, model: &Model) {
        let pool = &system.pool;
        assert_eq!(pool.free().saturating_add(&pool.held()), *pool.capacity(), "free and held are the capacity");
        for (r, resource) in resources().iter().enumerate() {
            assert!(pool.held().get(resource) <= model.setting.capacity[r]);
            for (p, priority) in Priority::ALL.into_iter().enumerate() {
                let expected = model.sum(|e| if e.priority == p { e.held[r] } else { 0 });
                assert_eq!(pool.held_by(priority).get(resource), expected);
            }
        }
        let alive: Vec<_> = system
            .ids
            .iter()
            .zip(&model.leases)
            .filter_map(|(id, entry)| entry.as_ref().map(|entry| (*id, entry)))
            .collect();
        assert_eq!(pool.leases().len(), alive.len(), "each lease that was not ended is held, and no other");
        for (lease, (id, entry)) in pool.leases().zip(alive) {
            assert_eq!((lease.id, &lease.vector), (id, &vector(&entry.held)));
            assert_eq!(lease.since, Time::from_secs(entry.since));
            assert_eq!(lease.predicted_end, Time::from_secs(entry.since + entry.seconds));
            assert_eq!(lease.may_borrow, !entry.lasting);
        }
    }

    fn teardown(mut system: System, _: Model) {
        for id in system.ids {
            let held = system.pool.lease(id).is_some();
            assert_eq!(system.pool.release(id).is_ok(), held);
        }
        assert_eq!(system.pool.held(), ResourceVector::ZERO);
        assert_eq!(system.pool.free(), *system.pool.capacity());
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 400, ..Config::default() })]

    #[test]
    fn the_pool_does_what_a_list_that_is_added_up_would_do(sequential 1..60 => PoolMachine);
}
