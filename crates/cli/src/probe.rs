//! Whether a server is there, looked at directly.

use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::Api;
use crate::diagnosis::Check;

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an AMQP 0-9-1 client says first.
const AMQP_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// What a frame with `connection.start` begins with: a method frame on channel 0.
const METHOD_ON_CHANNEL_0: [u8; 3] = [1, 0, 0];

/// RabbitMQ: whether something at the URL answers as an AMQP server does. Over TLS, whether it can be connected to.
pub(crate) async fn rabbitmq(text: &str) -> Check {
    const NAME: &str = "RabbitMQ";
    const ADVICE: &str = "is it running, and is FORECASTLE_AMQP_URL right? `infra/stack up` starts a local one";
    // Errors of the parser could repeat the password.
    let Some((scheme, address)) = Url::parse(text).ok().and_then(|url| {
        let port = url.port().unwrap_or(if url.scheme() == "amqps" { 5671 } else { 5672 });
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some((url.scheme().to_owned(), (host, port)))
    }) else {
        return Check::fail(NAME, "FORECASTLE_AMQP_URL is not of the form amqp://host:port", ADVICE);
    };
    let place = format!("{}:{}", address.0, address.1);
    let answer = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect((&*address.0, address.1)).await?;
        if scheme == "amqps" {
            return Ok(true);
        }
        stream.write_all(AMQP_HEADER).await?;
        let mut answer = [0; METHOD_ON_CHANNEL_0.len()];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer == METHOD_ON_CHANNEL_0)
    });
    match answer.await {
        Ok(Ok(true)) => Check::ok(NAME, format!("{place} answers")),
        Ok(Ok(false)) => Check::fail(NAME, format!("{place} is no AMQP 0-9-1 server"), ADVICE),
        Ok(Err(error)) => Check::fail(NAME, format!("{place}: {error}"), ADVICE),
        Err(_) => Check::fail(NAME, format!("{place}: no answer within {} s", PATIENCE.as_secs()), ADVICE),
    }
}

/// ClickHouse: its `/ping`.
pub(crate) async fn clickhouse(api: &Api, text: &str) -> Check {
    const NAME: &str = "ClickHouse";
    // It is needed for history only.
    const ADVICE: &str =
        "is it running, and is FORECASTLE_CLICKHOUSE_URL right? Work goes on without it; events wait in the ledger";
    let Some(mut url) = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme())) else {
        return Check::warn(NAME, "FORECASTLE_CLICKHOUSE_URL is not of the form http://host:port", ADVICE);
    };
    // A user and a password in the URL are not needed for a ping, nor wanted in what is printed.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_path("/ping");
    url.set_query(None);
    let place = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    match api.look(url).await {
        Ok((status, body)) if status.is_success() && body.trim() == "Ok." => {
            Check::ok(NAME, format!("{place} answers"))
        }
        Ok((status, _)) => Check::warn(NAME, format!("{place} answers {status}, but not as ClickHouse does"), ADVICE),
        Err(reason) => Check::warn(NAME, format!("{place}: {reason}"), ADVICE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Verdict;
    use tokio::net::TcpListener;

    /// A server that answers with these bytes, and then ends.
    async fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut header = [0; 8];
            stream.read_exact(&mut header).await.unwrap();
            assert_eq!(header, AMQP_HEADER);
            stream.write_all(answer).await.unwrap();
        });
        format!("amqp://fred:s3cret@{address}/%2f")
    }

    #[tokio::test]
    async fn only_what_speaks_amqp_is_taken_for_rabbitmq() {
        assert_eq!(rabbitmq(&server(&[1, 0, 0, 0, 0]).await).await.verdict, Verdict::Ok);
        assert_eq!(rabbitmq(&server(b"HTTP/1.1 400").await).await.verdict, Verdict::Fail);
        let closed = rabbitmq(&server(b"").await).await;
        assert_eq!(closed.verdict, Verdict::Fail);
        assert!(!format!("{closed:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_read_and_a_closed_port_fail_without_the_password() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for text in ["fred:s3cret", "", &format!("amqp://fred:s3cret@{free}")] {
            let check = rabbitmq(text).await;
            assert_eq!(check.verdict, Verdict::Fail, "{text}");
            assert!(!format!("{check:?}").contains("s3cret"), "{check:?}");
        }
    }
}
