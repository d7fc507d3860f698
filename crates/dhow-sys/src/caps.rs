//! Capability sets of the calling thread (capabilities(7)), as bit masks: bit *n* is capability number *n*.
//!
//! Deliberately absent: names and policies; they are the runtime's.

use rustix::thread::{self, CapabilitySet};
use std::io;

/// Highest capability number this code knows: `CAP_CHECKPOINT_RESTORE` (Linux 5.9).
pub const LAST_KNOWN: u32 = 40;

/// The three sets of capget(2) as bit masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sets {
    /// What the kernel checks.
    pub effective: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What execve(2) may carry over to files with inheritable bits.
    pub inheritable: u64,
}

/// Sets of the calling thread.
pub fn get() -> io::Result<Sets> {
    let sets = thread::capabilities(None)?;
    Ok(Sets {
        effective: sets.effective.bits(),
        permitted: sets.permitted.bits(),
        inheritable: sets.inheritable.bits(),
    })
}

/// Replaces the sets of the calling thread (capset(2)). Bits the kernel does not know are ignored by it.
pub fn set(sets: Sets) -> io::Result<()> {
    thread::set_capabilities(
        None,
        thread::CapabilitySets {
            effective: CapabilitySet::from_bits_retain(sets.effective),
            permitted: CapabilitySet::from_bits_retain(sets.permitted),
            inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
        },
    )?;
    Ok(())
}

/// The bounding set of the calling thread. Stops at the first number the kernel does not know.
pub fn bounding() -> io::Result<u64> {
    let mut mask = 0;
    for number in 0..64 {
        match thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(true) => mask |= 1 << number,
            Ok(false) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(mask)
}

/// Drops every capability outside `keep` from the bounding set. Needs `CAP_SETPCAP` when there is one to drop.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in 0..64 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The kernel knows no such capability, nor any higher one.
            Err(rustix::io::Errno::INVAL) => break,
            // Without CAP_SETPCAP nothing can be dropped; that matters only for one that is there.
            Err(rustix::io::Errno::PERM)
                if !thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number))? => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Empties the ambient set.
pub fn clear_ambient() -> io::Result<()> {
    Ok(thread::clear_ambient_capability_set()?)
}

/// Adds to the ambient set; each must be permitted and inheritable already.
pub fn raise_ambient(mask: u64) -> io::Result<()> {
    for number in (0..64).filter(|n| mask & (1 << n) != 0) {
        thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)?;
    }
    Ok(())
}

/// Whether a change from uid 0 to another keeps the permitted set (`PR_SET_KEEPCAPS`); execve(2) resets it.
pub fn set_keep(keep: bool) -> io::Result<()> {
    Ok(thread::set_keep_capabilities(keep)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_sets_are_consistent() {
        let sets = get().unwrap();
        assert_eq!(sets.effective & !sets.permitted, 0, "effective is within permitted");
        assert!(bounding().unwrap() < 1 << 63);
    }

    #[test]
    fn setting_what_is_set_changes_nothing() {
        let sets = get().unwrap();
        set(sets).unwrap();
        assert_eq!(get().unwrap(), sets);
        limit_bounding(u64::MAX).unwrap();
    }
}
