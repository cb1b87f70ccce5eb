//! Declares a topology, and remembers it to declare it again.

use std::sync::{Mutex, PoisonError};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection};

use super::failure::Failure;
use super::link::Role;
use super::message_codec::short;
use crate::{Error, Exchange, ExchangeKind, Queue, QueueKind, Topology};

/// Why an object could not be declared.
#[derive(Debug)]
pub(crate) struct Undeclared {
    /// The exchange or queue.
    pub(crate) object: String,
    pub(crate) failure: Failure,
}

impl Undeclared {
    fn of(object: &str) -> impl FnOnce(lapin::Error) -> Self {
        move |error| Self { object: object.to_owned(), failure: error.into() }
    }
}

/// Everything that was declared through one broker handle, by name.
#[derive(Debug, Default)]
pub(crate) struct Declarations(Mutex<Topology>);

impl Declarations {
    /// Adds `topology`; objects of the same name are replaced, bindings of a queue are joined.
    pub(crate) fn remember(&self, topology: &Topology) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for exchange in &topology.exchanges {
            all.exchanges.retain(|known| known.name != exchange.name);
            all.exchanges.push(exchange.clone());
        }
        for queue in &topology.queues {
            let mut queue = queue.clone();
            if let Some(at) = all.queues.iter().position(|known| known.name == queue.name) {
                let known = all.queues.swap_remove(at);
                queue
                    .bindings
                    .extend(known.bindings.into_iter().filter(|b| !queue.bindings.contains(b)).collect::<Vec<_>>());
            }
            all.queues.push(queue);
        }
    }

    /// Leaves out a queue from now on.
    pub(crate) fn forget(&self, queue: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).queues.retain(|known| known.name != queue);
    }

    /// What a connection of this role declares: an exclusive queue belongs to the connection that consumes from it.
    pub(crate) fn of_role(&self, role: Role) -> Topology {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if role == Role::Publish {
            all.queues.retain(|queue| matches!(queue.kind, QueueKind::Quorum { .. }));
        }
        all
    }

    /// One queue and the exchanges that it is bound to.
    pub(crate) fn of_queue(&self, name: &str) -> Topology {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queues: Vec<Queue> = all.queues.iter().filter(|queue| queue.name == name).cloned().collect();
        let bound = |exchange: &&Exchange| {
            queues.iter().flat_map(|queue| &queue.bindings).any(|(source, _)| *source == exchange.name)
        };
        Topology { exchanges: all.exchanges.iter().filter(bound).cloned().collect(), queues }
    }
}

/// Declares all of `topology`, on a channel of its own since a refusal closes it. Stops at the first failure.
pub(crate) async fn declare(connection: &Connection, topology: &Topology) -> Result<(), Undeclared> {
    let channel = connection.create_channel().await.map_err(Undeclared::of("a channel"))?;
    for exchange in &topology.exchanges {
        declare_exchange(&channel, exchange).await?;
    }
    for queue in &topology.queues {
        declare_queue(&channel, queue).await?;
    }
    // Everything is declared; how the channel ends is of no interest.
    let _ = channel.close(200, ShortString::default()).await;
    Ok(())
}

/// Declares what can be declared of `topology`, and answers what could not be.
pub(crate) async fn declare_each(connection: &Connection, topology: &Topology) -> Topology {
    let mut left = Topology::default();
    if declare(connection, topology).await.is_ok() {
        return left;
    }
    for exchange in &topology.exchanges {
        let alone = Topology { exchanges: vec![exchange.clone()], queues: Vec::new() };
        if let Err(Undeclared { object, failure }) = declare(connection, &alone).await {
            tracing::warn!(object, %failure, "cannot declare an exchange again; trying on");
            left.exchanges.extend(alone.exchanges);
        }
    }
    for queue in &topology.queues {
        let alone = Topology { exchanges: Vec::new(), queues: vec![queue.clone()] };
        if let Err(Undeclared { object, failure }) = declare(connection, &alone).await {
            tracing::warn!(object, %failure, "cannot declare a queue again; trying on");
            left.queues.extend(alone.queues);
        }
    }
    left
}

/// A name, or why it is none.
fn name_of(name: &str) -> Result<ShortString, Undeclared> {
    short(name).map_err(|error| {
        let reason = match error {
            Error::Refused { reason, .. } => reason,
            other => other.to_string(),
        };
        Undeclared { object: name.chars().take(64).collect(), failure: Failure::Refused { code: 0, reason } }
    })
}

