//! The cache of an engine without builds: what they would leave is written here.

use super::super::cache::{StepCache, use_mount};
use super::super::export::tests::Place as Fixture;
use super::super::request::CacheKind;
use super::*;
use dhow_build::CachedStep;
use dhow_types::Timestamp;
use std::collections::BTreeSet;

const HOUR: Duration = Duration::from_secs(3600);

/// A layer of so many bytes, kept by a step. What made it has ended.
fn step(f: &Fixture, name: &str, size: usize, below: Option<&Digest>, age: Duration) -> Digest {
    let upper = f.path(&format!("upper-{name}"));
    fs::create_dir_all(&upper).unwrap();
    fs::write(upper.join(name), vec![b'x'; size]).unwrap();
    let builder = f.again();
    let staged = builder.store().stage_upper(&upper, true).unwrap();
    let layer = *staged.diff_id();
    builder.store().publish_kept(vec![staged]).unwrap();
    let steps = StepCache::new(&builder);
    let key = Digest::of(name.as_bytes());
    steps.describe(&key, &format!("RUN make {name}"), below);
    steps.put(&key, &CachedStep { layer: Some(layer), created: Timestamp::now() });
    steps.flush(&builder).unwrap();
    let path = record(f, name);
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    layer
}

fn record(f: &Fixture, name: &str) -> PathBuf {
    let hex = Digest::of(name.as_bytes()).hex();
    f.engine.paths().root().join("cache/steps").join(&hex[..2]).join(&hex[2..])
}

fn shown(list: &[CacheEntry]) -> BTreeSet<&str> {
    list.iter().map(|e| e.description.as_str()).collect()
}

fn prune(f: &Fixture, options: &CachePrune) -> Vec<CacheEntry> {
    f.engine.prune_build_cache(options, &|_| true).unwrap()
}

#[test]
fn root_steps_are_listed_and_the_oldest_go() {
    let f = Fixture::new();
    assert!(f.engine.build_cache().unwrap().is_empty());
    let a = step(&f, "a", 1000, None, 3 * HOUR);
    let b = step(&f, "b", 1000, Some(&a), 3 * HOUR);
    let c = step(&f, "c", 1000, None, 2 * HOUR);
    let list = f.engine.build_cache().unwrap();
    assert_eq!(shown(&list), BTreeSet::from(["RUN make a", "RUN make b", "RUN make c"]));
    let of_b = list.iter().find(|e| e.description == "RUN make b").unwrap();
    assert_eq!((of_b.parents.len(), of_b.size, of_b.kind), (1, 1000, CacheKind::Step));
    assert!(a.hex().starts_with(&of_b.parents[0]) && !of_b.in_use && !of_b.shared);
    // A use makes it younger.
    assert!(StepCache::new(&f.engine).get(&Digest::of(b"a")).is_some());
    assert!(StepCache::new(&f.engine).get(&Digest::of(b"b")).is_some());
    let gone = prune(&f, &CachePrune { max_used_space: Some(2000), ..CachePrune::default() });
    assert_eq!(shown(&gone), BTreeSet::from(["RUN make c"]));
    assert!(!f.engine.store().layer_dir(&c).exists() && f.engine.store().layer_dir(&b).exists());
    assert!(!record(&f, "c").exists());
    let uses: BTreeSet<u64> = f.engine.build_cache().unwrap().iter().map(|e| e.uses).collect();
    assert_eq!(uses, BTreeSet::from([2]));
    assert_eq!(prune(&f, &CachePrune::default()).len(), 2);
    assert!(f.engine.build_cache().unwrap().is_empty());
    assert!(!f.engine.store().layer_dir(&a).exists());
}

#[test]
fn root_what_images_have_or_builds_use_stays() {
    let f = Fixture::new();
    let layer = step(&f, "a", 10, None, HOUR);
    let mut config = dhow_oci::image::ImageConfig::scratch(&dhow_types::Platform::host());
    config.rootfs.diff_ids = vec![layer];
    f.again().store().put_image(&serde_json::to_vec(&config).unwrap(), None).unwrap();
    assert!(f.engine.build_cache().unwrap()[0].shared);
    assert!(prune(&f, &CachePrune::default()).is_empty());
    let building = f.again();
    assert!(building.store().has_layer(&layer).unwrap());
    let all = CachePrune { all: true, ..CachePrune::default() };
    assert!(f.engine.build_cache().unwrap()[0].in_use);
    assert!(prune(&f, &all).is_empty());
    drop(building);
    assert_eq!(prune(&f, &all).len(), 1);
    assert!(f.engine.store().layer_dir(&layer).exists(), "the image's");
    assert!(!record(&f, "a").exists());
}

