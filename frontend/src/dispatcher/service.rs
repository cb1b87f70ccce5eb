//! The one owner of what waits to be released.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use forecastle_broker::Publisher;
use forecastle_protos::ids::{RequestId, ShardId};
use forecastle_protos::{names, v1};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::message::shard_message;
use super::outbox::{Outbox, Outgoing};
use super::patience::Patience;
use super::queue_view::{QueueView, Waiting};
use super::window::Windows;
use crate::catalogue_store::CatalogueStore;
use crate::clock::now_ms;
use crate::crash_points;
use crate::demand::Demand;
use crate::failure_policy::LONGEST_PAUSE;
use crate::fleet::{FleetView, NoWorker};
use crate::forecasting::Sizing;
use crate::ledger::{BackingOff, Changes, Error, Ledger, OpenWork, ReadyRange, Release, RequestHead, ShardSpec};
use crate::metric_definitions::{SHARDS_READY, SHARDS_RELEASED, SHARDS_UNCLAIMED};

/// The most shards of one request in one turn.
const QUANTUM: u32 = 16;

/// The most attempts ordered in one commit.
const COMMIT: usize = 256;

/// Shards without room after which the rest of a turn is left alone.
const LOOKAHEAD: usize = 8;

/// The longest time between two looks at what no worker could run: the catalogue or its forecast may have changed.
const LOOK_AT_HELD_EVERY: Duration = Duration::from_secs(10);

/// The longest time between two looks at what waits.
const TICK: Duration = Duration::from_secs(1);

/// The handle: cheap to clone.
#[derive(Debug, Clone)]
pub struct DispatcherHandle {
    inbox: mpsc::Sender<Changes>,
    view: watch::Receiver<Arc<QueueView>>,
}

impl DispatcherHandle {
    /// Tells the dispatcher about committed changes.
    pub async fn changed(&self, changes: Changes) {
        // A dispatcher that has stopped reads the ledger in its next life.
        drop(self.inbox.send(changes).await);
    }

    /// The queues and what waits, as they were at most a second or so ago.
    pub fn view(&self) -> Arc<QueueView> {
        Arc::clone(&self.view.borrow())
    }
}

/// The service.
pub struct Dispatcher {
    ledger: Arc<dyn Ledger>,
    catalogue: Arc<CatalogueStore>,
    sizing: Sizing,
    fleet: watch::Receiver<Arc<FleetView>>,
    /// Hears what is released.
    demand: Demand,
    inbox: mpsc::Receiver<Changes>,
    outgoing: mpsc::Sender<Outgoing>,
    backlog: Backlog,
    windows: Windows,
    /// Released and not claimed, with the queue they wait in. As many as the windows allow.
    unclaimed: HashMap<(ShardId, u32), String>,
    /// Ready, but no live worker could run them: looked at again when the fleet changes.
    held: HashMap<RequestId, Vec<ShardId>>,
    /// Read already and put back. Valid while a shard is ready, because only this service changes that.
    specs: HashMap<ShardId, ShardSpec>,
    /// Results that stages depend on, while their shards are being released.
    upstream: HashMap<(RequestId, Vec<u32>), Vec<v1::ShardResult>>,
    heads: HashMap<RequestId, Arc<RequestHead>>,
    /// By when they may be released. Not by the wall clock, which may jump back by a day.
    backing_off: BinaryHeap<Reverse<(Instant, ShardId)>>,
    shown: watch::Sender<Arc<QueueView>>,
    measured: Instant,
    looked_at_held: Instant,
    patience: Patience,
    /// Who ends what is infeasible. One entry for each request at most, so that it needs no bound.
    infeasible: Option<mpsc::UnboundedSender<(ShardId, String)>>,
}

/// A shard that was sized and has room.
#[derive(Clone)]
struct Chosen {
    head: Arc<RequestHead>,
    spec: ShardSpec,
    release: Release,
}