async fn declare_exchange(channel: &Channel, exchange: &Exchange) -> Result<(), Undeclared> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
    };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = &exchange.alternate {
        arguments.insert(argument("alternate-exchange"), text(alternate));
    }
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(name_of(&exchange.name)?, kind, options, arguments)
        .await
        .map_err(Undeclared::of(&exchange.name))
}

async fn declare_queue(channel: &Channel, queue: &Queue) -> Result<(), Undeclared> {
    let exclusive = matches!(queue.kind, QueueKind::Exclusive { .. });
    let options = QueueDeclareOptions {
        durable: !exclusive,
        exclusive,
        auto_delete: exclusive,
        ..QueueDeclareOptions::default()
    };
    let name = name_of(&queue.name)?;
    channel.queue_declare(name.clone(), options, arguments(&queue.kind)).await.map_err(Undeclared::of(&queue.name))?;
    for (exchange, key) in &queue.bindings {
        channel
            .queue_bind(
                name.clone(),
                name_of(exchange)?,
                name_of(key)?,
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(Undeclared::of(&queue.name))?;
    }
    Ok(())
}

fn arguments(kind: &QueueKind) -> FieldTable {
    let mut arguments = FieldTable::default();
    match kind {
        QueueKind::Quorum { max_length, delivery_limit, dead_letter, consumer_timeout } => {
            arguments.insert(argument("x-queue-type"), text("quorum"));
            arguments.insert(argument("x-overflow"), text("reject-publish"));
            arguments.insert(argument("x-delivery-limit"), AMQPValue::LongLongInt((*delivery_limit).into()));
            if let Some(most) = max_length {
                arguments.insert(argument("x-max-length"), AMQPValue::LongLongInt((*most).into()));
            }
            if let Some(target) = dead_letter {
                arguments.insert(argument("x-dead-letter-exchange"), text(&target.exchange));
                arguments.insert(argument("x-dead-letter-routing-key"), text(&target.routing_key));
                arguments.insert(argument("x-dead-letter-strategy"), text("at-least-once"));
            }
            if let Some(timeout) = consumer_timeout {
                // Brokers before 3.12 take no notice of it (seen on 3.10.8), so their version need not be known.
                let milliseconds = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
                arguments.insert(argument("x-consumer-timeout"), AMQPValue::LongLongInt(milliseconds));
            }
        }
        QueueKind::Exclusive { max_length } => {
            arguments.insert(argument("x-queue-type"), text("classic"));
            arguments.insert(argument("x-overflow"), text("drop-head"));
            arguments.insert(argument("x-max-length"), AMQPValue::LongLongInt((*max_length).into()));
        }
    }
    arguments
}

/// The name of an argument: one of the literals above, all of which are short.
fn argument(name: &'static str) -> ShortString {
    name.into()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusive(name: &str, exchange: &str) -> Queue {
        Queue {
            name: name.to_owned(),
            kind: QueueKind::Exclusive { max_length: 1 },
            bindings: vec![(exchange.to_owned(), String::new())],
        }
    }

    fn exchange(name: &str) -> Exchange {
        Exchange { name: name.to_owned(), kind: ExchangeKind::Fanout, alternate: None }
    }

    #[test]
    fn each_connection_declares_what_it_may_and_a_queue_comes_with_its_exchanges() {
        let declarations = Declarations::default();
        let quorum = Queue {
            kind: QueueKind::Quorum { max_length: None, delivery_limit: 1, dead_letter: None, consumer_timeout: None },
            ..exclusive("durable", "b")
        };
        declarations.remember(&Topology {
            exchanges: vec![exchange("a"), exchange("b")],
            queues: vec![exclusive("own", "a"), quorum.clone()],
        });
        assert_eq!(declarations.of_role(Role::Publish).queues, [quorum]);
        assert_eq!(declarations.of_role(Role::Consume).queues.len(), 2);
        assert_eq!(declarations.of_queue("own").exchanges, [exchange("a")]);
        declarations.forget("own");
        assert_eq!(declarations.of_queue("own"), Topology::default());
    }

    #[test]
    fn declaring_again_joins_bindings() {
        let declarations = Declarations::default();
        for source in ["a", "b", "a"] {
            declarations
                .remember(&Topology { exchanges: vec![exchange(source)], queues: vec![exclusive("q", source)] });
        }
        let all = declarations.of_queue("q");
        assert_eq!((all.exchanges.len(), all.queues.len(), all.queues[0].bindings.len()), (2, 1, 2));
    }
}
