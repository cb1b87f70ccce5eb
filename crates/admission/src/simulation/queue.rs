//! A quorum queue with consumers of a window of one: first in, first out; what is returned goes to the front; among
//! consumers with room the one that has waited longest is served.

use std::collections::{HashMap, VecDeque};

use super::fleet::ConsumerId;

#[derive(Debug, Default)]
pub(super) struct ShardQueue {
    ready: VecDeque<usize>,
    idle: VecDeque<ConsumerId>,
    room: HashMap<ConsumerId, u16>,
}

impl ShardQueue {
    pub(super) fn publish(&mut self, job: usize) {
        self.ready.push_back(job);
    }

    pub(super) fn requeue(&mut self, job: usize) {
        self.ready.push_front(job);
    }

    /// A consumer has room for so many more.
    pub(super) fn has_room(&mut self, consumer: ConsumerId, more: u16) {
        let room = self.room.entry(consumer).or_default();
        if *room == 0 {
            self.idle.push_back(consumer);
        }
        *room += more;
    }

    pub(super) fn cancel(&mut self, consumer: ConsumerId) {
        self.idle.retain(|other| *other != consumer);
        self.room.remove(&consumer);
    }

    /// The next delivery, if there is one to make.
    pub(super) fn deliver(&mut self) -> Option<(ConsumerId, usize)> {
        if self.ready.is_empty() || self.idle.is_empty() {
            return None;
        }
        let consumer = self.idle.pop_front()?;
        let room = self.room.get_mut(&consumer)?;
        *room -= 1;
        if *room > 0 {
            self.idle.push_back(consumer);
        }
        Some((consumer, self.ready.pop_front()?))
    }
}
