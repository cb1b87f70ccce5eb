//! What can be typed.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use forecastle_protos::ids::{RequestId, ShardId};
use reqwest::Url;

use crate::dead::Dead;
use crate::doctor::Doctor;
use crate::failure::Failure;
use crate::output::Output;
use crate::requests::List;
use crate::result::ResultOf;
use crate::shares::Shares;
use crate::submit::Submit;
use crate::top::Top;

const EXAMPLES: &str = "\
Examples:
  forecastle doctor                               is everything there?
  forecastle types                                what can be asked for
  forecastle submit archive --input /data/in      submit, watch, and show the result
  forecastle submit archive --input /data/in --detach
  forecastle list --state running
  forecastle top                                  the fleet, live
  forecastle watch 01980000-0000-7000-8000-000000000000
  forecastle explain 01980000-0000-7000-8000-000000000000.0.3

Shards are named <request>.<stage>.<index>, both numbers from 0.

Where the token comes from, the first that is there: --token-file, $FORECASTLE_TOKEN, $FORECASTLE_TOKEN_FILE; for a \
frontend on this machine .forecastle/frontend/token and .stack/frontend/token in the current directory, where a \
frontend without configured tokens keeps the one it made; $XDG_CONFIG_HOME/forecastle/token (~/.config).

Exit status: 0 done, or the request succeeded; 1 the request failed or was cancelled, or a check of doctor failed; \
2 wrong usage; 3 the frontend cannot be reached, or refuses the token; 4 it refuses the input, or knows no such \
request; 130 interrupted.";

/// Breaks requests into shards that know what they will need: submit, follow, explain.
#[derive(Debug, Parser)]
#[command(name = "forecastle", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the frontend, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Where the frontend's HTTP API is
    #[arg(long, global = true, value_name = "URL", env = "FORECASTLE_URL", default_value = "http://127.0.0.1:7070",
          value_parser = parse_url, help_heading = "Everywhere")]
    pub(crate) url: Url,
    /// A file with the API token (never on the command line, where others could read it)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file, instead of the machine's
    #[arg(long, global = true, value_name = "FILE", env = "FORECASTLE_CA_FILE", help_heading = "Everywhere")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Answer with one JSON document (of `watch`, with one a line)
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Submit(Submit),
    List(List),
    /// Show how far a request is
    Status {
        /// The request, as `submit` printed it
        #[arg(value_name = "ID")]
        id: RequestId,
    },
    /// Follow a request until it ends; the exit status says how
    Watch {
        /// The request, as `submit` printed it
        #[arg(value_name = "ID")]
        id: RequestId,
    },
    Result(ResultOf),
    /// Show the end of what a shard's last ended run wrote to standard error
    Logs {
        /// The shard, as `<request>.<stage>.<index>`
        #[arg(value_name = "SHARD")]
        shard: ShardId,
    },
    /// Cancel a request; what runs is stopped, what has succeeded stays
    Cancel {
        /// The request, as `submit` printed it
        #[arg(value_name = "ID")]
        id: RequestId,
    },
    /// Explain a shard: what was predicted and by what, where it waits and why, what each run used
    Explain {
        /// The shard, as `<request>.<stage>.<index>`
        #[arg(value_name = "SHARD")]
        shard: ShardId,
    },
    Dead(Dead),
    /// List what can be asked for, or show one request type with its parameters
    Types {
        /// Only this one, in detail
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// List the workers: capacity, what is free, how they enforce reservations
    Fleet,
    Shares(Shares),
    Top(Top),
    Doctor(Doctor),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  forecastle completions bash > ~/.local/share/bash-completion/completions/forecastle"
    )]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; it looks like http://127.0.0.1:7070"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        other => Err(format!("`{other}:` is neither http: nor https:; it looks like http://127.0.0.1:7070")),
    }
}

/// Prints the completion script.
pub(crate) fn completions(shell: Shell, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "forecastle", &mut script);
    output.text(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_of_arguments_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_url_that_is_not_http_is_refused_with_an_example() {
        for text in ["127.0.0.1:7070", "ftp://host", "", "http://"] {
            let error = parse_url(text).unwrap_err();
            assert!(error.contains("http://127.0.0.1:7070"), "{text}: {error}");
        }
        assert!(parse_url("https://forecastle.test/base").is_ok());
    }

    #[test]
    fn identifiers_are_checked_before_anything_is_sent() {
        for arguments in
            [["forecastle", "status", "7"], ["forecastle", "explain", "01980000-0000-7000-8000-000000000000"]]
        {
            let error = Arguments::try_parse_from(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("id ("), "{error}");
        }
    }
}
