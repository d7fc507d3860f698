use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Test {
    screen: Screen,
    written: Written,
    columns: Arc<AtomicUsize>,
}

fn test(rows: usize, columns: usize) -> Test {
    let written = Written::default();
    let columns = Arc::new(AtomicUsize::new(columns));
    let asked = Arc::clone(&columns);
    let size = Box::new(move || (rows, asked.load(Ordering::Relaxed)));
    Test { screen: Screen::new(Box::new(written.clone()), size, false), written, columns }
}

impl Test {
    /// An event, `ms` after the beginning.
    fn at(&mut self, ms: u64, event: BuildEvent<'_>) {
        let now = self.screen.begun + Duration::from_millis(ms);
        self.screen.take(&event, now);
    }

    fn picture(&self, ms: u64, rows: usize, columns: usize) -> String {
        let now = self.screen.begun + Duration::from_millis(ms);
        self.screen.picture(now, rows, columns).into_iter().map(|l| l.text + "|\n").collect()
    }

    fn text(&self) -> String {
        String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap()
    }

    fn busy(&mut self) {
        self.at(0, started(1, Some("base"), "FROM busybox"));
        self.at(0, BuildEvent::Cached { step: 1 });
        self.at(0, done(1, 0));
        self.at(100, started(2, Some("base"), "RUN make"));
        self.at(200, started(3, None, "RUN test"));
        self.at(200, BuildEvent::Note { step: 3, text: "app.py changed" });
        self.at(300, output(2, b"one\ntwo\n\nthree\nfour\nfive\nsix\nseven\nno end"));
        self.at(300, output(3, b"10%\r20%\r30%\n"));
    }
}

fn started<'a>(step: usize, stage: Option<&'a str>, text: &'a str) -> BuildEvent<'a> {
    BuildEvent::StepStarted { step, total: 4, stage, text }
}

fn output(step: usize, bytes: &[u8]) -> BuildEvent<'_> {
    BuildEvent::Output { step, stderr: false, bytes }
}

fn done(step: usize, ms: u64) -> BuildEvent<'static> {
    BuildEvent::StepDone { step, duration: Duration::from_millis(ms), layer: None }
}

