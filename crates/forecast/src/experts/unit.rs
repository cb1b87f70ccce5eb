//! The experts of one unit.

use std::collections::VecDeque;

use super::calibration::Calibration;
use super::fit::Fit;
use super::history::{History, Seen, push};
use super::kills::Kills;
use super::law::Law;
use super::options::ExpertOptions;
use super::plan::Plan;
use super::predictors::{COUNT, MEAN, NAMES, guess, guesses, residuals};
use super::repeats::Repeats;
use super::residuals::Residual;
use super::sized::{Allowance, PROBABILITIES, Sized, Terms};

/// Residuals below which there is no distribution.
const ENOUGH: usize = 2;

/// Repeated inputs below which something is assumed of them.
const ENOUGH_AGAIN: usize = 3;

/// Runs that are in the accounts below which these say nothing.
const ENOUGH_IN_ACCOUNTS: f64 = 3.0;

/// Runs below which nobody knows whether inputs matter that are much larger than all of them.
const ENOUGH_FOR_LARGER: usize = 8;

/// And how many times as much they get at most.
const FURTHEST_LARGER: f64 = 8.0;

/// A fit is made anew after so many parts of a history.
const FITS: usize = 16;

/// Where no maximum is declared, a ladder ends at so many times the largest need.
const FURTHEST: f64 = 8.0;

/// What an input gets that is probably the same as one before, of what that needed.
const SAME_AGAIN: f64 = 1.2;

/// What was killed gets at least so many times its limit, but for the cap.
const RISE: f64 = 1.1;

const MIB: f64 = (1 << 20) as f64;

/// Of a guess: what a process varies by from run to run.
const LEAST_MARGIN: f64 = 2.0 * MIB;

/// The least that is given: a process must be able to start.
const LEAST: f64 = 8.0 * MIB;

/// What all experts were off by on one run.
#[derive(Debug, Clone, Copy)]
struct Off {
    residuals: [f32; COUNT],
    need: f64,
    time: f64,
    terms: Terms,
}

/// Sizes the runs of one unit and learns from them. Memory is in bytes, time in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct UnitSizer {
    options: ExpertOptions,
    history: History,
    repeats: Repeats,
    kills: Kills,
    off: VecDeque<Off>,
    /// What runs on inputs of exactly the size of an earlier one were off by.
    again: VecDeque<Residual>,
    /// What each expert would have cost, faded.
    accounts: [f64; COUNT],
    /// Runs in them, faded.
    in_accounts: f64,
    /// What the present ladder of each expert would have cost on the runs remembered, faded.
    hindsight: [f64; COUNT],
    calibration: Calibration,
    /// Of each expert, and of inputs that come again.
    fits: Vec<Fit>,
    fit_again: Option<Fit>,
    law: Option<Law>,
    since_fit: usize,
    in_force: usize,
}

