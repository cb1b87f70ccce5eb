//! A host for a program: a network namespace with one link to this machine.
//!
//! Only root can make one. The servers of the stack listen on the loopback interface alone, which a namespace does not
//! share: at this machine's end of the link their ports are forwarded.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How many were made by this process: each has a subnet of its own.
static MADE: AtomicU8 = AtomicU8::new(0);

/// The host. Dropping it removes it; what runs there should have ended.
#[derive(Debug)]
pub struct Host {
    name: String,
    number: u8,
    /// On threads of its own, so that whoever waits here without a runtime does not hold up what is carried.
    forwarders: Option<Runtime>,
    /// Ports of the loopback interface, and those of the gateway in their place: a server that starts wants to see its
    /// own free everywhere.
    ports: Vec<(u16, u16)>,
}

impl Host {
    /// A host that reaches `ports` of this machine's loopback interface at its gateway.
    pub fn new(ports: &[u16]) -> anyhow::Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        // Names of interfaces have at most 15 characters.
        let name = format!("fc{}h{number}", std::process::id() % 1_000_000);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut host = Self { name, number, forwarders: Some(runtime), ports: Vec::new() };
        let (inside, outside) = (format!("{}i", host.name), host.name.clone());
        let (gateway, address) = (format!("{}/30", host.gateway()), format!("{}/30", host.address()));
        ip(&["netns", "add", &host.name])?;
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside])?;
        ip(&["link", "set", &inside, "netns", &host.name])?;
        ip(&["addr", "add", &gateway, "dev", &outside])?;
        ip(&["link", "set", &outside, "up"])?;
        ip(&["-n", &host.name, "addr", "add", &address, "dev", &inside])?;
        ip(&["-n", &host.name, "link", "set", &inside, "up"])?;
        ip(&["-n", &host.name, "link", "set", "lo", "up"])?;
        for port in ports {
            let listener = std::net::TcpListener::bind((host.gateway(), 0))?;
            listener.set_nonblocking(true)?;
            host.ports.push((*port, listener.local_addr()?.port()));
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            if let Some(runtime) = &host.forwarders {
                runtime.spawn(async move { forward(TcpListener::from_std(listener)?, to).await });
            }
        }
        Ok(host)
    }

    /// This machine as the host sees it.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 1)
    }

    /// The host as this machine sees it.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, 2)
    }

    /// A URL of this machine's loopback interface as the host reaches it.
    pub fn reach(&self, url: &str) -> String {
        let mut url = url.to_owned();
        for (port, forwarded) in &self.ports {
            url = url.replace(&format!("127.0.0.1:{port}"), &format!("{}:{forwarded}", self.gateway()));
        }
        url
    }

    /// A command on the host.
    pub(crate) fn command(&self, program: &Path) -> Command {
        // Unlike `ip netns exec` it leaves /sys, and with it the cgroups, as they are.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Cuts the link: what is sent is lost, and nobody is told.
    pub fn cut(&self) -> anyhow::Result<()> {
        ip(&["link", "set", &self.name, "down"])
    }

    /// Mends it.
    pub fn mend(&self) -> anyhow::Result<()> {
        ip(&["link", "set", &self.name, "up"])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.forwarders.take() {
            runtime.shutdown_background();
        }
        // Its end of the link goes with it, and with that end the other. Nothing more can be done if that fails.
        ip(&["netns", "delete", &self.name]).ok();
        ip(&["link", "delete", &self.name]).ok();
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let Output { status, stderr, .. } =
        Command::new("ip").args(arguments).output().context("ip is missing: apt-get install iproute2")?;
    let said = String::from_utf8_lossy(&stderr);
    anyhow::ensure!(status.success(), "ip {} failed (it needs root): {said}", arguments.join(" "));
    Ok(())
}

/// Carries connections on, until it is dropped with all of them.
async fn forward(listener: TcpListener, to: SocketAddr) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(carry(accepted?.0, to));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut from: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut to = TcpStream::connect(to).await?;
    tokio::io::copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
