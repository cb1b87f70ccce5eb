//! The experts, judged.

use std::collections::HashMap;

use crate::evaluation::run::Run;
use crate::evaluation::sizer::Sizer;
use crate::experts::{Allowance, Strangers, UnitSizer};

/// Experts for each kind.
#[derive(Debug, Default)]
pub struct ExpertsSizer {
    kinds: HashMap<String, UnitSizer>,
    strangers: Strangers,
}

impl Sizer for ExpertsSizer {
    fn ladder(&mut self, run: &Run) -> Vec<f64> {
        let allowance = Allowance { declared: run.preset, most: Some(run.preset) };
        match self.kinds.get(&run.kind).and_then(|unit| unit.size(run.input, allowance)) {
            Some(sized) => sized.rungs,
            None => self.strangers.ladder(run.preset),
        }
    }

    fn learn(&mut self, run: &Run) {
        let unit = self.kinds.entry(run.kind.clone()).or_default();
        unit.learn(run.input, run.needed, run.time, Allowance { declared: run.preset, most: Some(run.preset) });
        self.strangers.learn(&run.kind, run.needed, run.preset);
    }
}
