//! What a build tells while it runs.

use dhow_types::Digest;
use std::time::Duration;

/// Something happened. Steps have numbers from 1 to the total, in the plan's order; several may be under way at once.
#[derive(Debug)]
pub enum BuildEvent<'a> {
    /// A step begins.
    StepStarted {
        /// Its number.
        step: usize,
        /// Number of steps over all stages that are built.
        total: usize,
        /// Name of the stage, if it has one.
        stage: Option<&'a str>,
        /// The instruction as written.
        text: &'a str,
    },
    /// The step's result came from the cache.
    Cached {
        /// Its number.
        step: usize,
    },
    /// Something about the step that the caller asked to be told.
    Note {
        /// Its number.
        step: usize,
        /// Text, one line.
        text: &'a str,
    },
    /// A command wrote something.
    Output {
        /// The step's number.
        step: usize,
        /// To standard error.
        stderr: bool,
        /// What.
        bytes: &'a [u8],
    },
    /// A step ended well.
    StepDone {
        /// Its number.
        step: usize,
        /// How long it took.
        duration: Duration,
        /// The layer it made.
        layer: Option<Digest>,
    },
    /// A step failed. Others that were under way are ended, and end without a word.
    StepFailed {
        /// Its number.
        step: usize,
    },
    /// Something that is probably not meant.
    Warning {
        /// Line of the Dockerfile, 0 when none.
        line: u32,
        /// Text.
        text: &'a str,
    },
    /// The build failed here: the lines of the Dockerfile around the failing instruction, ready to show.
    Failed {
        /// Several lines.
        excerpt: &'a str,
    },
    /// The image is stored.
    Done {
        /// Its id.
        image: Digest,
    },
}

/// Receives events.
pub trait BuildOutput {
    /// Called for each event, in order.
    fn event(&mut self, event: &BuildEvent<'_>);

    /// Called about ten times a second while the build waits for something.
    fn tick(&mut self) {}
}

/// Tells nobody.
impl BuildOutput for () {
    fn event(&mut self, _event: &BuildEvent<'_>) {}
}
