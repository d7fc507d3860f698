//! Limits as control file values: the table from [`Resources`] to version 1 and version 2 knobs.
//!
//! Pure: nothing here touches a file. A knob that the host lacks is the caller's to report; each carries the warning that
//! Docker prints in that case.

use dhow_oci::runtime::Resources;

/// Kernel's default CFS period in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// A resource controller that limits go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Cpuset,
    Memory,
    Pids,
    Io,
}

impl Controller {
    pub(super) const ALL: [Self; 5] = [Self::Cpu, Self::Cpuset, Self::Memory, Self::Pids, Self::Io];

    pub(super) const fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "blkio",
        }
    }

    pub(super) const fn v2_name(self) -> &'static str {
        match self {
            Self::Io => "io",
            other => other.v1_name(),
        }
    }
}

/// One value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Knob {
    pub(super) controller: Controller,
    /// Control files and the value for each; the first one that exists is written.
    pub(super) choices: Vec<(&'static str, String)>,
    /// What to tell the user when none exists.
    pub(super) warning: &'static str,
}

impl Knob {
    fn new(controller: Controller, file: &'static str, value: impl ToString, warning: &'static str) -> Self {
        Self { controller, choices: vec![(file, value.to_string())], warning }
    }
}

const NO_MEMORY: &str =
    "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.";
const NO_SWAP: &str =
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.";
const NO_RESERVATION: &str =
    "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.";
const NO_PIDS: &str =
    "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.";
const NO_SHARES: &str = "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.";
const NO_PERIOD: &str = "Your kernel does not support CPU CFS period or the cgroup is not mounted. Period discarded.";
const NO_QUOTA: &str = "Your kernel does not support CPU CFS quota or the cgroup is not mounted. Quota discarded.";
const NO_CPUSET: &str = "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.";
const NO_WEIGHT: &str = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";

/// Whether limits are set for the first time or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A new cgroup: memory without a word on swap gets as much swap as memory.
    Create,
    /// Only what is named changes.
    Update,
}

/// Memory plus swap to set: what was asked, or twice the memory for a new cgroup that only limits memory.
fn swap_limit(r: &Resources, purpose: Purpose) -> Option<i64> {
    match (r.memory.swap, r.memory.limit, purpose) {
        (Some(swap), _, _) if swap != 0 => Some(swap),
        (_, Some(limit), Purpose::Create) if limit > 0 => Some(limit.saturating_mul(2)),
        _ => None,
    }
}

/// Values for version 1 controllers. Pairs whose order matters are in the order for a fresh cgroup; a caller that changes
/// limits retries those that the kernel refused.
pub(super) fn v1(r: &Resources, purpose: Purpose) -> Vec<Knob> {
    let mut knobs = Vec::new();
    if let Some(limit) = nonzero(r.memory.limit) {
        knobs.push(Knob::new(Controller::Memory, "memory.limit_in_bytes", limit.max(-1), NO_MEMORY));
    }
    if let Some(swap) = swap_limit(r, purpose) {
        knobs.push(Knob::new(Controller::Memory, "memory.memsw.limit_in_bytes", swap.max(-1), NO_SWAP));
    }
    if let Some(soft) = nonzero(r.memory.reservation) {
        knobs.push(Knob::new(Controller::Memory, "memory.soft_limit_in_bytes", soft.max(-1), NO_RESERVATION));
    }
    if let Some(shares) = r.cpu.shares.filter(|s| *s != 0) {
        knobs.push(Knob::new(Controller::Cpu, "cpu.shares", shares, NO_SHARES));
    }
    if let Some(period) = r.cpu.period.filter(|p| *p != 0) {
        knobs.push(Knob::new(Controller::Cpu, "cpu.cfs_period_us", period, NO_PERIOD));
    }
    if let Some(quota) = nonzero(r.cpu.quota) {
        knobs.push(Knob::new(Controller::Cpu, "cpu.cfs_quota_us", quota.max(-1), NO_QUOTA));
    }
    knobs.extend(cpuset(r));
    knobs.extend(pids(r));
    if let Some(weight) = r.block_io.weight.filter(|w| *w != 0) {
        knobs.push(Knob {
            controller: Controller::Io,
            choices: vec![("blkio.weight", weight.to_string()), ("blkio.bfq.weight", weight.to_string())],
            warning: NO_WEIGHT,
        });
    }
    knobs
}

/// Values for version 2 controllers.
pub(super) fn v2(r: &Resources, purpose: Purpose) -> Vec<Knob> {
    let mut knobs = Vec::new();
    if let Some(limit) = nonzero(r.memory.limit) {
        knobs.push(Knob::new(Controller::Memory, "memory.max", or_max(limit), NO_MEMORY));
    }
    if let Some(swap) = swap_limit(r, purpose) {
        // Version 2 counts swap alone.
        let alone = if swap < 0 { -1 } else { swap.saturating_sub(r.memory.limit.unwrap_or(0).max(0)).max(0) };
        knobs.push(Knob::new(Controller::Memory, "memory.swap.max", or_max(alone), NO_SWAP));
    }
    if let Some(soft) = nonzero(r.memory.reservation) {
        knobs.push(Knob::new(Controller::Memory, "memory.low", or_max(soft), NO_RESERVATION));
    }
    if let Some(shares) = r.cpu.shares.filter(|s| *s != 0) {
        knobs.push(Knob::new(Controller::Cpu, "cpu.weight", cpu_weight(shares), NO_SHARES));
    }
    let (period, quota) = (r.cpu.period.filter(|p| *p != 0), nonzero(r.cpu.quota));
    if period.is_some() || quota.is_some() {
        let quota = or_max(quota.unwrap_or(-1));
        let value = format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD));
        knobs.push(Knob::new(Controller::Cpu, "cpu.max", value, NO_QUOTA));
    }
    knobs.extend(cpuset(r));
    knobs.extend(pids(r));
    if let Some(weight) = r.block_io.weight.filter(|w| *w != 0) {
        knobs.push(Knob {
            controller: Controller::Io,
            choices: vec![
                ("io.bfq.weight", weight.to_string()),
                ("io.weight", format!("default {}", io_weight(weight))),
            ],
            warning: NO_WEIGHT,
        });
    }
    knobs
}

