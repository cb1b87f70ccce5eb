//! TLS with an authority of our own and a client certificate, against a listener that a stack of the test's own opens
//! for it. The certificates are made with `openssl`.

use std::path::Path;
use std::process::Command;

use forecastle_broker::rabbitmq::{AmqpUrl, Options, RabbitMq, Tls};
use forecastle_broker::{Error, Queue, Topology};

use crate::bench::{consuming, fill, quorum, receive, text};
use crate::stack::{ONE_AT_A_TIME, OwnStack, run};

/// An authority, and certificates by it for `localhost` and for a client, in a folder.
fn make_certificates(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let openssl = |arguments: &str| {
        run(Command::new("openssl").current_dir(folder).args(arguments.split_whitespace()));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority"));
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost").unwrap();
    for who in ["server", "client"] {
        openssl(&format!("req {key} -keyout {who}.key -out {who}.csr -subj /CN={who}"));
        openssl(&format!(
            "x509 -req -in {who}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {who}.pem -days 2 -extfile names"
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_both_sides_are_checked_against_the_authority() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = OwnStack::start(5820).await;
    let folder = stack.path("certificates");
    make_certificates(&folder);
    // As values and not as files, which a broker in a chroot would not find.
    let pem = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        format!("hd(public_key:pem_decode(<<\"{}\">>))", text.replace('\n', "\\n"))
    };
    let listener = format!(
        "{{_, Ca, _}} = {}, {{_, Cert, _}} = {}, {{Kind, Key, _}} = {}, \
         ok = rabbit_networking:start_ssl_listener({{\"127.0.0.1\", 5825}}, [{{cacerts, [Ca]}}, {{cert, Cert}}, \
         {{key, {{Kind, Key}}}}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}], 1).",
        pem("ca.pem"),
        pem("server.pem"),
        pem("server.key")
    );
    stack.script(&["rabbitmqctl", "eval", &listener]).await;

    let plain = stack.url().await;
    let credentials = plain.strip_prefix("amqp://").unwrap().split_once('@').unwrap().0;
    let url = format!("amqps://{credentials}@localhost:5825/%2f");
    let tls = Tls {
        ca_file: Some(folder.join("ca.pem")),
        client_cert_file: Some(folder.join("client.pem")),
        client_key_file: Some(folder.join("client.key")),
    };
    let options =
        Options { url: AmqpUrl::new(url), tls: Some(tls.clone()), connect_timeout_seconds: 5, ..Options::default() };

    let broker = RabbitMq::connect(options.clone()).await.unwrap();
    let queue = Queue { name: "secret".to_owned(), kind: quorum(), bindings: Vec::new() };
    broker.declare(&Topology { exchanges: Vec::new(), queues: vec![queue] }).await.unwrap();
    fill(&broker.publisher(10).await.unwrap(), "secret", ["hush"]).await;
    let mut consumer = broker.consumer("secret", consuming(1)).await.unwrap();
    assert_eq!(text(&receive(&mut consumer).await), "hush");
    broker.close().await;

    let unknown_authority = Options { tls: None, ..options.clone() };
    let nameless = Tls { client_cert_file: None, client_key_file: None, ..tls };
    let no_certificate = Options { tls: Some(nameless), ..options };
    for options in [unknown_authority, no_certificate] {
        let error = RabbitMq::connect(options).await.err().expect("no trust");
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    }
}
