//! Which entries of the cache have to go.

use super::super::request::{CacheEntry, CachePrune};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// What the cache has to come down to, in bytes. `None`: everything that is chosen goes.
pub(super) fn target(options: &CachePrune, total: u64, free: u64) -> Option<u64> {
    let CachePrune { reserved_space, max_used_space, min_free_space, .. } = options;
    if reserved_space.is_none() && max_used_space.is_none() && min_free_space.is_none() {
        return None;
    }
    // Only an amount to keep: everything above it goes.
    let most = max_used_space.unwrap_or(if min_free_space.is_some() { total } else { 0 });
    let lacking = min_free_space.unwrap_or(0).saturating_sub(free);
    let most = if lacking > 0 { most.min(total.saturating_sub(lacking)) } else { most };
    Some(most.max(reserved_space.unwrap_or(0)))
}

/// Bytes that only the cache needs.
pub(super) fn total(entries: &[CacheEntry]) -> u64 {
    entries.iter().filter(|e| !e.shared).fold(0, |sum, e| sum.saturating_add(e.size))
}

/// Numbers of the entries that go, in that order: the least recently used first, and what others are built on after
/// those. `chosen` are the ones that may.
pub(super) fn choose(
    entries: &[CacheEntry],
    options: &CachePrune,
    free: u64,
    chosen: &dyn Fn(&CacheEntry) -> bool,
) -> Vec<usize> {
    let mut left = total(entries);
    let target = target(options, left, free);
    let numbers: HashMap<&str, usize> = entries.iter().enumerate().map(|(n, e)| (e.id.as_str(), n)).collect();
    let parents = |n: usize| {
        let names = entries.get(n).map(|e| e.parents.as_slice()).unwrap_or_default();
        names.iter().filter_map(|p| numbers.get(p.as_str()).copied())
    };
    let mut children: Vec<usize> = vec![0; entries.len()];
    for parent in (0..entries.len()).flat_map(parents) {
        if let Some(count) = children.get_mut(parent) {
            *count += 1;
        }
    }
    let age = |n: usize| entries.get(n).map_or(0, |e| e.last_used.unwrap_or(e.created));
    let may = |n: usize| entries.get(n).is_some_and(|e| !e.in_use && (options.all || !e.shared) && chosen(e));
    let candidates: Vec<usize> = (0..entries.len()).filter(|n| may(*n)).collect();
    let is_candidate: Vec<bool> = (0..entries.len()).map(|n| candidates.binary_search(&n).is_ok()).collect();
    let mut out = Vec::new();
    let mut gone = vec![false; entries.len()];
    let mut heap: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    let childless = |n: &usize, children: &[usize]| children.get(*n) == Some(&0);
    heap.extend(candidates.iter().copied().filter(|n| childless(n, &children)).map(|n| Reverse((age(n), n))));
    // What is built on goes at last, and only if all may go.
    let mut rest: Vec<usize> = if options.all { candidates } else { Vec::new() };
    rest.sort_by_key(|n| Reverse(age(*n)));
    while target.is_none_or(|t| left > t) {
        let next = match heap.pop() {
            Some(Reverse((_, n))) => n,
            None => match rest.pop() {
                Some(n) => n,
                None => break,
            },
        };
        let Some(mark) = gone.get_mut(next).filter(|g| !**g) else { continue };
        *mark = true;
        out.push(next);
        left = left.saturating_sub(entries.get(next).filter(|e| !e.shared).map_or(0, |e| e.size));
        for parent in parents(next) {
            if let Some(count) = children.get_mut(parent) {
                *count -= 1;
                if *count == 0 && is_candidate.get(parent) == Some(&true) {
                    heap.push(Reverse((age(parent), parent)));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::request::CacheKind;
    use super::*;

    fn entry(id: &str, parents: &[&str], size: u64, used: i64) -> CacheEntry {
        CacheEntry {
            id: id.to_owned(),
            parents: parents.iter().map(|p| (*p).to_owned()).collect(),
            kind: CacheKind::Step,
            description: String::new(),
            in_use: false,
            shared: false,
            size,
            created: 0,
            last_used: Some(used),
            uses: 1,
        }
    }

    /// Names of what goes from a list where only `free` bytes of the disk are free.
    fn goes(entries: &[CacheEntry], options: &CachePrune, free: u64, chosen: &[&str]) -> String {
        let test = |e: &CacheEntry| chosen.is_empty() || chosen.contains(&e.id.as_str());
        choose(entries, options, free, &test).iter().map(|n| entries[*n].id.as_str()).collect::<Vec<_>>().join("")
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let list =
            [entry("a", &[], 10, 5), entry("b", &["a"], 10, 5), entry("c", &["a"], 10, 9), entry("d", &[], 10, 1)];
        let max = |n| CachePrune { max_used_space: Some(n), ..CachePrune::default() };
        assert_eq!(goes(&list, &max(40), 0, &[]), "");
        assert_eq!(goes(&list, &max(39), 0, &[]), "d");
        assert_eq!(goes(&list, &max(15), 0, &[]), "dbc");
        assert_eq!(goes(&list, &CachePrune::default(), 0, &[]), "dbca");
        let all = CachePrune { all: true, ..CachePrune::default() };
        assert_eq!(goes(&list, &all, 0, &["a"]), "a");
        assert_eq!(goes(&list, &CachePrune::default(), 0, &["a"]), "", "others are built on it");
    }

    #[test]
    fn limits_add_up() {
        let prune = |reserved_space, max_used_space, min_free_space| CachePrune {
            all: false,
            reserved_space,
            max_used_space,
            min_free_space,
        };
        assert_eq!(target(&prune(None, None, None), 100, 5), None);
        assert_eq!(target(&prune(Some(30), None, None), 100, 5), Some(30));
        assert_eq!(target(&prune(None, Some(60), None), 100, 5), Some(60));
        assert_eq!(target(&prune(None, None, Some(25)), 100, 5), Some(80));
        assert_eq!(target(&prune(None, None, Some(5)), 100, 5), Some(100));
        assert_eq!(target(&prune(Some(70), Some(60), None), 100, 5), Some(70));
        assert_eq!(target(&prune(Some(20), Some(90), Some(1000)), 100, 5), Some(20));
    }

    #[test]
    fn what_is_in_use_or_shared_stays() {
        let mut list = vec![entry("a", &[], 10, 1), entry("b", &[], 10, 2), entry("c", &["a"], 10, 3)];
        list[2].in_use = true;
        list[1].shared = true;
        assert_eq!(goes(&list, &CachePrune::default(), 0, &[]), "");
        let all = CachePrune { all: true, ..CachePrune::default() };
        assert_eq!(goes(&list, &all, 0, &[]), "ba");
        assert_eq!(total(&list), 20);
    }
}
