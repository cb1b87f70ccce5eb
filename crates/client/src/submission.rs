//! The handle to the replies of one request.

use std::time::Duration;

use forecastle_protos::v1;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::pending::{Ended, Progress, Waiter};
use crate::{Awaited, Error};

/// A request that the broker has, durably. Dropping this changes nothing for the request: only its replies go unheard.
#[derive(Debug)]
pub struct Submission {
    pub(crate) key: String,
    pub(crate) waiter: Waiter,
    pub(crate) accepted_timeout: Duration,
    pub(crate) finished_timeout: Option<Duration>,
}

impl Submission {
    /// The idempotency key: the caller's, or the one that was made for it.
    pub fn idempotency_key(&self) -> &str {
        &self.key
    }

    /// Waits until the frontend's ledger has the request, or refuses it ([`Error::Rejected`]).
    ///
    /// May be called again and at the same time as [`finished`](Self::finished); safe to cancel. When the final reply
    /// comes first, it stands in for this one.
    pub async fn accepted(&self) -> Result<v1::Accepted, Error> {
        let known = |progress: &Progress| progress.accepted.is_some() || progress.ended.is_some();
        let progress = self.wait(Awaited::Accepted, Some(self.accepted_timeout), known).await?;
        match (progress.accepted, progress.ended) {
            (Some(accepted), _) => Ok(accepted),
            // Only this submission's replies come here; whether it was the first with its key is not known then.
            (None, Some(Ended::Finished(status))) => Ok(v1::Accepted { request_id: status.request_id, created: true }),
            (None, Some(ended)) => Err(self.error(ended)),
            (None, None) => Err(Error::Closed),
        }
    }

    /// Waits until the request succeeded, failed or was cancelled: the status says which. `Err` is for requests that
    /// were refused and for replies that cannot come any more, never for work that failed.
    ///
    /// May be called again; safe to cancel.
    pub async fn finished(&self) -> Result<v1::RequestStatus, Error> {
        let known = |progress: &Progress| progress.ended.is_some();
        let progress = self.wait(Awaited::Finished, self.finished_timeout, known).await?;
        match progress.ended {
            Some(Ended::Finished(status)) => Ok(*status),
            Some(ended) => Err(self.error(ended)),
            None => Err(Error::Closed),
        }
    }

    async fn wait(
        &self,
        awaited: Awaited,
        within: Option<Duration>,
        known: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, Error> {
        let mut progress = self.waiter.progress();
        let waiting = progress.wait_for(known);
        let seen = match within {
            Some(within) => timeout(within, waiting)
                .await
                .map_err(|_| Error::Timeout { awaited, key: self.key.clone() })?
                .map(|seen| seen.clone()),
            None => waiting.await.map(|seen| seen.clone()),
        };
        // An error means that another submission of this request took the place: what was known last is the answer.
        seen.or_else(|_: watch::error::RecvError| Ok(self.waiter.progress().borrow().clone()))
    }

    fn error(&self, ended: Ended) -> Error {
        let key = self.key.clone();
        match ended {
            Ended::Rejected(detail) => Error::Rejected(detail),
            Ended::Unreadable(reason) => Error::UnreadableReply { key, reason },
            Ended::Lost(reason) => Error::ConnectionLost { key, reason },
            // Finished is no error; whoever asks has looked.
            Ended::Finished(_) | Ended::Closed => Error::Closed,
        }
    }
}