fn cpuset(r: &Resources) -> impl Iterator<Item = Knob> {
    let cpus = r.cpu.cpus.iter().filter(|c| !c.is_empty());
    let mems = r.cpu.mems.iter().filter(|m| !m.is_empty());
    cpus.map(|c| Knob::new(Controller::Cpuset, "cpuset.cpus", c, NO_CPUSET))
        .chain(mems.map(|m| Knob::new(Controller::Cpuset, "cpuset.mems", m, NO_CPUSET)))
}

fn pids(r: &Resources) -> Option<Knob> {
    r.pids.map(|p| {
        let value = if p.limit <= 0 { "max".to_owned() } else { p.limit.to_string() };
        Knob::new(Controller::Pids, "pids.max", value, NO_PIDS)
    })
}

fn nonzero(value: Option<i64>) -> Option<i64> {
    value.filter(|v| *v != 0)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// `cpu.shares` (2 to 262144, 1024 being normal) as `cpu.weight` (1 to 10000, 100 being normal).
///
/// The curve of runc 1.3.2 and crun 1.23: it maps 2, 1024 and 262144 to 1, 100 and 10000, where the older straight line
/// gave 1024 only 39. With l = log2(shares): ⌈10^((l² + 125·l)/612 − 7/34)⌉.
pub(super) fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// `blkio.weight` (10 to 1000) as `io.weight` (1 to 10000).
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_oci::runtime::{BlockIo, Cpu, Memory, Pids};
    use proptest::prelude::*;

    fn text(knobs: &[Knob]) -> Vec<String> {
        knobs.iter().flat_map(|k| k.choices.iter().map(|(file, value)| format!("{file}={value}"))).collect()
    }

    fn everything() -> Resources {
        Resources {
            memory: Memory { limit: Some(64 << 20), reservation: Some(32 << 20), swap: None },
            cpu: Cpu {
                shares: Some(512),
                quota: Some(150_000),
                period: Some(100_000),
                cpus: Some("0-1".into()),
                mems: Some("0".into()),
            },
            pids: Some(Pids { limit: 100 }),
            block_io: BlockIo { weight: Some(500) },
            devices: Vec::new(),
        }
    }

    #[test]
    fn version_1_values() {
        assert_eq!(
            text(&v1(&everything(), Purpose::Create)),
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=134217728",
                "memory.soft_limit_in_bytes=33554432",
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=150000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=100",
                "blkio.weight=500",
                "blkio.bfq.weight=500",
            ]
        );
    }

    #[test]
    fn version_2_values() {
        assert_eq!(
            text(&v2(&everything(), Purpose::Create)),
            [
                "memory.max=67108864",
                "memory.swap.max=67108864",
                "memory.low=33554432",
                "cpu.weight=59",
                "cpu.max=150000 100000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=100",
                "io.bfq.weight=500",
                "io.weight=default 4950",
            ]
        );
    }

    #[track_caller]
    fn check(r: Resources, purpose: Purpose, one: &[&str], two: &[&str]) {
        assert_eq!(text(&v1(&r, purpose)), one);
        assert_eq!(text(&v2(&r, purpose)), two);
    }

    #[test]
    fn swap() {
        let memory = |limit, swap| Resources {
            memory: Memory { limit: Some(limit), swap, reservation: None },
            ..Resources::default()
        };
        let limit = "memory.limit_in_bytes=100";
        check(
            memory(100, Some(-1)),
            Purpose::Create,
            &[limit, "memory.memsw.limit_in_bytes=-1"],
            &["memory.max=100", "memory.swap.max=max"],
        );
        check(
            memory(100, Some(100)),
            Purpose::Create,
            &[limit, "memory.memsw.limit_in_bytes=100"],
            &["memory.max=100", "memory.swap.max=0"],
        );
        check(memory(100, None), Purpose::Update, &[limit], &["memory.max=100"]);
        check(memory(-1, None), Purpose::Create, &["memory.limit_in_bytes=-1"], &["memory.max=max"]);
    }

    #[test]
    fn zero_means_not_asked_and_pids_none() {
        let r = Resources {
            cpu: Cpu { shares: Some(0), quota: Some(0), period: Some(0), ..Cpu::default() },
            memory: Memory { limit: Some(0), swap: Some(0), reservation: Some(0) },
            pids: Some(Pids { limit: 0 }),
            ..Resources::default()
        };
        check(r, Purpose::Create, &["pids.max=max"], &["pids.max=max"]);
        let quota = Resources { cpu: Cpu { quota: Some(-1), ..Cpu::default() }, ..Resources::default() };
        check(quota, Purpose::Update, &["cpu.cfs_quota_us=-1"], &["cpu.max=max 100000"]);
    }

    #[test]
    fn weights_at_their_anchors() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        for (blkio, io) in [(10, 1), (1000, 10_000), (500, 4950)] {
            assert_eq!(io_weight(blkio), io);
        }
    }

    proptest! {
        #[test]
        fn weights_rise(a in 0u64..300_000, b in 0u64..300_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(cpu_weight(low) <= cpu_weight(high));
            prop_assert!((1..=10_000).contains(&cpu_weight(a)));
        }
    }
}
