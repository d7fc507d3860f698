//! `COPY` and `ADD`.

use super::flags::Flags;
use crate::error::Problem;
use crate::heredoc::Heredoc;
use crate::instruction::{Add, Copy, FileSources, InlineFile};
use crate::lines::Statement;
use crate::words::{fields, json_array};

pub(super) fn copy(s: &Statement) -> Result<Copy, Problem> {
    let mut flags = Flags::new(s);
    let from = flags.text("from")?;
    if from.as_deref().is_some_and(has_variable) {
        return Err(Problem::FromVariable("--from"));
    }
    let parents = flags.switch("parents")?.unwrap_or(false);
    let files = sources(s, &mut flags, "COPY")?;
    flags.finish()?;
    Ok(Copy { files, from, parents })
}

pub(super) fn add(s: &Statement) -> Result<Add, Problem> {
    let mut flags = Flags::new(s);
    let checksum = flags.text("checksum")?;
    let keep_git_dir = flags.switch("keep-git-dir")?;
    let unpack = flags.switch("unpack")?;
    let files = sources(s, &mut flags, "ADD")?;
    flags.finish()?;
    Ok(Add { files, checksum, keep_git_dir, unpack })
}

fn sources(s: &Statement, flags: &mut Flags, name: &'static str) -> Result<FileSources, Problem> {
    let (chown, chmod) = (flags.text("chown")?, flags.text("chmod")?);
    let link = flags.switch("link")?.unwrap_or(false);
    let exclude = flags.list("exclude")?;
    let mut words = match json_array(&s.args)? {
        Some(words) => words,
        // A here-document may be written with a blank after `<<`.
        None => join_heredoc_words(fields(&s.args)),
    };
    let destination = words.pop().filter(|_| !words.is_empty()).ok_or(Problem::NoDestination(name))?;
    if !s.heredocs.is_empty() && Heredoc::parse(&destination).is_some() {
        return Err(Problem::HeredocDestination(name));
    }
    let mut files = FileSources { destination, chown, chmod, link, exclude, ..FileSources::default() };
    for word in words {
        let body = Heredoc::parse(&word).and_then(|doc| s.heredocs.iter().find(|d| d.name == doc.name));
        match body {
            Some(doc) => {
                files.inline.push(InlineFile { name: doc.name.clone(), content: doc.text(), expand: doc.expand })
            }
            None => files.paths.push(word),
        }
    }
    Ok(files)
}

/// Whether a `$` stands before anything.
pub(super) fn has_variable(text: &str) -> bool {
    text.find('$').is_some_and(|at| at + 1 < text.len())
}

fn join_heredoc_words(words: Vec<String>) -> Vec<String> {
    let mut joined: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        match joined.last_mut() {
            Some(last) if last.ends_with("<<") || last.ends_with("<<-") => last.push_str(&word),
            _ => joined.push(word),
        }
    }
    joined
}
