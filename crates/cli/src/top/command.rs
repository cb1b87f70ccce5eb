//! The command: its arguments, and which of the two ways it answers.

use std::time::Duration;

use clap::Args;

use super::controls::{Controls, Order};
use super::{live, text};
use crate::api::Api;
use crate::failure::Failure;
use crate::inputs::interval;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  forecastle top
  forecastle top --interval 5s --sort waste
  forecastle top --once                    once, as text
  forecastle top --json | jq '.queues'     once, as the frontend's answer

Keys: q quits; s changes the order of the runs; / filters workers and runs by any text in their rows; p pauses; \
+ and - change the interval; Tab chooses the table that the arrows and PgUp, PgDn, Home, End scroll.

Of each resource: what runs use now, what is reserved for them, and what there is. WASTE is what a run has reserved \
and does not use, as a share of its worker, of the resource where that is most. Of other tenants' runs only the \
amounts are shown, unless the token is an operator's (the option http.tokens).

Where standard output is no terminal it answers once, as with --once.";

/// Show the fleet live: workers, shares, queues and runs, reserved against used
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// How often to look, such as 500ms, 2s or 1m
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// The order of the runs
    #[arg(long, value_name = "ORDER", default_value = "age", value_enum)]
    sort: Order,
    /// Only workers and runs with this text in their rows
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Answer once, as text
    #[arg(long)]
    once: bool,
}

impl Top {
    /// Shows the fleet.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        // Asked before the terminal is touched: what is wrong with the frontend or the token is an ordinary error.
        let fleet = api.fleet().await?;
        if output.json {
            return output.document(&fleet);
        }
        let controls = Controls::new(self.interval, self.sort, self.filter);
        if self.once || !output.screen {
            return text::print(output, &fleet, &controls);
        }
        live::run(api, output, fleet, controls).await
    }
}
