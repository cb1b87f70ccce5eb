//! Between the messages and the types of `forecastle-resources`.

use std::time::Duration;

use forecastle_resources::{Bytes, BytesPerSecond, CpuMillis, Reservation, ResourceVector};

use crate::v1;

impl From<&ResourceVector> for v1::ResourceVector {
    fn from(vector: &ResourceVector) -> Self {
        Self {
            cpu_millis: u32::try_from(vector.cpu.0).unwrap_or(u32::MAX),
            memory_bytes: vector.memory.0,
            io_bytes_per_second: vector.io.0,
            scratch_bytes: vector.scratch.0,
            named: vector.named.clone(),
        }
    }
}

impl From<&v1::ResourceVector> for ResourceVector {
    fn from(message: &v1::ResourceVector) -> Self {
        Self {
            cpu: CpuMillis(message.cpu_millis.into()),
            memory: Bytes(message.memory_bytes),
            io: BytesPerSecond(message.io_bytes_per_second),
            scratch: Bytes(message.scratch_bytes),
            named: message.named.iter().filter(|(_, v)| **v > 0).map(|(k, v)| (k.clone(), *v)).collect(),
        }
    }
}

impl From<&Reservation> for v1::Reservation {
    fn from(reservation: &Reservation) -> Self {
        Self {
            vector: Some((&reservation.vector).into()),
            duration_ms: u64::try_from(reservation.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl From<&v1::Reservation> for Reservation {
    /// An absent vector is zero.
    fn from(message: &v1::Reservation) -> Self {
        Self {
            vector: message.vector.as_ref().map(Into::into).unwrap_or_default(),
            duration: Duration::from_millis(message.duration_ms),
        }
    }
}
