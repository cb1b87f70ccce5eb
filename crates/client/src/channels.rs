//! The pool of channels that publish, over deadpool-lapin's pool of connections.
//!
//! A channel is held by one submission from publishing to the broker's answer. So a returned message belongs to it
//! without doubt: AMQP does not say which publish a return answers.

use std::time::Duration;

use deadpool::managed::{self, Metrics, Pool, PoolConfig, QueueMode, RecycleError, RecycleResult, Timeouts};
use deadpool_lapin::{PoolError, Runtime};
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, ConnectionProperties};

use crate::{ClientOptions, Error};

/// A channel in confirm mode.
pub(crate) struct ConfirmingChannel {
    pub(crate) channel: Channel,
    /// True from the publish to the answer. A channel that comes back to the pool with it (its submission timed out or
    /// was dropped) is not used again: the answer to come would be taken for another message's.
    pub(crate) unanswered: bool,
}

/// Opens channels on pooled connections.
pub(crate) struct ChannelManager {
    connections: deadpool_lapin::Pool,
}

impl managed::Manager for ChannelManager {
    type Type = ConfirmingChannel;
    type Error = PoolError;

    async fn create(&self) -> Result<ConfirmingChannel, PoolError> {
        // Back to its pool at the end of this function: a connection carries many channels. The pool hands out the one
        // that has waited longest, so channels spread over the connections.
        let connection = self.connections.get().await?;
        let channel = connection.create_channel().await.map_err(PoolError::Backend)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(PoolError::Backend)?;
        Ok(ConfirmingChannel { channel, unanswered: false })
    }

    async fn recycle(&self, held: &mut ConfirmingChannel, _: &Metrics) -> RecycleResult<PoolError> {
        if held.unanswered {
            Err(RecycleError::message("the broker has not answered its last message"))
        } else if held.channel.status().connected() {
            Ok(())
        } else {
            Err(RecycleError::message("it is closed"))
        }
    }
}

/// The pools. Nothing is connected yet.
pub(crate) fn pool(options: &ClientOptions) -> Result<Pool<ChannelManager>, Error> {
    let unusable = |reason: String| Error::InvalidOptions { field: "connections", reason };
    let timeouts = |wait: Duration, create: Duration| Timeouts {
        wait: Some(wait),
        create: Some(create),
        recycle: Some(options.connect_timeout),
    };
    let name = options.name.clone();
    let connections = deadpool_lapin::Config {
        url: Some(options.url.clone()),
        pool: Some(PoolConfig {
            max_size: options.connections,
            timeouts: timeouts(options.connect_timeout, options.connect_timeout),
            queue_mode: QueueMode::Fifo,
        }),
    }
    .create_pool(
        move || ConnectionProperties::default().with_connection_name(format!("{name} (publishes)").into()),
        Runtime::Tokio1,
    )
    .map_err(|error| unusable(error.to_string()))?;
    let config = PoolConfig {
        max_size: options.channels,
        // The whole of it: waiting for a connection, connecting, and opening the channel.
        timeouts: timeouts(options.channel_timeout, options.connect_timeout),
        // The channel used last is the warmest; those that are too many stay idle.
        queue_mode: QueueMode::Lifo,
    };
    Pool::builder(ChannelManager { connections })
        .config(config)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| unusable(error.to_string()))
}

/// Closes channels and connections that are idle, and the others when they come back.
pub(crate) fn close(channels: &Pool<ChannelManager>) {
    channels.close();
    channels.manager().connections.close();
}
