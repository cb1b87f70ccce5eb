//! What of the capacity belongs to a priority.

use forecastle_resources::{Priority, Resource, ResourceVector};

/// Guaranteed parts and upper bounds by priority.
///
/// A claim is guaranteed as a whole or not: a guarantee without I/O is of no use to a claim with some. So a guaranteed
/// part should have some of every resource that the priority's claims ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares {
    guaranteed: [ResourceVector; Priority::ALL.len()],
    maximum: [ResourceVector; Priority::ALL.len()],
}

/// Shares that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharesError {
    /// The guaranteed parts are more than there is.
    #[error("the guaranteed shares of {0} are together more than the capacity")]
    Overcommitted(Resource),
    /// A priority may not hold what it is guaranteed.
    #[error("the maximum share of {resource} of priority {priority} is below what is guaranteed to it")]
    MaximumBelowGuarantee {
        /// The priority.
        priority: Priority,
        /// The resource.
        resource: Resource,
    },
}

impl Shares {
    /// No priority has anything for itself, and none is bounded.
    pub fn none() -> Self {
        Self::default()
    }

    /// The same shares, with this much guaranteed to a priority.
    #[must_use]
    pub fn with_guaranteed(mut self, priority: Priority, vector: ResourceVector) -> Self {
        self.guaranteed[index(priority)] = vector;
        self
    }

    /// The same shares, with this as the most that a priority may hold; entries that are zero are not bounded.
    #[must_use]
    pub fn with_maximum(mut self, priority: Priority, vector: ResourceVector) -> Self {
        self.maximum[index(priority)] = vector;
        self
    }

    /// What is guaranteed to a priority.
    pub fn guaranteed(&self, priority: Priority) -> &ResourceVector {
        &self.guaranteed[index(priority)]
    }

    /// The most that a priority may hold; entries that are zero are not bounded.
    pub fn maximum(&self, priority: Priority) -> &ResourceVector {
        &self.maximum[index(priority)]
    }

    /// What is guaranteed to all priorities together.
    pub fn all_guaranteed(&self) -> ResourceVector {
        self.guaranteed.iter().fold(ResourceVector::ZERO, |sum, part| sum.saturating_add(part))
    }

    /// Whether these shares of `capacity` can be kept.
    pub fn check(&self, capacity: &ResourceVector) -> Result<(), SharesError> {
        if let Some(resource) = self.all_guaranteed().exceeds(capacity) {
            return Err(SharesError::Overcommitted(resource));
        }
        for priority in Priority::ALL {
            if let Some(resource) = self.over_maximum(priority, self.guaranteed(priority)) {
                return Err(SharesError::MaximumBelowGuarantee { priority, resource });
            }
        }
        Ok(())
    }

    /// The first bounded resource of which `held` is more than the priority may hold.
    pub(crate) fn over_maximum(&self, priority: Priority, held: &ResourceVector) -> Option<Resource> {
        let maximum = self.maximum(priority);
        entries(maximum).into_iter().find(|(resource, most)| held.get(resource) > *most).map(|(resource, _)| resource)
    }
}

/// A priority's place in arrays by priority.
pub(crate) const fn index(priority: Priority) -> usize {
    match priority {
        Priority::Urgent => 0,
        Priority::Standard => 1,
        Priority::Batch => 2,
    }
}

/// The entries of a vector that are not zero.
pub(crate) fn entries(vector: &ResourceVector) -> Vec<(Resource, u64)> {
    let plain = [Resource::Cpu, Resource::Memory, Resource::Io, Resource::Scratch].map(|resource| {
        let amount = vector.get(&resource);
        (resource, amount)
    });
    let named = vector.named.iter().map(|(name, amount)| (Resource::Named(name.clone()), *amount));
    plain.into_iter().chain(named).filter(|(_, amount)| *amount > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_resources::{Bytes, CpuMillis};

    fn vector(cpu: u64, gib: u64) -> ResourceVector {
        ResourceVector::new(CpuMillis(cpu), Bytes::gib(gib))
    }

    #[test]
    fn what_cannot_be_kept_is_named() {
        let capacity = vector(1000, 4);
        let half = Shares::none().with_guaranteed(Priority::Urgent, vector(500, 2));
        assert_eq!(half.check(&capacity), Ok(()));
        let over = half.clone().with_guaranteed(Priority::Batch, vector(500, 3));
        assert_eq!(over.check(&capacity), Err(SharesError::Overcommitted(Resource::Memory)));
        let gpu = half.clone().with_guaranteed(Priority::Batch, ResourceVector::ZERO.with_named("gpu", 1));
        assert_eq!(gpu.check(&capacity), Err(SharesError::Overcommitted(Resource::Named("gpu".into()))));
        let low = half.with_maximum(Priority::Urgent, vector(499, 0));
        let error = low.check(&capacity).unwrap_err();
        assert_eq!(error.to_string(), "the maximum share of cpu of priority urgent is below what is guaranteed to it");
    }

    #[test]
    fn the_order_of_arrays_is_that_of_priorities() {
        for (place, priority) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(index(priority), place);
        }
    }
}
