//! Free ports.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::{SocketAddr, TcpListener},
};

use anyhow::{Result, bail};

/// A free port on 127.0.0.1. It lies below the range from which the kernel takes the ports of outgoing
/// connections: a server that is restarted finds its port as it left it.
pub fn free() -> Result<u16> {
    for _ in 0..200 {
        let port = 15_000 + u16::try_from(random() % 15_000)?;
        if is_free(SocketAddr::from(([127, 0, 0, 1], port))) {
            return Ok(port);
        }
    }
    bail!("found no free port between 15000 and 30000 on 127.0.0.1")
}

pub fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Not for secrets: the standard library's per-process random keys.
pub(super) fn random() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    u32::try_from(bits >> 32).unwrap_or(0)
}
