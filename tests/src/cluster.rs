//! Three nats-servers that keep one stream together.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream;
use xtask::servers::{Binaries, Choice, Ending, Process, free_port};

const NODES: [&str; 3] = ["one", "two", "three"];

pub struct Cluster {
    nodes: BTreeMap<&'static str, Node>,
}

struct Node {
    port: u16,
    process: Process,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: std::path::PathBuf,
}

impl Cluster {
    pub fn start(folder: &Path) -> Result<Self> {
        let choice = Choice::from_environment()?;
        let servers = Binaries::get(choice, false, &mut |line| eprintln!("{line}"))?;
        let ports = [free_port()?, free_port()?, free_port()?];
        let routes: Vec<_> = ports.map(|port| format!("nats-route://127.0.0.1:{port}")).to_vec();
        let mut nodes = BTreeMap::new();
        for (name, route) in NODES.into_iter().zip(ports) {
            let folder = folder.join(name);
            fs::create_dir_all(&folder)?;
            let port = free_port()?;
            let conf = folder.join("nats.conf");
            fs::write(&conf, configuration(name, port, route, &routes, &folder))?;
            let program = servers.nats.program.clone();
            let command = Box::new(move || {
                let mut command = Command::new(&program);
                command.arg("-c").arg(&conf);
                command
            });
            let log = folder.join("nats.log");
            let process = Process::start(name, command(), &log, Ending::default())?;
            nodes.insert(name, Node { port, process, command, log });
        }
        Ok(Self { nodes })
    }

    /// All nodes, for a client that may have any of them.
    pub fn url(&self) -> String {
        let urls = self.nodes.values().map(|node| format!("nats://127.0.0.1:{}", node.port));
        urls.collect::<Vec<_>>().join(",")
    }

    /// A node that is not this one.
    pub fn url_beside(&self, name: &str) -> String {
        let port = self.nodes.iter().find(|(node, _)| **node != name).map_or(0, |(_, n)| n.port);
        format!("nats://127.0.0.1:{port}")
    }

    /// The node that leads the stream.
    pub async fn leader(&self, stream: &str) -> Result<String> {
        let client = async_nats::connect(self.url_beside("")).await?;
        let mut stream = jetstream::new(client).get_stream(stream).await?;
        let cluster = stream.info().await?.cluster.clone().context("no cluster")?;
        cluster.leader.context("no leader")
    }

    pub fn kill9(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.process.kill9();
        }
    }

    pub fn restart(&mut self, name: &'static str) -> Result<()> {
        let node = self.nodes.get_mut(name).context("no such node")?;
        node.process = Process::start(name, (node.command)(), &node.log, Ending::default())?;
        node.process.wait_ready(Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", node.port)).is_ok()
        })
    }

    pub fn name_of(&self, name: &str) -> &'static str {
        NODES.into_iter().find(|node| *node == name).unwrap_or("one")
    }
}

fn configuration(name: &str, port: u16, route: u16, routes: &[String], folder: &Path) -> String {
    format!(
        r#"
server_name: {name}
listen: "127.0.0.1:{port}"
max_payload: 2MB
jetstream {{ store_dir: "{folder}", max_memory_store: 64MB, max_file_store: 1TB }}
cluster {{ name: test, listen: "127.0.0.1:{route}", routes: [{routes}] }}
"#,
        folder = folder.display(),
        routes = routes.join(", ")
    )
}
