//! A chain of experts that always answers.

use std::sync::Arc;

use crate::declared::{Declared, DeclaredForecaster};
use crate::features::Features;
use crate::forecast::{Expert, Forecast, Forecaster};

/// Asks its experts in order (a model, then the profile); the first that knows something answers. If none does, it is
/// what was declared, and where nothing was, the default. So a missing or stale expert never stops work.
#[derive(Clone)]
pub struct FallbackForecaster {
    experts: Vec<Arc<dyn Expert>>,
    last: DeclaredForecaster,
}

impl FallbackForecaster {
    /// A chain of these experts, the best first, over the declared values.
    pub fn new(experts: Vec<Arc<dyn Expert>>, last: DeclaredForecaster) -> Self {
        Self { experts, last }
    }
}

impl Forecaster for FallbackForecaster {
    fn forecast(&self, features: &Features, declared: &Declared) -> Forecast {
        self.experts
            .iter()
            .find_map(|expert| expert.consider(features, declared))
            .unwrap_or_else(|| self.last.forecast(features, declared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Source;
    use crate::forecaster::ProfileForecaster;
    use crate::observation::{Ending, Learner, Observation};
    use forecastle_resources::{Bytes, CpuMillis, Reservation, ResourceVector};
    use std::time::Duration;

    struct Ignorant;
    impl Expert for Ignorant {
        fn consider(&self, _: &Features, _: &Declared) -> Option<Forecast> {
            None
        }
    }

    #[test]
    fn profile_then_declared_then_default() {
        let profile = Arc::new(ProfileForecaster::default());
        let experts: Vec<Arc<dyn Expert>> = vec![Arc::new(Ignorant), Arc::clone(&profile) as Arc<dyn Expert>];
        let chain = FallbackForecaster::new(experts, DeclaredForecaster::default());
        let features = Features { request_type: "t".into(), unit: "u".into(), ..Features::default() };
        let declared = Declared::unbounded(Reservation::new(
            ResourceVector::new(CpuMillis(100), Bytes::gib(1)),
            Duration::from_secs(1),
        ));
        assert_eq!(chain.forecast(&features, &Declared::default()).source, Source::Default);
        assert_eq!(chain.forecast(&features, &declared).source, Source::Declared);
        profile.observe(&Observation {
            features: features.clone(),
            declared: declared.clone(),
            ending: Ending::Succeeded,
            memory: Bytes::mib(50),
            cpu_time: Duration::from_secs(1),
            io_bytes: 0,
            duration: Duration::from_secs(2),
        });
        assert_eq!(chain.forecast(&features, &declared).source, Source::Profile);
        let other = Features { unit: "other".into(), ..features };
        assert_eq!(chain.forecast(&other, &declared).source, Source::Declared);
    }
}
