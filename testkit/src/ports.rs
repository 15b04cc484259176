//! Ports for servers that are started again under the same address.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

/// Below the ports that the kernel gives to connections: a server that is down loses its port to none of them.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// How far apart processes of neighbouring ids begin.
const APART: u32 = 1009;

/// How many were looked at.
static LOOKED_AT: AtomicU16 = AtomicU16::new(0);

/// An address of loopback on which nobody listens, and which this process does not give out again.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let start = u16::try_from(std::process::id().wrapping_mul(APART) % u32::from(COUNT))?;
    (0..COUNT)
        .map(|_| FIRST + (start + LOOKED_AT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("no free port from {FIRST} to {}", FIRST + COUNT - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice() {
        let ports: std::collections::BTreeSet<u16> = (0..200).map(|_| free_address().unwrap().port()).collect();
        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|port| (FIRST..FIRST + COUNT).contains(port)));
    }
}
