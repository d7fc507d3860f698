//! `logs`.

use super::invalid;
use crate::command::Command;
use crate::error::CliError;
use crate::flags::{Flag, Matches};
use crate::globals::Globals;
use crate::out;
use dhow_docker::GrammarError;
use dhow_docker::text::terminal_safe_log;
use dhow_docker::time;
use dhow_engine::Engine;
use dhow_logs::{LogReader, ReadOptions, Record, Stream};
use dhow_types::{ContainerId, Timestamp};
use jiff::tz::TimeZone;
use std::io::Write;

pub(crate) static COMMAND: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    example: "dhow logs -f --tail 100 web",
    flags: &[&[
        Flag::switch("details", '\0', "").no_effect("records have no extra attributes"),
        Flag::switch("follow", 'f', "Follow log output"),
        Flag::value(
            "since",
            '\0',
            "string",
            "Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)",
        ),
        Flag::value("tail", 'n', "string", "Number of lines to show from the end of the logs (default all)"),
        Flag::switch("timestamps", 't', "Show timestamps"),
        Flag::value("until", '\0', "string", "Show logs before a timestamp or relative time"),
    ]],
    args: (1, Some(1)),
    hot: true,
    ..Command::new("logs", &["container logs"], run)
};

fn run(globals: &Globals, m: &Matches) -> Result<i32, CliError> {
    let point = |text: &str| time::point(text, Timestamp::now(), &TimeZone::system());
    let options = ReadOptions {
        since: m.parsed("since", point)?,
        until: m.parsed("until", point)?,
        tail: m.parsed("tail", tail)?.flatten(),
        follow: m.on("follow"),
    };
    let engine = globals.engine()?;
    let id = engine.find(m.args.first().map_or("", String::as_str))?;
    let Some(mut reader) = open(&engine, &id, options)? else { return Ok(0) };
    let mut printer = Printer::new(m.on("timestamps"));
    // A container that ended has written everything before its state says so.
    let stop = || !engine.container(&id).is_ok_and(|c| c.is_alive());
    loop {
        let last_round = !options.follow || stop();
        while let Some(record) = reader.next()? {
            printer.take(&record)?;
        }
        printer.flush()?;
        if last_round || reader.is_past_end() {
            return Ok(0);
        }
        reader.wait(std::time::Duration::from_millis(200));
    }
}

/// A number of lines; negative and `all` are all.
fn tail(text: &str) -> Result<Option<u64>, GrammarError> {
    match text {
        "all" => Ok(None),
        text => match text.parse::<i64>() {
            Ok(n) => Ok(u64::try_from(n).ok()),
            Err(_) => Err(GrammarError::Worded(format!("\"tail\" must be a number or \"all\", not {text:?}"))),
        },
    }
}

/// The log; `None` when the container has never written one.
fn open(engine: &Engine, id: &ContainerId, options: ReadOptions) -> Result<Option<LogReader>, CliError> {
    let container = engine.container(id)?;
    if container.record.host.log_driver == "none" {
        return Err(invalid("configured logging driver (none) does not support reading"));
    }
    match engine.logs(id, options) {
        Ok(reader) => Ok(Some(reader)),
        Err(e) if dhow_types::Categorized::kind(&e) == dhow_types::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Writes each record to the stream that it came from, in order, without a system call per line.
struct Printer {
    timestamps: bool,
    /// Whether standard output and standard error are terminals.
    terminal: [bool; 2],
    stream: Stream,
    buffer: Vec<u8>,
    /// The last record of the stream was the start of a line.
    partial: [bool; 2],
}

impl Printer {
    fn new(timestamps: bool) -> Self {
        let terminal = [out::is_terminal(), rustix::termios::isatty(rustix::stdio::stderr())];
        Self { timestamps, terminal, stream: Stream::Stdout, buffer: Vec::new(), partial: [false; 2] }
    }

    fn take(&mut self, record: &Record) -> Result<(), CliError> {
        if record.stream != self.stream || self.buffer.len() > 64 << 10 {
            self.flush()?;
            self.stream = record.stream;
        }
        let stderr = record.stream == Stream::Stderr;
        let [out_partial, err_partial] = &mut self.partial;
        let partial = if stderr { err_partial } else { out_partial };
        let [out_terminal, err_terminal] = self.terminal;
        if self.timestamps && !*partial {
            self.buffer.extend_from_slice(time::rfc3339_fixed(record.time).as_bytes());
            self.buffer.push(b' ');
        }
        *partial = !record.text.ends_with('\n');
        if if stderr { err_terminal } else { out_terminal } {
            self.buffer.extend_from_slice(terminal_safe_log(&record.text).as_bytes());
        } else {
            self.buffer.extend_from_slice(record.text.as_bytes());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CliError> {
        match self.stream {
            Stream::Stdout => out::raw(&self.buffer)?,
            Stream::Stderr => {
                std::io::stderr().write_all(&self.buffer).map_err(CliError::io("cannot write to standard error"))?;
            }
        }
        self.buffer.clear();
        Ok(())
    }
}
