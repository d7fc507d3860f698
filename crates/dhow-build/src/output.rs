//! What a build tells while it runs.

use dhow_types::Digest;
use std::time::Duration;

/// Something happened.
#[derive(Debug)]
pub enum BuildEvent<'a> {
    /// A step begins. `index` counts from 1 to `total` over all stages that are built.
    StepStarted {
        /// Position.
        index: usize,
        /// Number of steps.
        total: usize,
        /// Name of the stage, if it has one.
        stage: Option<&'a str>,
        /// The instruction as written.
        text: &'a str,
    },
    /// The step's result came from the cache.
    Cached,
    /// A command wrote something.
    Output {
        /// To standard error.
        stderr: bool,
        /// What.
        bytes: &'a [u8],
    },
    /// A step ended well.
    StepDone {
        /// How long it took.
        duration: Duration,
        /// The layer it made.
        layer: Option<Digest>,
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
}

/// Tells nobody.
impl BuildOutput for () {
    fn event(&mut self, _event: &BuildEvent<'_>) {}
}