impl UnitSizer {
    /// One that has learnt nothing.
    pub fn new(options: ExpertOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Runs remembered that succeeded.
    pub fn successes(&self) -> usize {
        self.history.len()
    }

    /// Runs remembered that were killed, and that nothing has settled since.
    pub fn unsettled(&self) -> usize {
        self.kills.len()
    }

    /// The memory of the attempts for an input of this size. `None` if no run is known, or none that concerns it.
    pub fn size(&self, size: f64, allowance: Allowance) -> Option<Sized> {
        let terms = self.terms(allowance, self.law.as_ref().map_or(0.0, |law| law.at(size)));
        let floor = RISE * self.kills.limit(size);
        let mut sized = if self.off.len() >= ENOUGH {
            self.planned(size, &terms)
        } else if self.history.len() > 0 {
            self.cautious(size, &terms)
        } else if floor > 0.0 {
            // Nobody succeeded yet: all that is known is that what was declared may be too little.
            Sized::flat("kills", terms.declared.max(2.0 * self.kills.limit(size)), 0.5)
        } else {
            return None;
        };
        sized.raise(self.in_proportion(size).min(terms.declared).max(floor), terms.cap);
        Some(sized)
    }

    /// A run with an input of this size needed so much for so long. What cannot be true is left out.
    pub fn learn(&mut self, size: f64, need: f64, time: f64, allowance: Allowance) {
        let is_sound = |value: f64, least: f64| value.is_finite() && value >= least;
        if !(is_sound(size, 0.0) && is_sound(need, 1.0) && is_sound(time, 0.0)) {
            return;
        }
        // A run of no time weighs as one of a millisecond.
        let time = time.max(1.0);
        if self.history.len() > 0 {
            let terms = self.terms(allowance, need);
            let killed = self.first(size, allowance).is_some_and(|first| first < need);
            self.calibration.judge(killed, &self.options);
            let guesses = guesses(&self.history, size);
            if self.off.len() > ENOUGH {
                self.settle_accounts(&guesses, need, time, &terms);
            }
            let window = self.options.window;
            if let Some(before) = self.repeats.of(size) {
                push(&mut self.again, Residual { value: (need / before).ln(), time }, window);
            }
            let residuals = residuals(&guesses, need);
            push(&mut self.off, Off { residuals, need, time, terms }, window);
            self.since_fit += 1;
            // What was too low is taken in at once.
            if killed || self.since_fit > self.off.len() / FITS {
                self.fit();
            }
            self.in_force = self.least_wasteful();
        }
        self.kills.settle(size, need);
        self.history.push(Seen::new(size, need), self.options.window);
        self.repeats.push(size, need, self.options.sizes);
        if self.since_fit == 0 || self.law.as_ref().is_some_and(|law| !law.holds(size, need)) {
            self.law = Law::of(&self.history, self.typical_time(), &self.options);
        }
    }

    /// A run with an input of this size was killed at this limit: it needs more. What cannot be true is left out.
    pub fn learn_kill(&mut self, size: f64, limit: f64) {
        if size.is_finite() && limit.is_finite() && size >= 0.0 && limit >= 1.0 {
            self.calibration.judge(true, &self.options);
            self.kills.push(size, limit);
        }
    }

    fn first(&self, size: f64, allowance: Allowance) -> Option<f64> {
        self.size(size, allowance)?.rungs.first().copied()
    }

    /// What holds for a ladder; `need` is one that may be met and was not learnt.
    fn terms(&self, allowance: Allowance, need: f64) -> Terms {
        let cap = allowance.most.unwrap_or_else(|| {
            let largest = self.history.largest(|seen| seen.need).max(need);
            allowance.declared.max(FURTHEST * largest).max(2.0 * self.kills.limit(f64::INFINITY)).max(LEAST)
        });
        Terms { declared: allowance.declared, cap }
    }

    /// The best ladder there is of this many runs.
    fn planned(&self, size: f64, terms: &Terms) -> Sized {
        let guess = guess(&self.history, size, self.in_force);
        let fit = &self.fits[self.in_force];
        let mut choice = (self.by(self.in_force, guess, terms), guess, fit, NAMES[self.in_force]);
        if let (Some(need), Some(fit)) = (self.repeats.of(size), &self.fit_again) {
            let plan = fit.plan(need, terms.cap, |memory| self.kill(memory, terms));
            if plan.cost < choice.0.cost {
                choice = (plan, need, fit, "repeat");
            }
        }
        if let Some(law) = &self.law {
            let plan = law.fit.plan(law.at(size), terms.cap, |memory| self.kill(memory, terms));
            if plan.cost < choice.0.cost || law.is_beyond(size) {
                choice = (plan, law.at(size), &law.fit, "law");
            }
        }
        let (plan, guess, fit, by) = choice;
        let quantiles = PROBABILITIES.map(|probability| guess * fit.quantile(probability));
        let mut sized = Sized { by, rungs: plan.rungs, covers: plan.covers, quantiles };
        sized.raise((guess + LEAST_MARGIN).max(LEAST), terms.cap);
        sized
    }

    /// All fits together: what they cost is compared, so they are of the same runs.
    fn fit(&mut self) {
        self.since_fit = 0;
        let time = self.typical_time();
        let residual =
            |expert: usize| move |off: &Off| Residual { value: f64::from(off.residuals[expert]), time: off.time };
        self.fits = (0..COUNT)
            .map(|expert| Fit::of(&self.off.iter().map(residual(expert)).collect::<Vec<_>>(), time, &self.options))
            .collect();
        self.fit_again = Some(Fit::of(&self.off_again(), time, &self.options));
        self.hindsight = std::array::from_fn(|expert| self.hindsight_of(expert));
    }

    /// One plan, for the typical guess and terms, stretched to each run.
    fn hindsight_of(&self, expert: usize) -> f64 {
        let n = self.off.len() as f64;
        let guess_of = |off: &Off| off.need.ln() - f64::from(off.residuals[expert]);
        let mean = |of: &dyn Fn(&Off) -> f64| self.off.iter().map(of).sum::<f64>() / n;
        let typical = mean(&guess_of).exp();
        let terms = Terms { declared: mean(&|off| off.terms.declared), cap: mean(&|off| off.terms.cap) };
        let rungs = self.by(expert, typical, &terms).rungs;
        let below_the_cap = rungs.get(..rungs.len().saturating_sub(1)).unwrap_or_default();
        let mut total = 0.0;
        let mut ladder = Vec::with_capacity(rungs.len());
        for off in &self.off {
            let stretch = guess_of(off).exp() / typical;
            ladder.clear();
            ladder.extend(below_the_cap.iter().map(|rung| rung * stretch).take_while(|rung| *rung < off.terms.cap));
            ladder.push(off.terms.cap);
            total =
                total * self.options.fading + cost(&ladder, off.need, off.time, |memory| self.kill(memory, &off.terms));
        }
        total
    }

    /// For inputs of exactly the size of an earlier one, which are probably the same: how well they need what they needed
    /// then. It is learnt from all of the unit; before there are any, it is taken to hold within
    /// [`ExpertOptions::again`].
    fn off_again(&self) -> Vec<Residual> {
        let mut residuals: Vec<Residual> = self.again.iter().copied().collect();
        if residuals.len() < ENOUGH_AGAIN {
            let spread = self.options.again;
            residuals
                .extend([-spread, -0.5 * spread, 0.0, 0.5 * spread, spread].map(|value| Residual { value, time: 1.0 }));
        }
        residuals
    }

    fn kill(&self, memory: f64, terms: &Terms) -> f64 {
        self.options.kill(memory, terms.declared) * self.calibration.price()
    }

    /// The expert that would have cost least so far, by hindsight and by what it said before.
    fn least_wasteful(&self) -> usize {
        if self.in_accounts < ENOUGH_IN_ACCOUNTS {
            return MEAN;
        }
        let cost = |expert: usize| self.hindsight[expert] + self.options.foresight * self.accounts[expert];
        (0..COUNT).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(MEAN)
    }

    /// Each expert is charged for a run before that is learnt (the prequential principle: Dawid, JRSS A 147, 1984).
    fn settle_accounts(&mut self, guesses: &[f64; COUNT], need: f64, time: f64, terms: &Terms) {
        self.in_accounts = self.in_accounts * self.options.fading + 1.0;
        for (expert, guess) in guesses.iter().enumerate() {
            let rungs = self.by(expert, *guess, terms).rungs;
            let cost = cost(&rungs, need, time, |memory| self.options.kill(memory, terms.declared));
            self.accounts[expert] = self.accounts[expert] * self.options.fading + cost;
        }
    }

    /// The best ladder for a guess of this expert.
    fn by(&self, expert: usize, guess: f64, terms: &Terms) -> Plan {
        self.fits[expert].plan(guess, terms.cap, |memory| self.kill(memory, terms))
    }

    fn typical_time(&self) -> f64 {
        self.off.iter().map(|off| off.time).sum::<f64>() / self.off.len().max(1) as f64
    }

    /// Of a run or two: well above what they needed, and more for an input that is larger than theirs.
    fn cautious(&self, size: f64, terms: &Terms) -> Sized {
        let most = self.history.largest(|seen| seen.need);
        let first = if let Some(need) = self.repeats.of(size) {
            // The same again, probably.
            SAME_AGAIN * need
        } else if size <= 1.2 * self.history.largest(|seen| seen.size) {
            1.5 * most + (0.2 * most).min(64.0 * MIB)
        } else {
            2.0 * most + (0.5 * most).min(256.0 * MIB)
        };
        let seen = self.history.len() as f64;
        let mut sized = Sized::flat("cautious", most, seen / (seen + 1.0));
        sized.raise(first.max(most + LEAST_MARGIN).max(LEAST), terms.cap);
        sized
    }

    /// For an input of more than twice the largest seen, memory in proportion to that: but only while too few runs, or ones
    /// on inputs too much alike, cannot tell whether the size matters. Else nothing.
    fn in_proportion(&self, size: f64) -> f64 {
        let (largest, smallest) = (self.history.largest(|seen| seen.size), self.history.smallest(|seen| seen.size));
        let cannot_tell = self.history.len() < ENOUGH_FOR_LARGER || largest < 2.0 * smallest.max(1.0);
        if !cannot_tell || size <= 2.0 * largest {
            return 0.0;
        }
        SAME_AGAIN * self.history.largest(|seen| seen.need) * (size / largest.max(1.0)).min(FURTHEST_LARGER)
    }
}

/// What a run costs with these allocations, one after the other: what it held and did not need, and all of killed
/// attempts with what each costs beside.
fn cost(rungs: &[f64], need: f64, time: f64, kill: impl Fn(f64) -> f64) -> f64 {
    let mut cost = 0.0;
    for (place, rung) in rungs.iter().enumerate() {
        if *rung >= need || place + 1 == rungs.len() {
            return cost + (rung - need).max(0.0) * time;
        }
        cost += rung * time + kill(*rung);
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: f64 = 1024.0 * MIB;

    const ROOMY: Allowance = at_most(64.0 * GIB);

    const fn at_most(memory: f64) -> Allowance {
        Allowance { declared: memory, most: Some(memory) }
    }

    fn ladder(unit: &UnitSizer, size: f64, allowance: Allowance) -> Vec<f64> {
        unit.size(size, allowance).unwrap().rungs
    }

    fn learnt(runs: impl Iterator<Item = (f64, f64)>) -> UnitSizer {
        let mut unit = UnitSizer::default();
        runs.for_each(|(size, need)| unit.learn(size, need, 60_000.0, ROOMY));
        unit
    }

    #[test]
    fn what_repeats_exactly_gets_hardly_more_than_it_needs() {
        let unit = learnt((0..40).map(|_| (1e6, 2.0 * GIB)));
        let first = ladder(&unit, 1e6, ROOMY)[0] / GIB;
        assert!((2.0..2.05).contains(&first), "{first}");
    }

    #[test]
    fn what_grows_with_its_input_is_followed() {
        let unit = learnt((1..60).map(|n| (f64::from(n) * 1e6, f64::from(n) * 0.1 * GIB + GIB)));
        for n in [10.5, 30.5, 58.5] {
            let (first, need) = (ladder(&unit, n * 1e6, ROOMY)[0] / GIB, n * 0.1 + 1.0);
            assert!((need..1.35 * need).contains(&first), "{n}: {first} for {need}");
        }
    }

    #[test]
    fn an_input_that_comes_again_gets_what_it_needed_then_however_much_others_differ() {
        let need = |n: u32| f64::from(n * 7919 % 97 + 1) * 0.1 * GIB;
        let sizes = || (0..97u32).map(|n| (f64::from(n) * 1e6 + 1e9, need(n)));
        // Half of them came twice, so that it is known here that they repeat.
        let unit = learnt(sizes().chain(sizes().take(48)));
        for n in [60, 75, 90] {
            let first = ladder(&unit, f64::from(n) * 1e6 + 1e9, ROOMY)[0];
            assert!((need(n)..1.1 * need(n)).contains(&first), "{n}: {first} for {}", need(n));
        }
    }

    #[test]
    fn what_was_killed_is_not_given_all_there_is_at_once() {
        let unit = learnt((0..100).map(|n| (f64::from(n % 7) + 1.0, 4.0 * GIB)));
        let ladder = ladder(&unit, 3.0, ROOMY);
        assert!(ladder.len() > 2 && ladder[1] < 32.0 * GIB, "{ladder:?}");
    }

    #[test]
    fn a_rare_large_need_is_left_to_a_second_attempt_and_a_frequent_one_is_not() {
        let rare = learnt((0..200).map(|n| (1e6, if n % 40 == 7 { 20.0 * GIB } else { GIB })));
        let rungs = ladder(&rare, 1e6, ROOMY);
        assert!(rungs[0] < 2.0 * GIB && rungs.len() > 2, "{rungs:?}");
        let frequent = learnt((0..200).map(|n| (1e6, if n % 3 == 1 { 2.0 * GIB } else { GIB })));
        assert!(ladder(&frequent, 1e6, ROOMY)[0] >= 2.0 * GIB);
    }

    /// 50 units that behave differently from one run to the next, somewhere in runs 101 to 1,100.
    #[test]
    fn the_promise_on_kills_survives_a_change_overnight() {
        let mut killed = 0;
        for seed in 1..=50_u64 {
            let mut state = seed;
            // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), in [0, 1).
            let mut draw = || {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
            };
            let (change, times, noise) = (101.0 + 900.0 * draw(), 0.4 + 2.6 * draw(), 0.02 + 0.2 * draw());
            let (constant, slope) = (GIB * (0.2 + draw()), GIB * 3.0 * draw());
            let mut unit = UnitSizer::default();
            for run in 1..=1_100 {
                let size = draw();
                let level = if f64::from(run) < change { 1.0 } else { times };
                let need = (constant + slope * size) * level * (1.0 + noise * draw());
                killed += u32::from(run > 100 && ladder(&unit, size * 1e9, ROOMY)[0] < need);
                unit.learn(size * 1e9, need, 60_000.0, ROOMY);
            }
        }
        assert!(killed <= 750, "{killed} of 50,000 first attempts, promised were 1.5 % at most");
        assert!(killed > 0, "nothing is ever killed: that is no judgement");
    }

    #[test]
    fn nothing_learnt_says_nothing_and_nonsense_is_left_out() {
        let mut unit = UnitSizer::default();
        for (size, need, time) in [(f64::NAN, 1.0, 1.0), (1.0, f64::INFINITY, 1.0), (1.0, 0.0, 1.0), (-1.0, 1.0, 1.0)] {
            unit.learn(size, need, time, at_most(GIB));
        }
        assert_eq!(unit.size(1.0, ROOMY), None);
    }

    proptest! {
        #[test]
        fn ladders_rise_to_the_cap_whatever_was_learnt(
            runs in proptest::collection::vec((0.0f64..1e15, 1.0f64..1e13, 0.0f64..1e9), 0..50),
            size in 0.0f64..1e18, cap in 1.0f64..1e14,
        ) {
            let mut unit = UnitSizer::default();
            for (size, need, time) in &runs {
                unit.learn(*size, *need, *time, at_most(cap));
            }
            let Some(Sized { rungs: ladder, quantiles, covers, .. }) = unit.size(size, at_most(cap)) else {
                prop_assert!(runs.is_empty());
                return Ok(());
            };
            prop_assert!(quantiles.is_sorted() && (0.0..=1.0).contains(&covers));
            prop_assert!(ladder.is_sorted_by(|a, b| a < b) && ladder.last() == Some(&cap));
            prop_assert!(ladder.iter().all(|rung| rung.is_finite() && *rung > 0.0));
        }
    }
}
