//! What waits between the one who feeds a consumer and the one who reads from it.
//!
//! Bounded by its feeder: never more deliveries than the consumer's window are unsettled at a time, an interruption
//! takes out those that wait, and interruptions in a row count as one.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::port::{ConsumerEvent, Delivery};

#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<ConsumerEvent>,
    ended: bool,
}

impl EventQueue {
    /// Appends a delivery; gives it back if the queue has ended.
    pub(crate) fn push(&self, delivery: Box<Delivery>) -> Option<Box<Delivery>> {
        let mut waiting = self.lock();
        if waiting.ended {
            return Some(delivery);
        }
        waiting.events.push_back(ConsumerEvent::Delivery(delivery));
        drop(waiting);
        self.changed.notify_one();
        None
    }

    /// Takes out what waits, which is void now, and says so to the reader. The deliveries are handed to the caller,
    /// who may hold a lock under which they must not be dropped.
    pub(crate) fn interrupt(&self) -> Vec<Delivery> {
        let mut waiting = self.lock();
        let void = take_deliveries(&mut waiting);
        if !waiting.ended && waiting.events.is_empty() {
            waiting.events.push_back(ConsumerEvent::Interrupted);
        }
        drop(waiting);
        self.changed.notify_one();
        void
    }

    /// Ends the queue for its reader and takes out the deliveries that were not read, oldest first.
    pub(crate) fn end(&self) -> Vec<Delivery> {
        let mut waiting = self.lock();
        waiting.ended = true;
        let unread = take_deliveries(&mut waiting);
        waiting.events.clear();
        drop(waiting);
        self.changed.notify_one();
        unread
    }

    /// The next event; `None` once ended. One reader at a time. Safe to cancel.
    pub(crate) async fn next(&self) -> Option<ConsumerEvent> {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.ended {
                    // Whoever asks again is answered again.
                    return None;
                }
                if let Some(event) = waiting.events.pop_front() {
                    return Some(event);
                }
            }
            // A notification between the look and the wait is kept as a permit, so it is not missed.
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics under this lock, and the queue would be sound if it did.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_deliveries(waiting: &mut Waiting) -> Vec<Delivery> {
    let (mut taken, mut kept) = (Vec::new(), VecDeque::new());
    for event in waiting.events.drain(..) {
        match event {
            ConsumerEvent::Delivery(delivery) => taken.push(*delivery),
            ConsumerEvent::Interrupted => kept.push_back(ConsumerEvent::Interrupted),
        }
    }
    waiting.events = kept;
    taken
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::port::{Message, Settlement, Settler};

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl Settler for Nobody {
        async fn settle(&self, _: u64, _: u64, _: Settlement) -> bool {
            false
        }
    }

    fn delivery(tag: u64) -> Box<Delivery> {
        Box::new(Delivery {
            message: Message::default(),
            redelivered: false,
            exchange: String::new(),
            routing_key: String::new(),
            tag,
            epoch: 1,
            settler: Arc::new(Nobody),
        })
    }

    #[tokio::test]
    async fn an_interruption_voids_what_waits_and_counts_once() {
        let queue = EventQueue::default();
        queue.push(delivery(1));
        assert_eq!(queue.interrupt().len(), 1);
        queue.push(delivery(2));
        assert_eq!(queue.interrupt()[0].tag, 2);
        queue.push(delivery(3));
        assert!(matches!(queue.next().await, Some(ConsumerEvent::Interrupted)));
        assert!(matches!(queue.next().await, Some(ConsumerEvent::Delivery(d)) if d.tag == 3));
    }

    #[tokio::test]
    async fn the_end_hands_back_what_was_not_read_and_wakes_the_reader() {
        let queue = Arc::new(EventQueue::default());
        let reader = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.next().await.is_none() }
        });
        tokio::task::yield_now().await;
        assert!(queue.end().is_empty());
        assert!(reader.await.unwrap());
        assert_eq!(queue.push(delivery(1)).unwrap().tag, 1, "a delivery after the end is given back");
        assert!(queue.next().await.is_none());
    }
}
