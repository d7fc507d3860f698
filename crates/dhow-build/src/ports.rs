//! Ports of `EXPOSE`: `80`, `80/udp`, `8000-8010/tcp`; an address or host port in front is accepted and dropped, as
//! Docker does.

use crate::error::BuildError;

/// Each port of one word as `80/tcp`.
pub(crate) fn expand(word: &str) -> Result<Vec<String>, BuildError> {
    let bad = |why: &str| BuildError::Invalid(format!("invalid port: {word:?}: {why}"));
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad("the protocol must be tcp, udp or sctp"));
    }
    // `ip:host:container` documents the container's port only.
    let container = ports.rsplit(':').next().unwrap_or(ports);
    let number = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|n| *n > 0 && text.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| bad("expected a port number from 1 to 65535 or a range"))
    };
    let (low, high) = match container.split_once('-') {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(container)?, number(container)?),
    };
    if low > high {
        return Err(bad("the range ends before it starts"));
    }
    Ok((low..=high).map(|p| format!("{p}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let show = |w| expand(w).map(|p| p.join(" ")).map_err(|e| e.to_string());
        assert_eq!(show("80"), Ok("80/tcp".into()));
        assert_eq!(show("80/UDP"), Ok("80/udp".into()));
        assert_eq!(show("8000-8002/sctp"), Ok("8000/sctp 8001/sctp 8002/sctp".into()));
        assert_eq!(show("127.0.0.1:8080:80"), Ok("80/tcp".into()));
        for bad in ["", "x", "0", "65536", "80/x", "90-80", "-1", "+80", "80-"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }
}