#[test]
fn everything_at_a_glance() {
    let mut t = test(24, 50);
    t.busy();
    insta::assert_snapshot!(t.picture(1300, 24, 50), @r"
    [+] Building 1.3s (1/4)|
     => CACHED [base 1/4] FROM busybox           0.0s|
     => [base 2/4] RUN make                      1.2s|
     => => # three|
     => => # four|
     => => # five|
     => => # six|
     => => # seven|
     => => # no end|
     => [3/4] RUN test                           1.1s|
     => => app.py changed|
     => => # 30%|
    ");
}

#[test]
fn small_terminals() {
    let mut t = test(24, 50);
    t.busy();
    insta::assert_snapshot!(t.picture(1300, 8, 30), @r"
    [+] Building 1.3s (1/4)|
     => [base 2/4] RUN make  1.2s|
     => => # seven|
     => => # no end|
     => [3/4] RUN test       1.1s|
     => => app.py changed|
     => => # 30%|
    ");
    for rows in 0..30 {
        for columns in 0..40 {
            let picture = t.picture(1300, rows, columns);
            assert!(picture.lines().count() <= rows.saturating_sub(1).max(1), "{rows} {columns}\n{picture}");
            assert!(picture.lines().all(|l| width(l) - 1 <= columns.saturating_sub(1)), "{rows} {columns}\n{picture}");
        }
    }
}

#[test]
fn pulls_are_below() {
    let mut t = test(24, 60);
    t.at(0, started(1, None, "FROM busybox"));
    t.screen.layer("0123456789ab", "Downloading", 1_500_000, 6_000_000);
    t.screen.layer("aaaa", "Waiting", 0, 0);
    insta::assert_snapshot!(t.picture(100, 24, 60), @r"
    [+] Building 0.1s (0/4)|
     => [1/4] FROM busybox                                 0.1s|
     => => 0123456789ab Downloading                 1.5MB / 6MB|
    ");
}

#[test]
fn a_picture_replaces_the_one_before() {
    let mut t = test(24, 40);
    t.at(0, started(1, None, "FROM busybox"));
    t.at(1000, output(1, b"x\n"));
    let text = t.text();
    let second = text.split("\x1b[?25l").nth(2).unwrap();
    assert_eq!(
        second,
        "\r\x1b[2A[+] Building 1.0s (0/4)\x1b[K\n => [1/4] FROM busybox             1.0s\x1b[K\n => => # x\x1b[K\n\x1b[J\x1b[?25h"
    );
    // Every picture ends with the cursor shown.
    assert_eq!(text.matches("\x1b[?25l").count(), text.matches("\x1b[?25h").count());
    // A narrower terminal has wrapped lines of 23, 39 and 9 columns at 20 columns to 2, 2 and 1 rows.
    t.columns.store(20, Ordering::Relaxed);
    t.screen.draw(t.screen.begun + Duration::from_millis(2000));
    assert!(t.text().rsplit("\x1b[?25l").next().unwrap().starts_with("\r\x1b[5A"), "{:?}", t.text());
}

#[test]
fn events_draw_seldom_and_nothing_new_not_at_all() {
    let mut t = test(24, 40);
    t.at(0, started(1, None, "FROM busybox"));
    for _ in 0..100 {
        t.at(10, output(1, b"x\n"));
    }
    assert_eq!(t.text().matches("\x1b[?25l").count(), 1);
    let at = t.screen.begun + Duration::from_millis(110);
    t.screen.draw(at);
    t.screen.draw(at);
    assert_eq!(t.text().matches("\x1b[?25l").count(), 2);
}

#[test]
fn the_end_shows_everything_and_the_failure() {
    let mut t = test(5, 40);
    t.busy();
    t.at(400, BuildEvent::Warning { line: 1, text: "careful\x1b[2J" });
    t.at(500, BuildEvent::StepFailed { step: 2 });
    t.at(500, BuildEvent::Failed { excerpt: "Dockerfile:2\n   2 | >>> RUN make\n" });
    let text = t.text();
    let last =
        text.rsplit("\x1b[?25l").next().unwrap().replace("\x1b[K", "").replace("\x1b[J", "").replace("\x1b[?25h", "");
    let (_, last) = last.split_once("A[+]").unwrap();
    insta::assert_snapshot!(last, @r"
     Building 0.5s (1/4) FINISHED
     => CACHED [base 1/4] FROM busybox 0.0s
     => ERROR [base 2/4] RUN make      0.4s
     => CANCELED [3/4] RUN test        0.3s
     => => app.py changed
    [Warning] careful\u{1b}[2J
    ------
     > [base 2/4] RUN make:
    one
    two

    three
    four
    five
    six
    seven
    no end
    ------
    Dockerfile:2
       2 | >>> RUN make
    ");
    // Nothing is drawn after that.
    t.at(600, started(4, None, "RUN more"));
    t.screen.finish(Instant::now());
    assert_eq!(t.text(), text);
}

#[test]
fn hostile_output_is_text() {
    for (bytes, shown) in [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdcs\x1b\\x", "x"),
        ("\x1b[?1049h\x1b[2J\x1b[H", ""),
        ("\x1b(0lqk\x1bcreset", "lqkreset"),
        ("a\tb", "a    b"),
        ("old\rnew\r", "new"),
        ("bell\x07 back\x08 c1\u{9b}2J", "bell\\u{7} back\\u{8} c1\\u{9b}2J"),
        ("bidi\u{202e}", "bidi\\u{202e}"),
        ("\x1b]0;unfinished", ""),
        ("\x1b[", ""),
        ("\x1b", ""),
    ] {
        assert_eq!(clean(bytes), shown, "{bytes:?}");
    }
    let mut t = test(24, 80);
    t.at(0, started(1, Some("x\x1b[2J"), "RUN \x1b]0;t\x07"));
    t.at(100, output(1, b"\x1b[2J\x1b[H\x1b]0;t\x07\xff\xfe\x90\n"));
    t.screen.finish(Instant::now());
    let text = t.text();
    let ours = ["\x1b[?25l", "\x1b[?25h", "\x1b[K", "\x1b[J", "\x1b[1A", "\x1b[2A", "\x1b[3A"];
    let rest = ours.iter().fold(text.clone(), |text, code| text.replace(code, ""));
    assert!(!rest.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r')), "{rest:?}");
}

#[test]
fn wide_characters() {
    assert_eq!(width("日本e\u{301}🚀"), 7);
    assert_eq!(fit("日本語日本語", "1s", 20, Style::Plain).text, "日本語日本語     1s");
    assert_eq!(fit("日本語日本語", "", 8, Style::Plain).text, "日本語");
}
