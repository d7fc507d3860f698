//! Hostile images, archives, registries and programs. Every case has a baseline that passes, a control that shows the
//! attack reached the engine, and a tree on the host that must not change.

mod archives;
mod content;
mod processes;
mod registries;

use dhow_testkit::image::{ImageBuilder, busybox_layer};
use dhow_testkit::{Dhow, Output, Victim};

/// An engine, a tree to aim at, and a check that both are as before.
struct Range {
    d: Dhow,
    victim: Victim,
    binary: Vec<u8>,
}

impl Range {
    fn new() -> Self {
        let d = crate::dhow();
        let victim = Victim::new(d.dir());
        let binary = std::fs::read(d.binary()).unwrap();
        Self { d, victim, binary }
    }

    /// Loads an image whose top layer is `tar` on top of busybox.
    fn load(&self, name: &str, tar: &[u8]) -> Output {
        self.d.input(&["load", "-q"], &ImageBuilder::new(name).layer(&busybox_layer()).layer(tar).archive())
    }

    /// The tree, the program and the engine are unharmed.
    #[track_caller]
    fn unharmed(&self) {
        self.victim.assert_unchanged();
        assert!(std::fs::read(self.d.binary()).unwrap() == self.binary, "the program was overwritten");
        assert_eq!(self.d.ok(&["run", "--rm", "busybox", "echo", "alive"]), "alive");
    }

    /// `..` often enough to reach the host's root from anywhere, then the victim.
    fn climbing(&self) -> String {
        format!("{}{}", "../".repeat(24), self.victim.text().trim_start_matches('/'))
    }
}
