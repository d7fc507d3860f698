//! Identical steps of builds that run at the same time are done once.
//!
//! Who is about to do a step takes `RUN/build/claim/<key>`, a locked file, and keeps it until the result is published. Who
//! finds it locked leaves a file `<key>.want` beside it, looks again every few milliseconds, and when he gets the claim he
//! asks the cache once more. Since a build publishes its layers only at its end, it looks for the wishes of others whenever
//! one of its steps ends and now and then while it waits itself; if there is one for a step that is done, it publishes what
//! it has so far and lets go of the claims of all steps that are done.
//!
//! *Nobody waits for ever.* A build waits for a claim that another one has. If that step is done, its build sees the wish
//! at the next tick: ticks go on while it waits for claims, commands or helpers, and publishing waits for helpers at most, which wait for nobody. If the
//! step is not done, somebody is doing it, and while he does he asks for no other claim (a stage takes one just before it
//! works and its step is done or failed before the stage takes another), so it ends like every step. So there is no circle
//! of builds that wait for each other, in whatever order their steps are. Locked cache mounts come after claims: who has
//! such a mount runs a command, and waits for no claim.
//!
//! A killed build's claims are freed by the kernel. A claim is unlinked before its lock is released, and who got a lock
//! makes sure that the file still has its name: so a copy of the descriptor in a child of the builder keeps nobody waiting.

use crate::{Engine, files};
use dhow_build::{Claim, drive};
use dhow_sys::lock::FileLock;
use dhow_types::Digest;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times between two looks at a claim of another build: the first and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// The claims of one build.
pub(super) struct Claims {
    dir: PathBuf,
    held: RefCell<HashMap<Digest, Held>>,
}

struct Held {
    // Holds the claim.
    _lock: FileLock,
    done: bool,
}

/// A claim on a step that is to be done. Dropping it gives it back, unless the step is done.
struct Taken<'a> {
    claims: &'a Claims,
    key: Digest,
}

impl Claim for Taken<'_> {}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let is_done = self.claims.held.borrow().get(&self.key).is_none_or(|h| h.done);
        if !is_done {
            self.claims.release(&self.key);
        }
    }
}

impl Claims {
    pub(super) fn new(engine: &Engine) -> Self {
        Self { dir: engine.paths().run().join("build/claim"), held: RefCell::default() }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.dir.join(key.hex())
    }

    fn wish(&self, key: &Digest) -> PathBuf {
        self.dir.join(format!("{}.want", key.hex()))
    }