#[test]
fn root_killed_collections_are_completed() {
    let f = Fixture::new();
    let (a, b) = (step(&f, "a", 10, None, HOUR), step(&f, "b", 10, None, HOUR));
    // Killed after its layers, before its records; and one between publishing and remembering.
    f.engine.store().unkeep(&[a]).unwrap();
    fs::remove_file(record(&f, "b")).unwrap();
    fs::create_dir_all(f.engine.paths().root().join("cache/trash/1-x/deep")).unwrap();
    assert!(f.engine.build_cache().unwrap().is_empty());
    prune(&f, &CachePrune { max_used_space: Some(1 << 40), ..CachePrune::default() });
    assert!(!record(&f, "a").exists() && !f.engine.store().layer_dir(&b).exists());
    assert!(!f.engine.paths().root().join("cache/trash").exists());
}

#[test]
fn root_cache_mounts_go_unless_they_are_in_use() {
    let f = Fixture::new();
    let all = super::super::cache::folder(&f.engine, "mounts").unwrap();
    let name = Digest::of(b"deps").hex();
    fs::create_dir_all(all.join(&name).join("sub")).unwrap();
    fs::write(all.join(&name).join("sub/f"), vec![0; 100_000]).unwrap();
    let mark = use_mount(&all, &name, "deps").unwrap();
    let list = f.engine.build_cache().unwrap();
    assert_eq!(
        (list[0].description.as_str(), list[0].kind, list[0].in_use),
        ("cache mount deps", CacheKind::Mount, true)
    );
    assert!(list[0].size >= 100_000, "{}", list[0].size);
    let everything = CachePrune { all: true, ..CachePrune::default() };
    assert!(prune(&f, &everything).is_empty());
    drop(mark);
    assert_eq!(prune(&f, &everything).len(), 1);
    assert_eq!(fs::read_dir(&all).unwrap().count(), 0);
    let again = use_mount(&all, &name, "deps").unwrap();
    assert!(again.metadata().unwrap().len() > 0);
}

#[test]
fn root_builds_collect_what_is_too_much_or_too_old() {
    let f = Fixture::new();
    let a = step(&f, "a", 1000, None, 31 * 24 * HOUR);
    let b = step(&f, "b", 1000, None, 5 * HOUR);
    let c = step(&f, "c", 1000, None, 3 * HOUR);
    after_build(&f.engine, 3000).unwrap();
    assert!(f.engine.store().layer_dir(&a).exists(), "nothing is due");
    let plenty = Policy { most: 1 << 40, free: 0, reserved: 0 };
    collect(&f.engine, &plenty, 1 << 40).unwrap();
    assert!(!f.engine.store().layer_dir(&a).exists() && f.engine.store().layer_dir(&b).exists());
    let text = fs::read_to_string(tally_path(&f.engine)).unwrap();
    assert_eq!(Tally::parse(&text).map(|t| (t.bytes, t.builds)), Some((2000, 0)));
    collect(&f.engine, &Policy { most: 1500, ..plenty }, 1 << 40).unwrap();
    assert!(!f.engine.store().layer_dir(&b).exists() && f.engine.store().layer_dir(&c).exists());
    // A full disk, of which a part is reserved for the cache.
    collect(&f.engine, &Policy { most: 1 << 40, free: 1 << 40, reserved: 2000 }, 1 << 30).unwrap();
    assert!(f.engine.store().layer_dir(&c).exists());
    collect(&f.engine, &Policy { most: 1 << 40, free: 1 << 40, reserved: 100 }, 1 << 30).unwrap();
    assert!(!f.engine.store().layer_dir(&c).exists());
}

#[test]
fn tallies() {
    let policy = Policy::of_disk(50_000_000_000);
    assert_eq!(policy, Policy { most: 10_000_000_000, free: 10_000_000_000, reserved: 5_000_000_000 });
    assert_eq!(Policy::of_disk(1_000_000_000_000).most, 100_000_000_000);
    let tally = Tally::parse("1 1000 6000000000\n5\n1000\ntorn").unwrap();
    assert_eq!(tally, Tally { looked: 1000, bytes: 6_000_001_005, builds: 3 });
    assert!(!tally.is_due(&policy, 20_000_000_000, 1001));
    assert!(tally.is_due(&policy, 1_000, 1001));
    assert!(tally.is_due(&policy, 20_000_000_000, 1001 + DAY.as_secs()));
    assert!(!Tally { bytes: 1, ..tally }.is_due(&policy, 1_000, 1001));
    assert!(Tally { bytes: 11_000_000_000, ..tally }.is_due(&policy, 20_000_000_000, 1001));
    assert!(Tally { builds: BUILDS + 1, ..tally }.is_due(&policy, 20_000_000_000, 1001));
    for bad in ["", "2 1 1\n", "1 x 1\n", "1 1\n"] {
        assert_eq!(Tally::parse(bad), None, "{bad:?}");
    }
}
