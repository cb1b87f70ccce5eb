//! Messages in flight: sent, and not answered yet.
//!
//! The broker returns an unroutable message and then acknowledges it; lapin hands the returned message to whichever
//! acknowledgement it processes next, and one acknowledgement may cover many messages, in no order. So a returned
//! message says itself which it is (its number travels with it), and no verdict is spoken while a returned message
//! may still turn up with somebody else's answer:
//!
//! - Returned messages are handed out in the order in which they were published. Hence an answer that brought a later
//!   message, or none, came after every returned message up to its own was handed out, and to an earlier answer.
//! - So verdicts are spoken only after everything that has been answered so far has been looked at.
//! - An answer that brought an *earlier* message is in doubt: its own message may have been returned as well and come
//!   with a later answer. It waits for an answer that settles the doubt, or for the last message in flight.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;

use crate::PublishOutcome;

/// A message that came back with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Return {
    /// Its number.
    pub(crate) number: u64,
    /// The broker's words.
    pub(crate) reason: String,
}

/// How sending a message ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It never was written as a whole: the broker does not have it.
    NotWritten(String),
    /// It was written, and the channel went before the answer.
    Lost(String),
    /// The broker answered, and a returned message came along: this one or another.
    Answered { positive: bool, returned: Option<Return> },
}

/// What is known of a message in the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The broker does not have it; it can be sent again.
    NotWritten(String),
    Outcome(PublishOutcome),
}

/// The messages in flight on one channel, each with something of the caller's.
pub(crate) struct InFlight<T> {
    entries: HashMap<u64, Entry<T>>,
    woken: Arc<Woken>,
    /// Ended, and not judged yet.
    ended: Vec<Ended<T>>,
    /// Answered together with an earlier message.
    doubtful: Vec<Ended<T>>,
    returned: HashMap<u64, String>,
}

struct Entry<T> {
    item: T,
    attempt: BoxFuture<'static, Attempt>,
    waker: Waker,
}

struct Ended<T> {
    number: u64,
    item: T,
    attempt: Attempt,
}

impl<T> Ended<T> {
    fn came_along(&self) -> Option<u64> {
        match &self.attempt {
            Attempt::Answered { returned: Some(returned), .. } => Some(returned.number),
            _ => None,
        }
    }

    fn came_alone(&self) -> bool {
        matches!(self.attempt, Attempt::Answered { returned: None, .. })
    }
}

/// The numbers whose attempts can go on. The order of the wakes does not matter, but that none is missing does.
#[derive(Default)]
struct Woken {
    numbers: Mutex<Vec<u64>>,
    owner: AtomicWaker,
}

struct WakeOne {
    number: u64,
    woken: Arc<Woken>,
}

impl Wake for WakeOne {
    fn wake(self: Arc<Self>) {
        self.woken.numbers.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.woken.owner.wake();
    }
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            woken: Arc::default(),
            ended: Vec::new(),
            doubtful: Vec::new(),
            returned: HashMap::new(),
        }
    }
}

impl<T> InFlight<T> {
    /// Adds a message and polls `attempt` for the first time, which sends it. Numbers rise.
    pub(crate) fn push(&mut self, number: u64, item: T, attempt: BoxFuture<'static, Attempt>) {
        let waker = Waker::from(Arc::new(WakeOne { number, woken: Arc::clone(&self.woken) }));
        self.entries.insert(number, Entry { item, attempt, waker });
        self.poll_one(number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ended.is_empty() && self.doubtful.is_empty()
    }

    /// Gives up on everything that has not ended.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = T> {
        let entries = std::mem::take(&mut self.entries);
        let ended = std::mem::take(&mut self.ended).into_iter().chain(std::mem::take(&mut self.doubtful));
        entries.into_values().map(|entry| entry.item).chain(ended.map(|ended| ended.item))
    }

    /// The verdicts that can be spoken now, at least one.
    pub(crate) fn poll_verdicts(&mut self, context: &mut Context<'_>) -> Poll<Vec<(u64, T, Verdict)>> {
        self.woken.owner.register(context.waker());
        loop {
            let numbers = std::mem::take(&mut *self.woken.numbers.lock().unwrap_or_else(PoisonError::into_inner));
            if numbers.is_empty() {
                break;
            }
            for number in numbers {
                self.poll_one(number);
            }
        }
        // Now all that was answered before the last look is known, with what was returned along with it.
        let verdicts = self.judge();
        if verdicts.is_empty() { Poll::Pending } else { Poll::Ready(verdicts) }
    }

