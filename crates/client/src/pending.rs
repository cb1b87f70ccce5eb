//! Who waits for which reply.
//!
//! Pure bookkeeping, without a broker: replies come in by correlation id, in any order and perhaps twice, and waiters
//! see what is known so far. When the link that carries replies goes down, everybody who waits learns it at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forecastle_protos::v1;
use tokio::sync::watch;

/// What is known of a submission. Only ever gains.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Progress {
    pub(crate) accepted: Option<v1::Accepted>,
    pub(crate) ended: Option<Ended>,
}

/// Why no further reply is to come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    Finished(Box<v1::RequestStatus>),
    Rejected(v1::ErrorDetail),
    Unreadable(String),
    /// The link went down, with the reason.
    Lost(String),
    Closed,
}

/// The state of the link that carries replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// With the reason.
    Down(String),
    Closed,
}

/// The submissions that wait.
#[derive(Debug)]
pub(crate) struct Pending(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Under the same lock as the waiters, so that nobody can begin to wait between a loss and its announcement.
    link: watch::Sender<Link>,
    waiting: HashMap<String, watch::Sender<Progress>>,
}

impl Pending {
    /// Nobody waits; the link is down.
    pub(crate) fn new() -> Arc<Self> {
        let link = watch::Sender::new(Link::Down("not connected yet".to_owned()));
        Arc::new(Self(Mutex::new(Inner { link, waiting: HashMap::new() })))
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete when it can panic no more.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the link, now and later.
    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.locked().link.subscribe()
    }

    /// Begins to wait, if the link is up; else its state.
    pub(crate) fn register(self: &Arc<Self>, correlation: &str) -> Result<Waiter, Link> {
        let mut inner = self.locked();
        let state = inner.link.borrow().clone();
        if state != Link::Up {
            return Err(state);
        }
        let known = inner.waiting.get(correlation);
        // A request that was rejected before may be good now. One that is known to go on, or to have finished, is the
        // same request.
        let fit = known.filter(|known| matches!(known.borrow().ended, None | Some(Ended::Finished(_))));
        let progress = if let Some(known) = fit {
            known.subscribe()
        } else {
            let (sender, receiver) = watch::channel(Progress::default());
            inner.waiting.insert(correlation.to_owned(), sender);
            receiver
        };
        drop(inner);
        Ok(Waiter { correlation: correlation.to_owned(), progress: Some(progress), pending: Arc::clone(self) })
    }

    /// A reply, or what is wrong with it. Nobody may wait for it any more; then it is gone.
    pub(crate) fn deliver(&self, correlation: &str, reply: Result<v1::reply::Kind, String>) {
        let inner = self.locked();
        let Some(sender) = inner.waiting.get(correlation) else { return };
        sender.send_modify(|progress| match reply {
            Ok(v1::reply::Kind::Accepted(accepted)) => {
                progress.accepted.get_or_insert(accepted);
            }
            Ok(v1::reply::Kind::Rejected(detail)) => {
                progress.ended.get_or_insert(Ended::Rejected(detail));
            }
            Ok(v1::reply::Kind::Finished(finished)) => {
                let status = finished.status.unwrap_or_default();
                progress.ended.get_or_insert_with(|| Ended::Finished(Box::new(status)));
            }
            Err(reason) => {
                progress.ended.get_or_insert(Ended::Unreadable(reason));
            }
        });
    }

    /// The link is up.
    pub(crate) fn up(&self) {
        self.locked().link.send_if_modified(|link| {
            // Closed is for good.
            let change = *link != Link::Closed && *link != Link::Up;
            if change {
                *link = Link::Up;
            }
            change
        });
    }

    /// The link is down: whoever waits learns it.
    pub(crate) fn down(&self, reason: &str) {
        self.end_all(Link::Down(reason.to_owned()), &Ended::Lost(reason.to_owned()));
    }

    /// The client is closed: whoever waits learns it.
    pub(crate) fn close(&self) {
        self.end_all(Link::Closed, &Ended::Closed);
    }

    fn end_all(&self, state: Link, ended: &Ended) {
        let mut inner = self.locked();
        inner.link.send_modify(|link| {
            if *link != Link::Closed {
                *link = state;
            }
        });
        for (_, sender) in inner.waiting.drain() {
            sender.send_modify(|progress| {
                progress.ended.get_or_insert_with(|| ended.clone());
            });
        }
    }

    /// How many correlation ids are waited for.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.locked().waiting.len()
    }
}

/// One who waits. Nothing is kept for it once it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    correlation: String,
    /// `Some` until dropped.
    progress: Option<watch::Receiver<Progress>>,
    pending: Arc<Pending>,
}

