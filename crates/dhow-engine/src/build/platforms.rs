//! One build after another for several platforms, shown as one.

use dhow_build::{BuildEvent, BuildOutput};
use dhow_types::{Digest, Platform};

/// Hands events on with numbers that go on from build to build, and with the platform in the names of stages.
pub(super) struct Numbered<'a> {
    inner: &'a mut dyn BuildOutput,
    platform: Option<String>,
    /// Steps of the builds before this one.
    before: usize,
    largest: usize,
}

impl<'a> Numbered<'a> {
    /// For builds one after another; `several` when there is more than one.
    pub(super) fn new(inner: &'a mut dyn BuildOutput) -> Self {
        Self { inner, platform: None, before: 0, largest: 0 }
    }

    /// The next build begins.
    pub(super) fn next(&mut self, platform: Option<&Platform>) {
        self.platform = platform.map(ToString::to_string);
        self.before = self.largest;
    }

    fn number(&mut self, step: usize) -> usize {
        let number = self.before + step;
        self.largest = self.largest.max(number);
        number
    }

    /// A remark about no line in particular.
    pub(super) fn warn(&mut self, text: &str) {
        self.inner.event(&BuildEvent::Warning { line: 0, text });
    }

    /// The end of all builds.
    pub(super) fn done(&mut self, image: Digest) {
        self.inner.event(&BuildEvent::Done { image });
    }
}

impl BuildOutput for Numbered<'_> {
    fn event(&mut self, event: &BuildEvent<'_>) {
        let name;
        let event = match *event {
            BuildEvent::StepStarted { step, total, stage, text } => {
                let stage = match &self.platform {
                    None => stage,
                    Some(platform) => {
                        name = stage.map_or_else(|| platform.clone(), |s| format!("{platform} {s}"));
                        Some(name.as_str())
                    }
                };
                self.number(total);
                BuildEvent::StepStarted { step: self.number(step), total: self.before + total, stage, text }
            }
            BuildEvent::Cached { step } => BuildEvent::Cached { step: self.number(step) },
            BuildEvent::Note { step, text } => BuildEvent::Note { step: self.number(step), text },
            BuildEvent::Output { step, stderr, bytes } => BuildEvent::Output { step: self.number(step), stderr, bytes },
            BuildEvent::StepDone { step, duration, layer } => {
                BuildEvent::StepDone { step: self.number(step), duration, layer }
            }
            BuildEvent::StepFailed { step } => BuildEvent::StepFailed { step: self.number(step) },
            BuildEvent::Warning { line, text } => BuildEvent::Warning { line, text },
            BuildEvent::Failed { excerpt } => BuildEvent::Failed { excerpt },
            // Said once, for all of them.
            BuildEvent::Done { .. } => return,
        };
        self.inner.event(&event);
    }

    fn tick(&mut self) {
        self.inner.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log(Vec<String>);

    impl BuildOutput for Log {
        fn event(&mut self, event: &BuildEvent<'_>) {
            self.0.push(format!("{event:?}"));
        }
    }

    #[test]
    fn numbers_go_on() {
        let mut log = Log(Vec::new());
        let mut numbered = Numbered::new(&mut log);
        let start = |step| BuildEvent::StepStarted { step, total: 2, stage: Some("a"), text: "RUN x" };
        numbered.next(None);
        numbered.event(&start(1));
        numbered.next(Some(&Platform::host()));
        numbered.event(&start(1));
        numbered.event(&BuildEvent::Cached { step: 1 });
        assert_eq!(log.0[0], "StepStarted { step: 1, total: 2, stage: Some(\"a\"), text: \"RUN x\" }");
        let host = Platform::host();
        assert_eq!(
            log.0[1],
            format!("StepStarted {{ step: 3, total: 4, stage: Some(\"{host} a\"), text: \"RUN x\" }}")
        );
        assert_eq!(log.0[2], "Cached { step: 3 }");
    }
}