impl Dispatcher {
    /// A dispatcher with its handle and the outbox that publishes for it.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        catalogue: Arc<CatalogueStore>,
        sizing: Sizing,
        fleet: watch::Receiver<Arc<FleetView>>,
        demand: Demand,
        publisher: Arc<dyn Publisher>,
    ) -> (Self, DispatcherHandle, Outbox) {
        let (handle, inbox) = mpsc::channel(1024);
        let (shown, view) = watch::channel(Arc::default());
        let (outbox, outgoing) = Outbox::new(Arc::clone(&ledger), publisher);
        let this = Self {
            ledger,
            catalogue,
            sizing,
            fleet,
            demand,
            inbox,
            outgoing,
            backlog: Backlog::default(),
            windows: Windows::default(),
            unclaimed: HashMap::new(),
            held: HashMap::new(),
            specs: HashMap::new(),
            upstream: HashMap::new(),
            heads: HashMap::new(),
            backing_off: BinaryHeap::new(),
            shown,
            measured: Instant::now(),
            looked_at_held: Instant::now(),
            patience: Patience::new(Duration::ZERO),
            infeasible: None,
        };
        (this, DispatcherHandle { inbox: handle, view }, outbox)
    }

    /// Hands shards that stay too large for every live worker for so long to `refusals`, with the reason. Zero is never.
    pub fn give_up_after(&mut self, limit: Duration, refusals: mpsc::UnboundedSender<(ShardId, String)>) {
        self.patience = Patience::new(limit);
        self.infeasible = Some(refusals);
    }

    /// Takes up what an earlier life left: what is ready, what backs off, what waits in the queues, and what was
    /// ordered and may never have been published.
    pub async fn restore(&mut self, work: &OpenWork) -> Result<(), Error> {
        for range in &work.ready {
            self.add_ready(*range).await?;
        }
        for waiting in &work.backing_off {
            self.head(waiting.shard.request).await?;
            self.backing_off.push(Reverse((due(waiting), waiting.shard)));
        }
        let now = Instant::now();
        for attempt in work.in_flight.iter().filter(|attempt| !attempt.claimed) {
            let release = &attempt.release;
            self.windows.released(&release.queue, now);
            self.unclaimed.insert((release.shard, release.attempt), release.queue.clone());
        }
        Ok(())
    }

    /// Publishes again what the ledger ordered and the broker may not have.
    async fn replay(&mut self, work: &OpenWork) -> Result<(), Error> {
        for attempt in work.in_flight.iter().filter(|attempt| !attempt.confirmed && !attempt.claimed) {
            let mut release = attempt.release.clone();
            let Some(head) = self.head(release.shard.request).await? else { continue };
            let Some(spec) = self.ledger.specs(vec![release.shard]).await?.pop() else { continue };
            if release.timeout_ms == 0 {
                // Ordered by a version that did not keep it.
                release.timeout_ms = self.catalogue.current().unit(&spec.unit).map_or(0, |u| millis(u.timeout));
            }
            self.publish(Chosen { head, spec, release }).await?;
        }
        Ok(())
    }

    /// Releases until told to stop.
    pub async fn run(mut self, work: OpenWork, stop: CancellationToken) {
        while let Err(error) = self.replay(&work).await {
            tracing::error!(%error, "replaying the outbox waits for the ledger");
            if stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_none() {
                return;
            }
        }
        drop(work);
        let mut fleet = self.fleet.clone();
        loop {
            let pause = self.next_look();
            tokio::select! {
                () = stop.cancelled() => return,
                changes = self.inbox.recv() => match changes {
                    Some(changes) => self.take_up(changes).await,
                    None => return,
                },
                Ok(()) = fleet.changed() => self.release_held(),
                () = tokio::time::sleep(pause) => {}
            }
            // However busy it is: the windows follow the rates.
            if self.measured.elapsed() >= TICK {
                self.measured = Instant::now();
                self.windows.measure(self.measured);
                self.show();
            }
            if self.looked_at_held.elapsed() >= LOOK_AT_HELD_EVERY {
                self.release_held();
            }
            // Whatever else has arrived is taken up before anything is released.
            while let Ok(changes) = self.inbox.try_recv() {
                self.take_up(changes).await;
            }
            if let Err(error) = self.look().await {
                tracing::error!(%error, "releasing waits for the ledger");
                tokio::time::sleep(TICK).await;
            }
        }
    }

    fn show(&self) {
        let mut waiting = Waiting::default();
        for (head, count) in self.backlog.counts() {
            waiting.ready(&head.fleet, head.priority, count);
        }
        for (request, shards) in &self.held {
            if let Some(head) = self.heads.get(request) {
                waiting.held_back(&head.fleet, head.priority, shards.len() as u64);
            }
        }
        for Reverse((_, shard)) in &self.backing_off {
            if let Some(head) = self.heads.get(&shard.request) {
                waiting.backing_off(&head.fleet, head.priority, 1);
            }
        }
        self.shown.send_replace(Arc::new(QueueView::new(self.windows.levels(), waiting)));
    }

    fn next_look(&self) -> Duration {
        let due = self.backing_off.peek().map(|Reverse((due, _))| due.saturating_duration_since(Instant::now()));
        due.map_or(TICK, |left| left.clamp(Duration::from_millis(1), TICK))
    }

    async fn take_up(&mut self, changes: Changes) {
        let now = Instant::now();
        for left in changes.left_queue {
            if let Some(queue) = self.unclaimed.remove(&left) {
                self.windows.left(&queue, now);
            }
        }
        for request in changes.finished {
            self.forget(request);
        }
        self.backing_off.extend(changes.backing_off.iter().map(|waiting| Reverse((due(waiting), waiting.shard))));
        for range in changes.ready {
            while let Err(error) = self.add_ready(range).await {
                tracing::error!(%error, "what became ready waits for the ledger");
                tokio::time::sleep(TICK).await;
            }
        }
    }

    fn forget(&mut self, request: RequestId) {
        self.backlog.forget(request);
        self.held.remove(&request);
        self.patience.forget(request);
        self.heads.remove(&request);
        self.specs.retain(|shard, _| shard.request != request);
        self.upstream.retain(|(known, _), _| *known != request);
    }

    async fn add_ready(&mut self, range: ReadyRange) -> Result<(), Error> {
        if let Some(head) = self.head(range.request).await? {
            self.backlog.add(&head, range);
        }
        Ok(())
    }

    async fn head(&mut self, request: RequestId) -> Result<Option<Arc<RequestHead>>, Error> {
        if let Some(head) = self.heads.get(&request) {
            return Ok(Some(Arc::clone(head)));
        }
        let head = self.ledger.head(request).await?.map(Arc::new);
        if let Some(head) = &head {
            self.heads.insert(request, Arc::clone(head));
        }
        Ok(head)
    }

    fn release_held(&mut self) {
        self.looked_at_held = Instant::now();
        for (request, shards) in std::mem::take(&mut self.held) {
            if let Some(head) = self.heads.get(&request) {
                self.put_back(&Arc::clone(head), shards);
            }
        }
    }

    fn put_back(&mut self, head: &Arc<RequestHead>, shards: Vec<ShardId>) {
        for shard in shards.into_iter().rev() {
            let (request, stage, first) = (shard.request, shard.stage, shard.index);
            self.backlog.add(head, ReadyRange { request, stage, first, count: 1 });
        }
    }

    /// Resumes what has waited long enough and releases what has room.
    async fn look(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(Reverse((at, shard))) = self.backing_off.peek().copied()
            && at <= now
        {
            self.backing_off.pop();
            due.push(shard);
        }
        if !due.is_empty() {
            let resumed = self.ledger.resume(due.clone()).await;
            match resumed {
                Ok(changes) => self.take_up(changes).await,
                Err(error) => {
                    self.backing_off.extend(due.into_iter().map(|shard| Reverse((now, shard))));
                    return Err(error);
                }
            }
        }
        for infeasible in self.patience.exhausted(Instant::now()) {
            // Whoever refuses has stopped, and so will this service; the next life finds it again.
            drop(self.infeasible.as_ref().map(|refusals| refusals.send(infeasible)));
        }
        loop {
            let chosen = self.choose().await?;
            if chosen.is_empty() {
                break;
            }
            self.order(chosen).await?;
        }
        metrics::gauge!(SHARDS_READY).set(self.backlog.len() as f64);
        metrics::gauge!(SHARDS_UNCLAIMED).set(self.windows.unclaimed() as f64);
        Ok(())
    }

    /// The next shards to release, in turns, until the windows are full or there are enough for one commit.
    async fn choose(&mut self) -> Result<Vec<Chosen>, Error> {
        let mut chosen = Vec::new();
        let mut exhausted: HashSet<RequestId> = HashSet::new();
        loop {
            let turns: Vec<_> = self.backlog.turns().into_iter().filter(|h| !exhausted.contains(&h.id)).collect();
            if turns.is_empty() {
                return Ok(chosen);
            }
            for head in turns {
                if chosen.len() >= COMMIT {
                    return Ok(chosen);
                }
                if !self.choose_of(&head, &mut chosen).await? {
                    exhausted.insert(head.id);
                }
            }
        }
    }

    /// One turn of one request. False once it has nothing that may be released now.
    async fn choose_of(&mut self, head: &Arc<RequestHead>, chosen: &mut Vec<Chosen>) -> Result<bool, Error> {
        let taken = self.backlog.take(head.id, QUANTUM);
        let specs = match self.read_specs(&taken).await {
            Ok(specs) => specs,
            Err(error) => {
                self.put_back(head, taken);
                return Err(error);
            }
        };
        let catalogue = self.catalogue.current();
        let fleet = Arc::clone(&self.fleet.borrow());
        let workers = fleet.claiming(&head.fleet).count();
        let (mut back, mut found) = (Vec::new(), false);
        for spec in specs {
            let shard = spec.shard;
            if back.len() >= LOOKAHEAD {
                back.push(shard);
                self.specs.insert(shard, spec);
                continue;
            }
            let Ok(unit) = catalogue.unit(&spec.unit) else {
                self.held.entry(head.id).or_default().push(shard);
                continue;
            };
            let sized = self.sizing.size(head, &spec, unit);
            if let Err(error) = fleet.could_run(&head.fleet, &spec.unit, &sized.reservation.vector) {
                match error {
                    NoWorker::TooLarge { .. } => self.patience.too_large(shard, &error, Instant::now()),
                    NoWorker::EmptyFleet { .. } | NoWorker::UnknownUnit { .. } => self.patience.is_not(shard),
                }
                self.held.entry(head.id).or_default().push(shard);
                continue;
            }
            self.patience.is_not(shard);
            let queue = names::shard_queue(&head.fleet, head.priority, sized.class);
            if self.windows.room(&queue, workers) == 0 {
                back.push(shard);
                self.specs.insert(shard, spec);
                continue;
            }
            self.windows.released(&queue, Instant::now());
            found = true;
            let release = Release {
                shard,
                attempt: spec.next_attempt,
                reservation: sized.reservation,
                forecast: sized.forecast,
                class: sized.class,
                queue,
                timeout_ms: millis(sized.timeout),
                now_ms: now_ms(),
            };
            chosen.push(Chosen { head: Arc::clone(head), spec, release });
        }
        let full = back.len() >= LOOKAHEAD;
        self.put_back(head, back);
        Ok(found && !full)
    }

    async fn read_specs(&mut self, shards: &[ShardId]) -> Result<Vec<ShardSpec>, Error> {
        let unread: Vec<_> = shards.iter().filter(|shard| !self.specs.contains_key(shard)).copied().collect();
        if !unread.is_empty() {
            for spec in self.ledger.specs(unread).await? {
                self.specs.insert(spec.shard, spec);
            }
        }
        Ok(shards.iter().filter_map(|shard| self.specs.remove(shard)).collect())
    }

    /// Orders attempts in the ledger and hands their messages to the outbox.
    async fn order(&mut self, chosen: Vec<Chosen>) -> Result<(), Error> {
        crash_points::RELEASE_BEFORE_COMMIT.hit();
        let releases = chosen.iter().map(|c| c.release.clone()).collect();
        // Durable: the attempts, before any of their messages.
        let ordered = match self.ledger.release(releases).await {
            Ok(ordered) => ordered,
            Err(error) => {
                for chosen in chosen {
                    self.windows.left(&chosen.release.queue, Instant::now());
                    let shard = chosen.spec.shard;
                    self.specs.insert(shard, chosen.spec);
                    self.put_back(&chosen.head, vec![shard]);
                }
                return Err(error);
            }
        };
        crash_points::RELEASE_AFTER_COMMIT.hit();
        let ordered: HashSet<ShardId> = ordered.into_iter().map(|release| release.shard).collect();
        for chosen in chosen {
            let release = &chosen.release;
            if !ordered.contains(&release.shard) {
                // It has ended or was ordered already; nothing waits in the queue for it.
                self.windows.left(&release.queue, Instant::now());
                continue;
            }
            metrics::counter!(
                SHARDS_RELEASED,
                "priority" => chosen.head.priority.as_str(), "class" => release.class.as_str()
            )
            .increment(1);
            self.demand.released(&chosen.head, &chosen.spec.unit, &release.reservation.vector);
            self.unclaimed.insert((release.shard, release.attempt), release.queue.clone());
            while let Err(error) = self.publish(chosen.clone()).await {
                tracing::error!(%error, "a released shard waits for the ledger");
                tokio::time::sleep(TICK).await;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, chosen: Chosen) -> Result<(), Error> {
        let Chosen { head, spec, release } = chosen;
        let upstream = self.results(head.id, &spec.depends_on).await?;
        let message = shard_message(self.ledger.id(), &head, &spec, &release, upstream);
        let outgoing = Outgoing { shard: release.shard, attempt: release.attempt, queue: release.queue, message };
        // A closed outbox means that this life is over; the next one replays what is not confirmed.
        drop(self.outgoing.send(outgoing).await);
        Ok(())
    }

    async fn results(&mut self, request: RequestId, stages: &[u32]) -> Result<Vec<v1::ShardResult>, Error> {
        if stages.is_empty() {
            return Ok(Vec::new());
        }
        let key = (request, stages.to_vec());
        if let Some(known) = self.upstream.get(&key) {
            return Ok(known.clone());
        }
        let results = self.ledger.results(request, stages.to_vec()).await?;
        self.upstream.insert(key, results.clone());
        Ok(results)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When a shard that backs off may be released.
fn due(waiting: &BackingOff) -> Instant {
    let left = Duration::from_millis(waiting.not_before_ms.saturating_sub(now_ms()));
    Instant::now() + left.min(LONGEST_PAUSE)
}
