//! IPv4 networks: address arithmetic, no I/O.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network in CIDR form. Host bits are always zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// The text or the length is no IPv4 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid IPv4 network {0:?}: expected an address and a prefix length, 172.17.0.0/16")]
pub struct NetError(pub String);

impl Ipv4Net {
    /// The network that holds `address`; host bits are cleared. `None` if the prefix is longer than 32 bits.
    pub const fn containing(address: Ipv4Addr, prefix_len: u8) -> Option<Self> {
        if prefix_len > 32 {
            return None;
        }
        Some(Self { address: Ipv4Addr::from_bits(address.to_bits() & mask_bits(prefix_len)), prefix_len })
    }

    /// The network address.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Length of the prefix in bits, 0 to 32.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The netmask.
    pub const fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_bits(self.prefix_len))
    }

    /// The last address: the broadcast address of networks that have one.
    pub const fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask_bits(self.prefix_len))
    }

    /// Whether the address lies inside.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask_bits(self.prefix_len) == self.address.to_bits()
    }

    /// Whether the two share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The address at an offset from the network address; `None` outside the network.
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.address.to_bits().checked_add(offset)?);
        self.contains(address).then_some(address)
    }

    /// The offset of an address from the network address; `None` outside the network.
    pub fn offset(self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address).then(|| address.to_bits() - self.address.to_bits())
    }
}

const fn mask_bits(prefix_len: u8) -> u32 {
    // A shift by 32 would overflow.
    if prefix_len == 0 { 0 } else { u32::MAX << (32 - prefix_len) }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for Ipv4Net {
    type Err = NetError;

    /// Accepts the canonical form only: host bits must be zero.
    fn from_str(text: &str) -> Result<Self, NetError> {
        let fail = || NetError(text.chars().take(80).collect());
        let (address, length) = text.split_once('/').ok_or_else(fail)?;
        let address: Ipv4Addr = address.parse().map_err(|_| fail())?;
        let canonical = !length.starts_with('+') && (length.len() == 1 || !length.starts_with('0'));
        let length: u8 = length.parse().ok().filter(|_| canonical).ok_or_else(fail)?;
        Self::containing(address, length).filter(|net| net.address == address).ok_or_else(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds() {
        let net: Ipv4Net = "172.17.0.0/16".parse().unwrap();
        assert_eq!(net.netmask(), Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(net.last(), Ipv4Addr::new(172, 17, 255, 255));
        assert_eq!(net.nth(1), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(net.nth(0x10000), None);
        assert_eq!(net.offset(Ipv4Addr::new(172, 17, 1, 0)), Some(256));
        assert_eq!(net.offset(Ipv4Addr::new(172, 18, 1, 0)), None);
        let all: Ipv4Net = "0.0.0.0/0".parse().unwrap();
        assert_eq!(all.nth(u32::MAX), Some(Ipv4Addr::BROADCAST));
        assert_eq!("255.255.255.255/32".parse::<Ipv4Net>().unwrap().nth(1), None);
    }

    #[test]
    fn bad_texts() {
        for bad in ["", "172.17.0.0", "172.17.0.1/16", "172.17.0.0/33", "1.2.3/8", "a/8", "10.0.0.0/08", "10.0.0.0/+8"]
        {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn text_round_trip(bits: u32, length in 0_u8..=32) {
            let net = Ipv4Net::containing(Ipv4Addr::from_bits(bits), length).unwrap();
            prop_assert_eq!(net.to_string().parse::<Ipv4Net>().unwrap(), net);
        }

        #[test]
        fn offsets_are_inverse(bits: u32, length in 0_u8..=32, inside: u32) {
            let net = Ipv4Net::containing(Ipv4Addr::from_bits(bits), length).unwrap();
            let offset = inside & !mask_bits(length);
            let address = net.nth(offset).unwrap();
            prop_assert!(net.contains(address));
            prop_assert_eq!(net.offset(address), Some(offset));
            prop_assert!(address <= net.last() && address >= net.address());
        }

        #[test]
        fn overlap_is_a_shared_address(a: u32, b: u32, la in 0_u8..=32, lb in 0_u8..=32) {
            let a = Ipv4Net::containing(Ipv4Addr::from_bits(a), la).unwrap();
            let b = Ipv4Net::containing(Ipv4Addr::from_bits(b), lb).unwrap();
            let share = a.address() <= b.last() && b.address() <= a.last();
            prop_assert_eq!(a.overlaps(b), share);
            prop_assert_eq!(b.overlaps(a), share);
        }

        #[test]
        fn any_text_is_no_panic(text: String) {
            let _ = text.parse::<Ipv4Net>();
        }
    }
}
