//! How leases follow what runs use.

use std::time::Duration;

use forecastle_admission::AdjustmentPolicy;
use forecastle_catalogue::HumanDuration;
use forecastle_resources::{Bytes, BytesPerSecond};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How leases follow what runs use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdjustmentOptions {
    /// Without it a run holds what it reserved until it ends.
    pub enabled: bool,
    /// Between two samples of a run that is far from its limit.
    pub interval: HumanDuration,
    /// Between two samples of a run that is close to its limit.
    pub shortest_interval: HumanDuration,
    /// The fastest growth of memory that is met before the limit. The faster, the more headroom every run has.
    pub fastest_growth: BytesPerSecond,
    /// A lease grows by what its run would take within this time, at the speed that was seen.
    pub ahead: HumanDuration,
    /// What a lease that shrinks keeps above the most that was used, as a part of it.
    pub margin: f64,
    /// How long a run must have used no more than before until its lease shrinks.
    pub settle: HumanDuration,
    /// Below this much memory available to the machine (or this process's cgroup), batch runs are stopped and run again
    /// elsewhere, and no lease grows. Zero never stops one.
    pub least_available: Bytes,
}

impl Default for AdjustmentOptions {
    fn default() -> Self {
        let policy = AdjustmentPolicy::default();
        Self {
            enabled: true,
            interval: HumanDuration(policy.longest_interval),
            shortest_interval: HumanDuration(policy.shortest_interval),
            fastest_growth: policy.fastest_growth,
            ahead: HumanDuration(policy.ahead),
            margin: policy.margin,
            settle: HumanDuration(policy.settle),
            least_available: policy.least_available,
        }
    }
}

impl AdjustmentOptions {
    /// The policy, if there is one.
    pub fn policy(&self) -> Option<AdjustmentPolicy> {
        self.enabled.then_some(AdjustmentPolicy {
            fastest_growth: self.fastest_growth,
            shortest_interval: self.shortest_interval.0,
            longest_interval: self.interval.0,
            ahead: self.ahead.0,
            margin: self.margin,
            settle: self.settle.0,
            least_available: self.least_available,
        })
    }

    /// Adds what is wrong, each with its key.
    pub fn check(&self, problems: &mut Vec<String>) {
        let between = |key: &str, value: &HumanDuration, least: Duration, most: Duration| {
            let bounds = format!("{} and {}", HumanDuration(least), HumanDuration(most));
            (value.0 < least || value.0 > most).then(|| format!("adjustment.{key}: {value} is not between {bounds}"))
        };
        let milliseconds = Duration::from_millis;
        problems.extend(between("interval", &self.interval, milliseconds(10), milliseconds(10_000)));
        problems.extend(between("shortest_interval", &self.shortest_interval, milliseconds(1), milliseconds(1000)));
        problems.extend(between("ahead", &self.ahead, milliseconds(10), Duration::from_mins(1)));
        problems.extend(between("settle", &self.settle, milliseconds(100), Duration::from_hours(1)));
        if self.shortest_interval.0 > self.interval.0 {
            problems.push(format!(
                "adjustment.shortest_interval: {} is longer than adjustment.interval, {}",
                self.shortest_interval, self.interval
            ));
        }
        if self.fastest_growth == BytesPerSecond::ZERO {
            problems
                .push("adjustment.fastest_growth: it is zero; adjustment.enabled = false adjusts nothing".to_owned());
        }
        if !(0.0..=10.0).contains(&self.margin) {
            problems.push(format!("adjustment.margin: {} is not between 0 and 10", self.margin));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_its_key_and_the_defaults_are_sound() {
        let check = |options: &AdjustmentOptions| {
            let mut problems = Vec::new();
            options.check(&mut problems);
            problems
        };
        assert_eq!(check(&AdjustmentOptions::default()), [] as [String; 0]);
        assert_eq!(AdjustmentOptions::default().policy(), Some(AdjustmentPolicy::default()));
        assert_eq!(AdjustmentOptions { enabled: false, ..Default::default() }.policy(), None);
        let wrong = AdjustmentOptions {
            interval: HumanDuration(Duration::ZERO),
            ahead: HumanDuration(Duration::ZERO),
            settle: HumanDuration(Duration::ZERO),
            fastest_growth: BytesPerSecond::ZERO,
            margin: f64::NAN,
            ..AdjustmentOptions::default()
        };
        let problems = check(&wrong);
        for key in ["interval", "shortest_interval", "ahead", "settle", "fastest_growth", "margin"] {
            let named = format!("adjustment.{key}:");
            assert!(problems.iter().any(|problem| problem.starts_with(&named)), "{named} is not in {problems:#?}");
        }
        assert_eq!(problems.len(), 6, "{problems:#?}");
    }
}