    fn poll_one(&mut self, number: u64) {
        // It may have ended already: futures may be woken more than once.
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let mut context = Context::from_waker(&entry.waker);
        let Poll::Ready(attempt) = entry.attempt.poll_unpin(&mut context) else { return };
        let Some(Entry { item, .. }) = self.entries.remove(&number) else { return };
        if let Attempt::Answered { returned: Some(returned), .. } = &attempt {
            self.returned.insert(returned.number, returned.reason.clone());
        }
        self.ended.push(Ended { number, item, attempt });
    }

    fn judge(&mut self) -> Vec<(u64, T, Verdict)> {
        let ended = std::mem::take(&mut self.ended);
        let nothing_left = self.entries.is_empty();
        let newest_return = ended.iter().filter_map(Ended::came_along).max();
        // Whatever ended since the last look was answered after all that had ended then.
        let one_came_alone = ended.iter().any(Ended::came_alone);

        let earlier = std::mem::take(&mut self.doubtful).into_iter().map(|ended| (ended, one_came_alone));
        let mut verdicts = Vec::with_capacity(ended.len());
        for (ended, cleared) in earlier.chain(ended.into_iter().map(|ended| (ended, false))).collect::<Vec<_>>() {
            let number = ended.number;
            let in_doubt = ended.came_along().is_some_and(|other| other < number)
                && !cleared
                && !nothing_left
                && !self.returned.contains_key(&number)
                && newest_return.is_none_or(|newest| newest < number);
            if in_doubt {
                self.doubtful.push(ended);
                continue;
            }
            let verdict = match (self.returned.remove(&number), ended.attempt) {
                (Some(reason), _) => Verdict::Outcome(PublishOutcome::Returned { reason }),
                (None, Attempt::NotWritten(reason)) => Verdict::NotWritten(reason),
                (None, Attempt::Lost(reason)) => Verdict::Outcome(PublishOutcome::Unknown { reason }),
                (None, Attempt::Answered { positive: true, .. }) => Verdict::Outcome(PublishOutcome::Confirmed),
                (None, Attempt::Answered { positive: false, .. }) => Verdict::Outcome(PublishOutcome::Nacked),
            };
            verdicts.push((number, ended.item, verdict));
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use futures::channel::oneshot;
    use futures::task::noop_waker_ref;

    use super::*;

    /// A channel as lapin has it: returned messages wait in line for the next answer, whosesoever it is.
    struct FakeChannel {
        in_flight: InFlight<()>,
        answers: BTreeMap<u64, oneshot::Sender<Attempt>>,
        waiting_returns: VecDeque<u64>,
        verdicts: BTreeMap<u64, Verdict>,
    }

    impl FakeChannel {
        fn with(numbers: impl IntoIterator<Item = u64>) -> Self {
            let mut channel = Self {
                in_flight: InFlight::default(),
                answers: BTreeMap::new(),
                waiting_returns: VecDeque::new(),
                verdicts: BTreeMap::new(),
            };
            for number in numbers {
                let (answer, attempt) = oneshot::channel();
                channel.answers.insert(number, answer);
                let attempt = attempt.map(|attempt| attempt.unwrap_or(Attempt::Lost("gone".to_owned()))).boxed();
                channel.in_flight.push(number, (), attempt);
            }
            channel
        }

        fn returns(&mut self, number: u64) {
            self.waiting_returns.push_back(number);
        }

        fn acknowledges(&mut self, number: u64) {
            let returned = self.waiting_returns.pop_front().map(|number| Return { number, reason: "no".to_owned() });
            let answer = self.answers.remove(&number).unwrap();
            assert!(answer.send(Attempt::Answered { positive: true, returned }).is_ok());
        }

        fn look(&mut self) {
            let mut context = Context::from_waker(noop_waker_ref());
            if let Poll::Ready(verdicts) = self.in_flight.poll_verdicts(&mut context) {
                for (number, (), verdict) in verdicts {
                    assert!(self.verdicts.insert(number, verdict).is_none(), "one verdict each");
                }
            }
        }

        fn confirmed(&self, number: u64) -> bool {
            self.verdicts.get(&number) == Some(&Verdict::Outcome(PublishOutcome::Confirmed))
        }

        fn returned(&self, number: u64) -> bool {
            matches!(self.verdicts.get(&number), Some(Verdict::Outcome(PublishOutcome::Returned { .. })))
        }
    }

    #[test]
    fn a_return_that_came_with_another_answer_finds_its_message() {
        let mut channel = FakeChannel::with(1..=3);
        channel.returns(2);
        channel.acknowledges(1);
        channel.look();
        assert!(channel.confirmed(1));
        channel.acknowledges(3);
        channel.acknowledges(2);
        channel.look();
        assert!(channel.confirmed(3) && channel.returned(2));
        assert!(channel.in_flight.is_empty());
    }

    #[test]
    fn an_answer_that_brought_an_earlier_message_waits_until_its_own_cannot_come_any_more() {
        let mut channel = FakeChannel::with(1..=3);
        channel.returns(2);
        channel.returns(3);
        channel.acknowledges(3);
        channel.look();
        assert!(channel.verdicts.is_empty(), "3 brought 2, and may have been returned itself");
        channel.acknowledges(2);
        channel.look();
        assert!(channel.returned(2) && channel.returned(3));
        assert!(channel.answers.contains_key(&1), "1 is still in flight");
    }

    #[test]
    fn a_doubt_ends_with_an_answer_that_came_alone_with_a_later_return_or_with_the_last_message() {
        let doubtful = || {
            let mut channel = FakeChannel::with(1..=9);
            channel.returns(2);
            channel.acknowledges(3);
            channel.look();
            assert!(channel.verdicts.is_empty());
            channel
        };
        let mut channel = doubtful();
        channel.acknowledges(9);
        channel.look();
        assert!(channel.confirmed(3) && channel.confirmed(9));

        let mut channel = doubtful();
        channel.returns(7);
        channel.acknowledges(8);
        channel.look();
        assert!(channel.confirmed(3) && !channel.verdicts.contains_key(&8));

        let mut channel = doubtful();
        channel.answers.clear();
        channel.look();
        assert!(channel.confirmed(3) && channel.returned(2));
        assert_eq!(channel.verdicts[&1], Verdict::Outcome(PublishOutcome::Unknown { reason: "gone".to_owned() }));
        assert!(channel.in_flight.is_empty());
    }

    /// Every order of answers to five messages, with every set of returned ones, looked at after every answer or only
    /// at the end.
    #[test]
    fn no_order_of_answers_mixes_up_verdicts() {
        let orders = |numbers: Vec<u64>| {
            let mut orders = vec![vec![]];
            for number in numbers {
                orders = orders
                    .into_iter()
                    .flat_map(|order: Vec<u64>| {
                        (0..=order.len()).map(move |at| {
                            let mut order = order.clone();
                            order.insert(at, number);
                            order
                        })
                    })
                    .collect();
            }
            orders
        };
        for order in orders((1..=5).collect()) {
            for (set, look_every_time) in (0..32).flat_map(|set| [(set, true), (set, false)]) {
                let is_returned = |number: u64| set & (1 << (number - 1)) != 0;
                let mut channel = FakeChannel::with(1..=5);
                (1..=5).filter(|number| is_returned(*number)).for_each(|number| channel.returns(number));
                for number in &order {
                    channel.acknowledges(*number);
                    if look_every_time {
                        channel.look();
                    }
                }
                channel.look();
                for number in 1..=5 {
                    assert_eq!(channel.returned(number), is_returned(number), "{number} of {order:?}, set {set:b}");
                    assert_eq!(channel.confirmed(number), !is_returned(number), "{number} of {order:?}, set {set:b}");
                }
            }
        }
    }

    #[test]
    fn giving_up_answers_every_message_once() {
        let mut channel = FakeChannel::with(1..=4);
        channel.returns(1);
        channel.acknowledges(2);
        channel.look();
        assert_eq!(channel.in_flight.abandon().count(), 4);
        assert!(channel.in_flight.is_empty());
    }
}
