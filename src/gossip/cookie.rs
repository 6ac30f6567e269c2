//! Proof that a sender receives at the address it sends from, without keeping anything of it (as QUIC's Retry, RFC 9000).
//!
//! A cookie is a keyed hash of address and port. The key belongs to this process and is replaced every ten minutes; the one
//! before it is accepted as well.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::time::Instant;

use super::message::{Cookie, NONE};

/// A key is used for so long.
const ROTATION: Duration = Duration::from_secs(600);

/// Makes and checks cookies.
pub(super) struct Cookies {
    keys: [[u8; 32]; 2],
    since: Instant,
}

impl Cookies {
    /// With fresh keys.
    pub(super) fn new(now: Instant) -> Cookies {
        Cookies { keys: rand::random(), since: now }
    }

    /// The cookie of an address.
    pub(super) fn of(&mut self, now: Instant, addr: SocketAddr) -> Cookie {
        self.rotate(now);
        cookie(&self.keys[0], addr)
    }

    /// Whether it is the cookie of this address.
    pub(super) fn is_valid(&mut self, now: Instant, addr: SocketAddr, given: Cookie) -> bool {
        self.rotate(now);
        // Not in constant time: who can measure that holds the group key, and gains one cookie for an address that is not its own.
        given != NONE && self.keys.iter().any(|key| cookie(key, addr) == given)
    }

    fn rotate(&mut self, now: Instant) {
        while now.saturating_duration_since(self.since) >= ROTATION {
            self.keys = [rand::random(), self.keys[0]];
            self.since += ROTATION;
        }
    }
}

fn cookie(key: &[u8; 32], addr: SocketAddr) -> Cookie {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&addr.port().to_be_bytes());
    let mut cookie = NONE;
    cookie.copy_from_slice(&mac.finalize().into_bytes()[..8]);
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_of_one_address_and_is_accepted_for_ten_to_twenty_minutes() {
        let now = Instant::now();
        let mut cookies = Cookies::new(now);
        let (here, there): (SocketAddr, SocketAddr) = ("10.0.0.1:7447".parse().unwrap(), "10.0.0.1:7448".parse().unwrap());
        let given = cookies.of(now, here);
        assert!(cookies.is_valid(now, here, given));
        assert!(!cookies.is_valid(now, there, given), "another port is another address");
        assert!(!cookies.is_valid(now, here, NONE));
        assert!(cookies.is_valid(now + ROTATION + ROTATION / 2, here, given));
        assert!(!cookies.is_valid(now + 2 * ROTATION, here, given));
        assert!(!Cookies::new(now).is_valid(now, here, given), "another process has other keys");
    }
}
