//! From what was seen of one run to the size of its lease. By component; scratch disk and named resources are never
//! adjusted.

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, ResourceVector};

use crate::adjustment::policy::AdjustmentPolicy;
use crate::adjustment::subject::Subject;
use crate::adjustment::usage::{MemoryTrack, RateTrack};
use crate::time::Time;

/// Each growth of memory multiplies the lease by at least this, so that few are enough; and at most by
/// [`MOST_GROWTH`], so that a burst does not take everything.
const LEAST_GROWTH: f64 = 1.25;
const MOST_GROWTH: f64 = 2.0;

/// What a lease gives back is at least this part of it: smaller gains are not worth a change.
const LEAST_GAIN: f64 = 0.1;

/// A rate above this part of what is held means that more could be used.
const SATURATED: f64 = 0.9;

/// A saturated rate grows by this factor.
const RATE_GROWTH: f64 = 1.5;

/// What is kept above the highest rate. Rates vary more than memory, and too little of them only delays.
const RATE_MARGIN: f64 = 0.25;

/// Windows that must have been seen before a rate is believed to be all that is needed.
const LEAST_WINDOWS: u32 = 3;

/// The least that a rate of I/O shrinks to: zero would be no limit at all.
const LEAST_IO: u64 = 1 << 20;

/// A growth of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Growth {
    /// What the lease should have.
    pub(crate) to: Bytes,
    /// What it must have not to be close to its limit.
    pub(crate) enough: Bytes,
}

/// The memory that a lease of `held` should have, if the run comes close to its limit: twice the reserve above what it
/// uses, and what it would use within [`ahead`](AdjustmentPolicy::ahead) at the speed that was seen. Unless it is to be
/// `frugal`, at least a quarter more than it has.
pub(crate) fn grown_memory(
    policy: &AdjustmentPolicy,
    subject: &Subject,
    track: &MemoryTrack,
    held: Bytes,
    frugal: bool,
    now: Time,
) -> Option<Growth> {
    let most = subject.most_memory();
    if !subject.memory_is_limited || held >= most {
        return None;
    }
    let reserve = policy.reserve(held);
    let coming = Bytes::from_f64(track.speed * policy.ahead.as_secs_f64());
    // Close: the reserve is touched, or the limit would be met within half of the time that is looked ahead. The latter
    // only where the run has never been: one that goes up and down fast would else grow and shrink for ever.
    let leaps = track.is_rising(policy.longest_interval * 4, now);
    let close = if leaps { reserve.max(coming.scale(0.5)) } else { reserve };
    if held.saturating_sub(track.now) >= close {
        return None;
    }
    let least = track.now.saturating_add(reserve).saturating_add(reserve);
    let by_factor = if frugal { held } else { held.scale(LEAST_GROWTH) };
    let wanted = least.saturating_add(coming).max(by_factor);
    let to = mebibytes(wanted.min(held.scale(MOST_GROWTH).max(least))).min(most);
    Some(Growth { to, enough: track.now.saturating_add(close).min(to) })
}

/// The memory that is kept of `held` by a run that has been steady; `None` if that would be no gain.
pub(crate) fn shrunk_memory(
    policy: &AdjustmentPolicy,
    subject: &Subject,
    track: &MemoryTrack,
    held: Bytes,
    is_early: bool,
) -> Option<Bytes> {
    if !subject.memory_is_limited {
        return None;
    }
    // Before half of such runs have ended, what half of them exceed is still to be expected.
    let expected = subject.need.typical_memory.filter(|_| is_early).unwrap_or_default();
    let kept = mebibytes(policy.kept(track.most.max(expected))).max(subject.minimum.memory);
    is_gain(kept.get(), held.get()).then_some(kept)
}

/// What a saturated rate of `held` should have, at most `ceiling`.
pub(crate) fn grown_rate(track: &RateTrack, held: u64, ceiling: u64) -> Option<u64> {
    let saturated = held > 0 && track.last >= SATURATED * held as f64;
    let wanted = CpuMillis(held).scale(RATE_GROWTH).get().min(ceiling);
    (saturated && wanted > held).then_some(wanted)
}

/// What is kept of a rate of `held`; `None` if that would be no gain.
pub(crate) fn shrunk_rate(track: &RateTrack, held: u64, least: u64) -> Option<u64> {
    let kept = CpuMillis::from_f64(track.most * (1.0 + RATE_MARGIN)).get().max(least);
    (track.windows >= LEAST_WINDOWS && is_gain(kept, held)).then_some(kept)
}

/// What a steady run keeps of `held`; `None` if nothing would be gained.
pub(crate) fn shrunk(
    policy: &AdjustmentPolicy,
    subject: &Subject,
    held: &ResourceVector,
    memory: Option<(&MemoryTrack, bool)>,
    cpu: &RateTrack,
    io: &RateTrack,
) -> Option<ResourceVector> {
    let mut kept = held.clone();
    if let Some((track, is_early)) = memory {
        kept.memory = shrunk_memory(policy, subject, track, held.memory, is_early).unwrap_or(held.memory);
    }
    let (least_cpu, least_io) = (subject.minimum.cpu.get().max(1), subject.minimum.io.get().max(LEAST_IO));
    kept.cpu = shrunk_rate(cpu, held.cpu.get(), least_cpu).map_or(held.cpu, CpuMillis);
    kept.io = shrunk_rate(io, held.io.get(), least_io).map_or(held.io, BytesPerSecond);
    (kept != *held).then_some(kept)
}

fn is_gain(kept: u64, held: u64) -> bool {
    (held.saturating_sub(kept)) as f64 >= LEAST_GAIN * held as f64 && kept < held
}

/// What is left of `held` when others want what is beyond the reservation.
pub(crate) fn without_excess(subject: &Subject, held: Bytes, most: Bytes) -> Bytes {
    subject.reserved.memory.max(mebibytes(most)).min(held)
}

/// Rounded up to whole mebibytes: a rounder number is easier to talk about, and kernels count in pages.
fn mebibytes(bytes: Bytes) -> Bytes {
    Bytes(bytes.get().div_ceil(1 << 20).saturating_mul(1 << 20))
}
