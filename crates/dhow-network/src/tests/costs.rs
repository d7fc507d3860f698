//! What a start costs. Prints, asserts nothing about time: run with `--nocapture`, best with `--release`.

use super::{Namespace, World, id, recorded, tcp};
use crate::configure_inside;
use std::time::{Duration, Instant};

#[test]
fn root_costs() {
    const ROUNDS: u8 = 20;
    let world = World::new();
    let mut steps: Vec<(&str, Vec<Duration>)> = Vec::new();
    let mut timed = |name: &'static str, took: Duration| match steps.iter_mut().find(|(n, _)| *n == name) {
        Some((_, all)) => all.push(took),
        None => steps.push((name, vec![took])),
    };
    // One process' own, closed at its end.
    let kept = world.host.run(|| world.bridge());
    for n in 0..ROUNDS {
        let container = Namespace::new();
        let tid = container.tid;
        let (lease, ports, took) = world.host.run(|| {
            let mut took = Vec::new();
            let mut start = Instant::now();
            let mut lap = |name| {
                took.push((name, start.elapsed()));
                start = Instant::now();
            };
            let bridge = world.bridge();
            lap("open");
            bridge.ensure().unwrap();
            lap("ensure");
            let lease = bridge.allocate(&id(n)).unwrap();
            lap("allocate");
            let ports = bridge.reserve_ports(&id(n), &[tcp(None, 8000 + u16::from(n), 80)]).unwrap();
            lap("reserve one port");
            bridge.attach(tid, &lease, &id(n)).unwrap();
            lap("attach");
            bridge.publish(&lease, &ports).unwrap();
            lap("publish one port");
            (lease, ports, took)
        });
        took.into_iter().for_each(|(name, took)| timed(name, took));
        let inside = container.run(|| {
            let start = Instant::now();
            configure_inside(&lease).unwrap();
            start.elapsed()
        });
        timed("configure inside", inside);
        let back = world.host.run(|| {
            let start = Instant::now();
            kept.unpublish(lease.address, &recorded(&ports)).unwrap();
            start.elapsed()
        });
        timed("unpublish", back);
    }
    for (name, mut all) in steps {
        all.sort();
        println!(
            "{name:18} median {:>8.1?}  least {:>8.1?}  most {:>8.1?}",
            all[all.len() / 2],
            all[0],
            all[all.len() - 1]
        );
    }
}
