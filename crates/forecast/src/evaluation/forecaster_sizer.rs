//! The forecasters of this crate, judged: the very code that the frontend runs, with its configuration.

use std::time::Duration;

use forecastle_resources::{Bytes, CpuMillis, Reservation, ResourceVector};

use crate::declared::Declared;
use crate::evaluation::run::Run;
use crate::evaluation::sizer::Sizer;
use crate::features::Features;
use crate::forecast::Forecaster;
use crate::observation::{Ending, Learner, Observation};

/// What is declared to take, where traces say nothing of it.
const DECLARED_DURATION: Duration = Duration::from_mins(1);

/// A forecaster as a sizer.
#[derive(Debug, Default)]
pub struct ForecasterSizer<F> {
    forecaster: F,
}

impl<F> ForecasterSizer<F> {
    /// Judges this forecaster.
    pub fn new(forecaster: F) -> Self {
        Self { forecaster }
    }
}

fn features(run: &Run) -> Features {
    Features {
        request_type: "trace".to_owned(),
        unit: run.kind.clone(),
        input_bytes: Bytes::from_f64(run.input).0,
        input_items: 1,
        ..Features::default()
    }
}

/// The preset is what is declared and the most that is ever given.
fn declared(run: &Run) -> Declared {
    let preset = Bytes::from_f64(run.preset);
    Declared {
        reservation: Reservation::new(ResourceVector::new(CpuMillis::cores(1), preset), DECLARED_DURATION),
        minimum: ResourceVector::ZERO,
        maximum: ResourceVector::new(CpuMillis::ZERO, preset),
    }
}

fn milliseconds(time: f64) -> Duration {
    Duration::try_from_secs_f64(time / 1000.0).unwrap_or(Duration::ZERO)
}

impl<F: Forecaster + Learner> Sizer for ForecasterSizer<F> {
    fn ladder(&mut self, run: &Run) -> Vec<f64> {
        let forecast = self.forecaster.forecast(&features(run), &declared(run));
        forecast.ladder.iter().map(|rung| rung.0 as f64).collect()
    }

    fn learn(&mut self, run: &Run) {
        self.forecaster.observe(&Observation {
            features: features(run),
            declared: declared(run),
            ending: Ending::Succeeded,
            memory: Bytes::from_f64(run.needed),
            cpu_time: milliseconds(run.time * run.cpu_millis / 1000.0),
            io_bytes: Bytes::from_f64(run.io_bytes).0,
            duration: milliseconds(run.time),
        });
    }
}
