//! Rules about how a Dockerfile is written.

use super::Linter;
use super::rules;
use crate::error::clip;
use crate::instruction::{Command, Instruction, Layout, Span};
use crate::parse::{Dockerfile, Stage};
use crate::words::{fields, split_first, take_flags};
use std::collections::BTreeSet;

/// Names that mean something else than a stage.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// All of them but [`legacy`], which is done for the stages that are built.
pub(super) fn check(file: &Dockerfile, linter: &mut Linter) {
    for instruction in &file.header {
        gap(&instruction.layout, linter);
        described(instruction, linter);
    }
    let mut names = BTreeSet::new();
    for stage in &file.stages {
        gap(&stage.layout, linter);
        from_line(stage, file.directives.escape, linter);
        stage_name(stage, &mut names, linter);
        for instruction in &stage.instructions {
            gap(&instruction.layout, linter);
            described(instruction, linter);
            if let Command::Maintainer(_) = instruction.command {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                linter.report(rules::MAINTAINER_DEPRECATED, Some(&instruction.layout), instruction.span, message);
            }
        }
    }
    casing(file, linter);
}

fn gap(layout: &Layout, linter: &mut Linter) {
    if let Some(line) = layout.gap {
        let span = Span { start: line, end: line };
        linter.report(rules::NO_EMPTY_CONTINUATION, None, span, "Empty continuation line".to_owned());
    }
}

fn from_line(stage: &Stage, escape: char, linter: &mut Linter) {
    let (from, rest) = split_first(&stage.original);
    let (_, args) = take_flags(rest, escape);
    let words = fields(args);
    let [_, as_word, name] = words.as_slice() else { return };
    let layout = Some(&stage.layout);
    if name.to_lowercase() != *name {
        let message = format!("Stage name '{}' should be lowercase", clip(name, 60));
        linter.report(rules::STAGE_NAME_CASING, layout, stage.span, message);
    }
    let matches = match casing_of(from) {
        Some(Casing::Lower) => as_word.to_ascii_lowercase() == *as_word,
        Some(Casing::Upper) => as_word.to_ascii_uppercase() == *as_word,
        None => true,
    };
    if !matches {
        let message = format!("'{as_word}' and '{from}' keywords' casing do not match");
        linter.report(rules::FROM_AS_CASING, layout, stage.span, message);
    }
    if let Some(name) = &stage.from.name {
        description("FROM", &[name], &stage.layout, stage.span, linter);
    }
}

fn stage_name<'a>(stage: &'a Stage, names: &mut BTreeSet<&'a str>, linter: &mut Linter) {
    let Some(name) = stage.from.name.as_deref() else { return };
    if RESERVED.contains(&name) {
        let message = format!("Stage name should not use the same name as reserved stage {name:?}");
        linter.report(rules::RESERVED_STAGE_NAME, None, stage.span, message);
    }
    if !names.insert(name) {
        let message = format!("Duplicate stage name {:?}, stage names should be unique", clip(name, 60));
        linter.report(rules::DUPLICATE_STAGE_NAME, None, stage.span, message);
    }
}

fn described(instruction: &Instruction, linter: &mut Linter) {
    if let Command::Arg(args) = &instruction.command {
        let names: Vec<&str> = args.iter().map(|a| a.name.as_str()).collect();
        description("ARG", &names, &instruction.layout, instruction.span, linter);
    }
}

fn description(instruction: &str, names: &[&str], layout: &Layout, span: Span, linter: &mut Linter) {
    let Some(last) = layout.comments.iter().rfind(|c| !c.starts_with("check=")) else { return };
    let first = last.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let example = if let [name] = names { clip(name, 60) } else { "<arg_key>".to_owned() };
    let message = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    linter.report(rules::INVALID_DEFINITION_DESCRIPTION, Some(layout), span, message);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

fn casing_of(word: &str) -> Option<Casing> {
    if word.to_ascii_lowercase() == word {
        Some(Casing::Lower)
    } else if word.to_ascii_uppercase() == word {
        Some(Casing::Upper)
    } else {
        None
    }
}

/// Every instruction in the case of the majority; a draw is for upper case.
fn casing(file: &Dockerfile, linter: &mut Linter) {
    let keywords = |stage: &'_ Stage| -> Vec<(String, Span)> {
        let from = (split_first(&stage.original).0.to_owned(), stage.span);
        let rest = stage.instructions.iter().map(|i| (i.keyword().to_owned(), i.span));
        std::iter::once(from).chain(rest).collect()
    };
    let all: Vec<(String, Span)> = file.stages.iter().flat_map(keywords).collect();
    let count = |casing| all.iter().filter(|(word, _)| casing_of(word) == Some(casing)).count();
    let (wanted, name) = match count(Casing::Lower) > count(Casing::Upper) {
        true => (Casing::Lower, "lowercase"),
        false => (Casing::Upper, "uppercase"),
    };
    for (word, span) in all {
        if casing_of(&word).is_none_or(|c| c != wanted) {
            let message = format!("Command '{word}' should match the case of the command majority ({name})");
            linter.report(rules::CONSISTENT_INSTRUCTION_CASING, None, span, message);
        }
    }
}

/// `ENV KEY VALUE`.
pub(super) fn legacy(instruction: &Instruction, linter: &mut Linter) {
    let (Command::Env(pairs) | Command::Label(pairs)) = &instruction.command else { return };
    if pairs.iter().any(|p| p.legacy) {
        let name = instruction.keyword();
        let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        linter.report(rules::LEGACY_KEY_VALUE_FORMAT, Some(&instruction.layout), instruction.span, message);
    }
}