    /// Takes a claim, waiting for whoever has it. The cache must be asked again afterwards. Where claims cannot be made,
    /// steps are done without: that only costs time.
    pub(super) async fn claim(&self, key: Digest) -> Box<dyn Claim + '_> {
        let nothing = || Box::new(()) as Box<dyn Claim>;
        let mut wait = WAIT.0;
        loop {
            let own = self.held.borrow().get(&key).map(|h| h.done);
            match own {
                Some(true) => return nothing(),
                Some(false) => {
                    // Another stage of this build is doing the same.
                    drive::until(|| self.held.borrow().get(&key).is_none_or(|h| h.done)).await;
                    continue;
                }
                None => {}
            }
            match self.try_lock(&key) {
                Ok(Some(lock)) => {
                    self.held.borrow_mut().insert(key, Held { _lock: lock, done: false });
                    return Box::new(Taken { claims: self, key });
                }
                Ok(None) => {}
                Err(_) => return nothing(),
            }
            // Every time: whoever had the claim in between has removed it.
            let wish = File::options().write(true).create(true).truncate(false).mode(0o600).open(self.wish(&key));
            if wish.is_err() {
                return nothing();
            }
            drive::sleep(wait).await;
            wait = (wait * 2).min(WAIT.1);
        }
    }

    fn try_lock(&self, key: &Digest) -> io::Result<Option<FileLock>> {
        let path = self.path(key);
        loop {
            let Some(lock) = FileLock::try_acquire(self.open(&path)?)? else { return Ok(None) };
            if lock.file().metadata()?.nlink() > 0 {
                return Ok(Some(lock));
            }
        }
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let open = || File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                files::make_dir(&self.dir).map_err(|e| io::Error::other(e.to_string()))?;
                open()
            }
            other => other,
        }
    }

    /// A step is done. Others get it when [`Claims::release_done`] is called, after its result is published.
    pub(super) fn done(&self, key: &Digest) {
        if let Some(held) = self.held.borrow_mut().get_mut(key) {
            held.done = true;
            drive::again();
        }
    }

    /// Whether another build waits for a step that is done.
    pub(super) fn is_wanted(&self) -> bool {
        self.held.borrow().iter().any(|(key, held)| held.done && self.wish(key).exists())
    }

    /// Lets others have what is done and published.
    pub(super) fn release_done(&self) {
        let done: Vec<Digest> = self.held.borrow().iter().filter(|(_, h)| h.done).map(|(k, _)| *k).collect();
        done.iter().for_each(|key| self.release(key));
    }

    fn release(&self, key: &Digest) {
        // Names before the lock, which the removal from the map gives back.
        let _ = fs::remove_file(self.wish(key));
        let _ = fs::remove_file(self.path(key));
        self.held.borrow_mut().remove(key);
        drive::again();
    }

    /// Removes what killed builds left. Costs one listing of a directory that is empty most of the time.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let is_wish = name.ends_with(".want");
            let Ok(key) = Digest::from_hex(name.trim_end_matches(".want")) else { continue };
            if self.held.borrow().contains_key(&key) || (is_wish && self.path(&key).exists()) {
                continue;
            }
            if let Ok(Some(_lock)) = self.try_lock(&key) {
                let _ = fs::remove_file(self.wish(&key));
                let _ = fs::remove_file(self.path(&key));
            }
        }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let all: Vec<Digest> = self.held.borrow().keys().copied().collect();
        all.iter().for_each(|key| self.release(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_build::Pending;
    use std::cell::Cell;

    fn claims(dir: &tempfile::TempDir) -> Claims {
        Claims { dir: dir.path().join("claim"), held: RefCell::default() }
    }

    fn names(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path().join("claim")).map_or(0, Iterator::count)
    }

    #[test]
    fn one_does_it_and_the_other_waits_until_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (claims(&dir), claims(&dir));
        let key = Digest::of(b"step");
        let published = Cell::new(false);
        let worker: Pending<'_, Result<(), ()>> = Box::pin(async {
            let claim = a.claim(key).await;
            drive::sleep(Duration::from_millis(20)).await;
            a.done(&key);
            drop(claim);
            while !a.is_wanted() {
                drive::sleep(Duration::from_millis(1)).await;
            }
            published.set(true);
            a.release_done();
            Ok(())
        });
        let waiter: Pending<'_, Result<(), ()>> = Box::pin(async {
            let _claim = b.claim(key).await;
            assert!(published.get());
            Ok(())
        });
        drive::block_on(drive::all(vec![worker, waiter])).unwrap();
        drop((a, b));
        assert_eq!(names(&dir), 0);
    }

    #[test]
    fn a_failure_lets_the_next_one_try() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (claims(&dir), claims(&dir));
        let key = Digest::of(b"step");
        drop(drive::block_on(a.claim(key)));
        assert_eq!(names(&dir), 0);
        let _claim = drive::block_on(b.claim(key));
        assert!(a.try_lock(&key).unwrap().is_none());
    }

    #[test]
    fn stages_of_one_build_wait_too() {
        let dir = tempfile::tempdir().unwrap();
        let a = claims(&dir);
        let key = Digest::of(b"step");
        let order = RefCell::new(Vec::new());
        let first: Pending<'_, Result<(), ()>> = Box::pin(async {
            let _claim = a.claim(key).await;
            drive::sleep(Duration::from_millis(5)).await;
            order.borrow_mut().push(1);
            a.done(&key);
            Ok(())
        });
        let second: Pending<'_, Result<(), ()>> = Box::pin(async {
            let _claim = a.claim(key).await;
            order.borrow_mut().push(2);
            Ok(())
        });
        drive::block_on(drive::all(vec![first, second])).unwrap();
        assert_eq!(*order.borrow(), [1, 2]);
    }

    #[test]
    fn what_killed_builds_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, living) = (claims(&dir), claims(&dir));
        let (old, held) = (Digest::of(b"old"), Digest::of(b"held"));
        fs::create_dir(dir.path().join("claim")).unwrap();
        fs::write(dead.path(&old), "").unwrap();
        fs::write(dead.wish(&old), "").unwrap();
        fs::write(dead.wish(&Digest::of(b"alone")), "").unwrap();
        let _claim = drive::block_on(living.claim(held));
        dead.sweep();
        assert_eq!(names(&dir), 1, "the living one");
    }
}