impl Waiter {
    /// What is known now and later; every call has a view of its own.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        // Without a receiver only while being dropped, when nobody can call this.
        self.progress.clone().unwrap_or_else(|| watch::channel(Progress::default()).1)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = self.pending.locked();
        drop(self.progress.take());
        if inner.waiting.get(&self.correlation).is_some_and(|sender| sender.receiver_count() == 0) {
            inner.waiting.remove(&self.correlation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::reply::Kind;

    fn accepted(id: &str) -> Kind {
        Kind::Accepted(v1::Accepted { request_id: id.to_owned(), created: true })
    }

    fn finished(id: &str) -> Kind {
        let status = v1::RequestStatus { request_id: id.to_owned(), ..Default::default() };
        Kind::Finished(v1::Finished { status: Some(status) })
    }

    fn rejected(code: &str) -> Kind {
        Kind::Rejected(v1::ErrorDetail { code: code.to_owned(), ..Default::default() })
    }

    fn pending() -> Arc<Pending> {
        let pending = Pending::new();
        pending.up();
        pending
    }

    fn seen(waiter: &Waiter) -> Progress {
        waiter.progress().borrow().clone()
    }

    #[test]
    fn replies_reach_their_own_waiters_in_any_order() {
        let pending = pending();
        let (a, b) = (pending.register("a").unwrap(), pending.register("b").unwrap());
        pending.deliver("b", Ok(finished("B")));
        pending.deliver("a", Ok(accepted("A")));
        pending.deliver("nobody", Ok(accepted("N")));
        pending.deliver("b", Ok(accepted("B")));
        assert_eq!(seen(&a).accepted.unwrap().request_id, "A");
        assert_eq!(seen(&a).ended, None);
        assert_eq!(seen(&b).accepted.unwrap().request_id, "B");
        assert!(matches!(seen(&b).ended, Some(Ended::Finished(status)) if status.request_id == "B"));
    }

    #[test]
    fn a_reply_that_comes_twice_changes_nothing() {
        let pending = pending();
        let waiter = pending.register("a").unwrap();
        pending.deliver("a", Ok(finished("first")));
        pending.deliver("a", Ok(finished("second")));
        pending.deliver("a", Ok(rejected("late")));
        assert!(matches!(seen(&waiter).ended, Some(Ended::Finished(status)) if status.request_id == "first"));
    }

    #[test]
    fn a_loss_ends_all_waiting_and_lets_nobody_begin() {
        let pending = pending();
        let (waits, done) = (pending.register("a").unwrap(), pending.register("b").unwrap());
        pending.deliver("b", Ok(finished("B")));
        pending.down("cut");
        assert_eq!(seen(&waits).ended, Some(Ended::Lost("cut".to_owned())));
        assert!(matches!(seen(&done).ended, Some(Ended::Finished(_))));
        assert_eq!(pending.register("c").unwrap_err(), Link::Down("cut".to_owned()));
        pending.up();
        assert_eq!(seen(&pending.register("a").unwrap()), Progress::default());
    }

    #[test]
    fn closed_stays_closed() {
        let pending = pending();
        let waiter = pending.register("a").unwrap();
        pending.close();
        pending.up();
        pending.down("late");
        assert_eq!(seen(&waiter).ended, Some(Ended::Closed));
        assert_eq!(pending.register("a").unwrap_err(), Link::Closed);
    }

    #[test]
    fn the_same_request_twice_shares_what_is_known_but_not_a_rejection() {
        let pending = pending();
        let first = pending.register("a").unwrap();
        pending.deliver("a", Ok(accepted("A")));
        let second = pending.register("a").unwrap();
        assert_eq!(seen(&second).accepted.unwrap().request_id, "A");

        let refused = pending.register("r").unwrap();
        pending.deliver("r", Ok(rejected("unknown-request-type")));
        let again = pending.register("r").unwrap();
        pending.deliver("r", Ok(accepted("R")));
        assert!(matches!(seen(&refused).ended, Some(Ended::Rejected(_))));
        assert_eq!(seen(&again).accepted.unwrap().request_id, "R");
        drop((first, refused));
        assert_eq!(pending.len(), 2);
        pending.deliver("r", Ok(finished("R")));
        assert!(matches!(seen(&again).ended, Some(Ended::Finished(_))));
    }

    #[test]
    fn nothing_is_kept_for_those_who_left() {
        let pending = pending();
        let (first, second) = (pending.register("a").unwrap(), pending.register("a").unwrap());
        drop(first);
        assert_eq!(pending.len(), 1);
        drop(second);
        assert_eq!(pending.len(), 0);
    }
}
