//! Which addresses may be called from here: what a setting names is no way into the machine or its
//! network.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

impl Net {
    /// Reads `10.1.0.0/16`, or one address.
    ///
    /// # Errors
    ///
    /// A text that is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address or net; write such as `10.1.0.0/16`");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse::<u8>().map_err(|_| wrong())?,
            None => most,
        };
        (bits <= most)
            .then_some(Self { address, bits })
            .ok_or_else(wrong)
    }

    /// Whether an address is one of them.
    pub fn holds(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => alike(
                ours.to_bits().into(),
                theirs.to_bits().into(),
                self.bits,
                32,
            ),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                alike(ours.to_bits(), theirs.to_bits(), self.bits, 128)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn alike(ours: u128, theirs: u128, bits: u8, of: u8) -> bool {
    let rest = u32::from(of.saturating_sub(bits));
    // All of them where no bit is looked at.
    let cut = |address: u128| address.checked_shr(rest).unwrap_or(0);
    cut(ours) == cut(theirs)
}

/// Whether an address is one of the public Internet (the IANA registries of special addresses).
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => public_v4(address),
        IpAddr::V6(address) => public_v6(address),
    }
}

fn public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Shared with a provider, protocol assignments, 6to4 relays, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Only global unicast; of it not what carries another address inside, nor documentation.
    let global = (first & 0xe000) == 0x2000;
    let special = (first == 0x2001 && (second < 0x200 || second == 0xdb8))
        || first == 0x2002
        || (first == 0x3fff && second < 0x1000);
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_is_not_public_however_it_is_written() {
        for within in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.5.4",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "192.0.2.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
            "2001:db8::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(within.parse().unwrap()), "{within}");
        }
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.1.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn a_net_holds_what_begins_like_it() {
        let net = Net::parse("10.1.0.0/16").unwrap();
        assert!(net.holds("10.1.255.1".parse().unwrap()));
        assert!(net.holds("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!net.holds("10.2.0.1".parse().unwrap()));
        assert!(!net.holds("2606::1".parse().unwrap()));
        let one = Net::parse("127.0.0.1").unwrap();
        assert!(one.holds("127.0.0.1".parse().unwrap()));
        assert!(!one.holds("127.0.0.2".parse().unwrap()));
        assert!(
            Net::parse("0.0.0.0/0")
                .unwrap()
                .holds("9.9.9.9".parse().unwrap())
        );
        assert!(
            Net::parse("::/0")
                .unwrap()
                .holds("2606::1".parse().unwrap())
        );
        assert_eq!(Net::parse("fd00::/8").unwrap().to_string(), "fd00::/8");
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "host",
            "10.0.0.0/x",
            "10.0.0/8",
        ] {
            assert!(Net::parse(wrong).is_err(), "{wrong}");
        }
    }
}
