//! Acknowledgements of a deep window, together as far as they go in one piece.
//!
//! Shards of a deep window are acknowledged when their completion is confirmed. They end in any order, and the broker
//! takes one acknowledgement for everything up to a delivery: so what is done waits for what came before it, and then
//! goes in one frame.

use std::collections::VecDeque;

use forecastle_broker::Settlement;

/// One delivery's place in its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    window: u64,
    number: u64,
}

/// The window of one consumer's channel. `D` is what is settled.
#[derive(Debug)]
pub(crate) struct PrefixAcks<D> {
    /// Another for each channel: what came over one that was lost has no place here.
    window: u64,
    /// The place of the first one in `done`.
    first: u64,
    /// Those from there on, in the order in which they came; `None` until they are done.
    done: VecDeque<Option<D>>,
    /// False once something of this consumer was settled out of order: then each is acknowledged by itself.
    in_order: bool,
}

impl<D> PrefixAcks<D> {
    /// A window of this number, which no other has.
    pub(crate) fn new(window: u64) -> Self {
        Self { window, first: 0, done: VecDeque::new(), in_order: true }
    }

    /// A delivery came.
    pub(crate) fn arrived(&mut self) -> Place {
        self.done.push_back(None);
        Place { window: self.window, number: self.first + self.done.len() as u64 - 1 }
    }

    /// Its shard is done; gives it back if it is to be acknowledged by itself.
    pub(crate) fn done(&mut self, place: Place, delivery: D) -> Option<D> {
        if !self.in_order || place.window != self.window {
            return Some(delivery);
        }
        let known =
            place.number.checked_sub(self.first).and_then(|index| self.done.get_mut(usize::try_from(index).ok()?));
        match known {
            Some(slot) => {
                *slot = Some(delivery);
                None
            }
            None => Some(delivery),
        }
    }

    /// What can be settled now, and how: the last of those that are done in one piece. The others need nothing more.
    pub(crate) fn settle(&mut self) -> Option<(D, Settlement)> {
        let mut last = None;
        let mut count = 0;
        while let Some(Some(_)) = self.done.front() {
            last = self.done.pop_front().flatten();
            self.first += 1;
            count += 1;
        }
        Some((last?, if count == 1 { Settlement::Ack } else { Settlement::AckThrough }))
    }

    /// Something else of this consumer is settled, or is going to be, in no order: answers with what is done and waited
    /// for its turn, each to be acknowledged by itself. From now on all are.
    pub(crate) fn out_of_order(&mut self) -> Vec<D> {
        self.in_order = false;
        std::mem::take(&mut self.done).into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_goes_once_everything_before_it_is() {
        let mut acks = PrefixAcks::new(1);
        let places: Vec<Place> = (0..5).map(|_| acks.arrived()).collect();
        assert_eq!(acks.done(places[1], 1), None);
        assert_eq!(acks.done(places[2], 2), None);
        assert_eq!(acks.settle(), None);
        assert_eq!(acks.done(places[0], 0), None);
        assert_eq!(acks.settle(), Some((2, Settlement::AckThrough)));
        assert_eq!(acks.done(places[3], 3), None);
        assert_eq!(acks.settle(), Some((3, Settlement::Ack)));
        assert_eq!(acks.settle(), None);
    }

    #[test]
    fn nothing_is_acknowledged_through_what_was_settled_otherwise() {
        let mut acks = PrefixAcks::new(1);
        let places: Vec<Place> = (0..4).map(|_| acks.arrived()).collect();
        assert_eq!(acks.done(places[3], 3), None);
        assert_eq!(acks.done(places[1], 1), None);
        assert_eq!(acks.out_of_order(), [1, 3]);
        assert_eq!(acks.done(places[0], 0), Some(0));
        let late = acks.arrived();
        assert_eq!(acks.done(late, 4), Some(4));
        assert_eq!(acks.settle(), None);
    }

    #[test]
    fn what_came_over_a_channel_that_was_lost_has_no_place_in_the_next() {
        let lost = PrefixAcks::<u8>::new(1).arrived();
        let mut acks = PrefixAcks::new(2);
        acks.arrived();
        assert_eq!(acks.done(lost, 0), Some(0));
        assert_eq!(acks.settle(), None);
    }
}
