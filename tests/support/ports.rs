//! Addresses of processes that are told theirs before they start.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below what systems give to whoever asks for any port: a connection or a listener of another test
/// would take one of those before its owner binds it, or while its owner starts anew.
const FIRST: u16 = 10_000;
const PORTS: u16 = 22_000;

/// A port of this machine that nobody listens on, and that is given once in this process.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Test programs that run side by side begin apart.
    let begin = std::process::id().wrapping_mul(101) % u32::from(PORTS);
    let begin = u16::try_from(begin).unwrap();
    (0..PORTS)
        .map(|_| GIVEN.fetch_add(1, Ordering::Relaxed))
        .map(|given| FIRST + (begin + given % PORTS) % PORTS)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// One of them with this machine's address.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}
