//! Showing a command, its output and what it means; checking that it is true.

use super::place::Place;
use crate::sh::{self, Context, Failure, Result};
use dhow_testkit::Pty;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The tour guide.
pub struct Tour<'a> {
    /// Where it happens.
    pub place: &'a Place,
    checks: usize,
    colour: bool,
}

/// What a command said.
pub struct Shown {
    /// Standard output and standard error as they came.
    pub text: String,
    /// Standard output alone.
    pub stdout: String,
    /// Exit code.
    pub code: i32,
}

impl<'a> Tour<'a> {
    /// Starts a tour.
    pub fn new(place: &'a Place) -> Self {
        Self { place, checks: 0, colour: std::io::stdout().is_terminal() }
    }

    /// How many checks held.
    pub fn checks(&self) -> usize {
        self.checks
    }

    /// A heading.
    pub fn chapter(&self, title: &str) {
        println!("\n{}", self.paint("1;36", &format!("━━ {title} ━━")));
    }

    /// One line of explanation.
    pub fn say(&self, text: &str) {
        println!("\n{}", self.paint("32", &format!("# {text}")));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn prompt(&self, command: &Command) {
        let words = sh::shown(command);
        // The program under its short name, as a person types it.
        let words = words.replace(&self.place.dhow.display().to_string(), "dhow");
        println!("{}", self.paint("1", &format!("$ {words}")));
        std::io::stdout().flush().ok();
    }

    /// Runs `dhow ARGS`, which must succeed.
    pub fn dhow(&mut self, args: &[&str]) -> Result<Shown> {
        let shown = self.dhow_code(args)?;
        self.check(shown.code == 0, &format!("dhow {} ends with code 0, not {}", args.join(" "), shown.code))?;
        Ok(shown)
    }

    /// Runs `dhow ARGS`, whatever its exit code.
    pub fn dhow_code(&mut self, args: &[&str]) -> Result<Shown> {
        let mut command = self.place.command("dhow");
        self.run(command.args(args), b"")
    }

    /// Runs another program, which must succeed.
    pub fn program(&mut self, program: &str, args: &[&str]) -> Result<Shown> {
        let mut command = self.place.command(program);
        let shown = self.run(command.args(args), b"")?;
        self.check(shown.code == 0, &format!("{program} ends with code 0, not {}", shown.code))?;
        Ok(shown)
    }

    /// Runs a command with this input and shows both.
    pub fn run(&mut self, command: &mut Command, input: &[u8]) -> Result<Shown> {
        self.prompt(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context(sh::shown(command))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input is none of our business.
            stdin.write_all(input).ok();
        }
        let mut errors = child.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            errors.as_mut().map(|e| e.read_to_end(&mut bytes));
            bytes
        });
        let output = child.wait_with_output().context(sh::shown(command))?;
        let errors = reader.join().unwrap_or_default();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = format!("{stdout}{}", String::from_utf8_lossy(&errors));
        self.print(&text);
        Ok(Shown { text, stdout: stdout.trim_end().to_owned(), code: output.status.code().unwrap_or(-1) })
    }

    /// Runs `dhow ARGS` on a terminal and types each line when the prompt before it has appeared.
    pub fn terminal(&mut self, args: &[&str], typed: &[(&str, &str)]) -> Result<Shown> {
        let mut command = self.place.command("dhow");
        command.args(args).env("TERM", "xterm");
        self.prompt(&command);
        let mut pty = Pty::spawn(&command, 24, 100, |c| c.spawn());
        for (prompt, line) in typed {
            pty.expect(prompt, Duration::from_secs(20));
            pty.send(&format!("{line}\r"));
        }
        let (code, text) = pty.finish(Duration::from_secs(30));
        let text = text.replace('\r', "");
        self.print(&text);
        self.check(code == 0, &format!("it ends with code 0, not {code}"))?;
        Ok(Shown { stdout: text.trim_end().to_owned(), text, code })
    }

    /// Prints output; very long output is cut in the middle.
    fn print(&self, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > 40 {
            let hidden = lines.len() - 36;
            lines[..18].iter().for_each(|l| println!("{l}"));
            println!("{}", self.paint("2", &format!("… {hidden} more lines …")));
            lines[lines.len() - 18..].iter().for_each(|l| println!("{l}"));
        } else {
            lines.iter().for_each(|l| println!("{l}"));
        }
    }

    /// Counts a fact, or ends the tour.
    pub fn check(&mut self, holds: bool, fact: &str) -> Result {
        if !holds {
            return Err(Failure::new(format!("this should hold and does not: {fact}")));
        }
        self.checks += 1;
        Ok(())
    }

    /// `check`, and says the fact.
    pub fn shows(&mut self, holds: bool, fact: &str) -> Result {
        self.check(holds, fact)?;
        println!("{}", self.paint("32", &format!("  ✓ {fact}")));
        Ok(())
    }

    /// Asks a URL until it answers; shows the last try as a command.
    pub fn curl(&mut self, url: &str) -> Result<Shown> {
        let start = Instant::now();
        let quiet = || self.place.command("curl").args(["-sf", "-m", "5", url]).output();
        while !quiet().is_ok_and(|o| o.status.success()) && start.elapsed() < Duration::from_secs(15) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let shown = self.program("curl", &["-s", "-m", "5", url])?;
        self.shows(shown.text.contains("Hello World"), &format!("the app answers on {url}"))?;
        Ok(shown)
    }
}
