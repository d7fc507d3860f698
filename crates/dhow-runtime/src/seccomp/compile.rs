//! From rules to a classic BPF program: a binary search over call numbers.
//!
//! The kernel runs a new filter once for every call number to fill its cache of plain "allow" verdicts, so a linear list
//! of 1,600 instructions costs 1.3 ms to load where a tree costs 0.14 ms.
//!
//! Jumps of classic BPF go forward only and conditional ones at most 255 instructions far, so the program is written from
//! its end to its start: every target exists, at a known distance, when the jump to it is written. One `ret` serves all
//! jumps in reach. A target out of reach gets a stepping stone.

use super::arch::{Arch, X32_BIT};
use super::rules::{Action, Condition, Decision, Op, Rules};
use dhow_sys::seccomp::Instruction;
use std::collections::HashMap;

/// `BPF_LD | BPF_W | BPF_ABS`
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`
pub(super) const JUMP_GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
/// `BPF_RET | BPF_K`
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NR: u32 = 0;
/// See [`NR`].
pub(super) const ARCH: u32 = 4;
/// See [`NR`].
pub(super) const ARGS: u32 = 16;

/// Leaves room for the stones of the other branch.
const REACH: usize = 250;

/// Compiles rules. A call of an architecture that is not among them kills the process, as nothing is known about it.
pub(super) fn compile(rules: &Rules) -> Vec<Instruction> {
    let mut program = Backward::default();
    let mut next = program.verdict(Action::KILL_PROCESS);
    let mut audits: Vec<u32> = Vec::new();
    for arch in &rules.arches {
        if !audits.contains(&arch.audit()) {
            audits.push(arch.audit());
        }
    }
    // The first architecture's section is written last, next to the start.
    let mut sections = Vec::new();
    for audit in audits.iter().rev() {
        let ranges = ranges(rules, *audit);
        let tree = program.search(&ranges);
        sections.push((*audit, program.load(NR, tree)));
    }
    for (audit, section) in sections {
        next = program.jump(JUMP_EQUAL, audit, section, next);
    }
    program.load(ARCH, next);
    program.finish()
}

/// Decisions by first number, for all ABIs that share an `AUDIT_ARCH` value. Sorted, starts with 0, no two neighbours alike.
fn ranges(rules: &Rules, audit: u32) -> Vec<(u32, Decision)> {
    let arches: Vec<Arch> = rules.arches.iter().copied().filter(|a| a.audit() == audit).collect();
    let mut known: Vec<(u32, Decision)> = arches.iter().flat_map(|arch| rules.table(*arch)).collect();
    known.sort_by_key(|(number, _)| *number);
    let unknown = |number: u32| {
        // x32 alone: its numbers are not among this filter's ABIs, which makes them another architecture's.
        let foreign = number >= X32_BIT && audit == Arch::X32.audit() && !arches.contains(&Arch::X32);
        Decision::Plain(if foreign { Action::KILL_PROCESS } else { rules.unknown() })
    };
    let mut out: Vec<(u32, Decision)> = Vec::new();
    let mut push = |start: u32, decision: Decision| {
        if out.last().is_none_or(|(_, last)| *last != decision) {
            out.push((start, decision));
        }
    };
    let mut expected = 0;
    let gap = |push: &mut dyn FnMut(u32, Decision), from: u32, to: u32| {
        if from < to {
            push(from, unknown(from));
            if from < X32_BIT && X32_BIT < to {
                push(X32_BIT, unknown(X32_BIT));
            }
        }
    };
    for (number, decision) in known {
        gap(&mut push, expected, number);
        push(number, decision);
        expected = number + 1;
    }
    gap(&mut push, expected, u32::MAX);
    out
}

/// Where an instruction is: its index counted from the end of the program.
type Label = usize;

/// A program that is written backward.
#[derive(Default)]
struct Backward {
    reversed: Vec<Instruction>,
    verdicts: HashMap<Action, Label>,
    blocks: HashMap<Decision, Label>,
}

impl Backward {
    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// How many instructions the next one would skip to get to a label.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label - 1
    }

    /// A `ret`, an old one where one is near.
    fn verdict(&mut self, action: Action) -> Label {
        if let Some(label) = self.verdicts.get(&action).copied().filter(|l| self.distance(*l) <= REACH / 2) {
            return label;
        }
        let label = self.push(RETURN, 0, 0, action.0);
        self.verdicts.insert(action, label);
        label
    }

    /// The label, or a stone that leads to it.
    fn reach(&mut self, label: Label) -> Label {
        let distance = self.distance(label);
        if distance <= REACH {
            return label;
        }
        match self.reversed[label] {
            Instruction { code: RETURN, k, .. } => self.verdict(Action(k)),
            _ => self.push(JUMP, 0, 0, distance as u32),
        }
    }

    /// A conditional jump.
    fn jump(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.reach(yes);
        let no = self.reach(no);
        let (jt, jf) = (self.distance(yes), self.distance(no));
        debug_assert!(jt <= 255 && jf <= 255, "REACH leaves room for the other branch's stone");
        self.push(code, jt as u8, jf as u8, k)
    }

    /// Loads a word of `seccomp_data` and goes on at `next`.
    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_through(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Makes `next` what follows.
    fn fall_through(&mut self, next: Label) {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    /// Binary search in ranges; the accumulator holds the call number.
    fn search(&mut self, ranges: &[(u32, Decision)]) -> Label {
        match ranges {
            [] => self.verdict(Action::KILL_PROCESS),
            [(_, decision)] => self.decision(decision),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high[0].0;
                // `high` is not empty: two ranges or more were split in the middle.
                let yes = self.search(high);
                let no = self.search(low);
                self.jump(JUMP_GREATER_EQUAL, start, yes, no)
            }
        }
    }

    fn decision(&mut self, decision: &Decision) -> Label {
        match decision {
            Decision::Plain(action) => self.verdict(*action),
            Decision::ByArguments(alternatives, otherwise) => {
                if let Some(label) = self.blocks.get(decision).copied().filter(|l| self.distance(*l) <= REACH) {
                    return label;
                }
                let mut no = self.verdict(*otherwise);
                for (conditions, action) in alternatives.iter().rev() {
                    let mut yes = self.verdict(*action);
                    for condition in conditions.iter().rev() {
                        yes = self.condition(condition, yes, no);
                    }
                    no = yes;
                }
                self.blocks.insert(decision.clone(), no);
                no
            }
        }
    }

    /// One comparison. Each loads what it needs, so alternatives can follow each other in any order.
    fn condition(&mut self, c: &Condition, yes: Label, no: Label) -> Label {
        // The low half of an argument comes first on little endian hosts.
        let (low_at, high_at) = if cfg!(target_endian = "little") { (0, 4) } else { (4, 0) };
        let base = ARGS + 8 * u32::from(c.index);
        let (low, high) = (c.value as u32, (c.value >> 32) as u32);
        // Less is not greater-or-equal, and so on.
        let (op, yes, no) = match c.op {
            Op::Ne => (Op::Eq, no, yes),
            Op::Lt => (Op::Ge, no, yes),
            Op::Le => (Op::Gt, no, yes),
            same => (same, yes, no),
        };
        match op {
            Op::MaskedEq(mask) => {
                let (low_mask, high_mask) = (mask as u32, (mask >> 32) as u32);
                let test = self.jump(JUMP_EQUAL, low & low_mask, yes, no);
                let masked = self.push_after(test, AND, low_mask);
                let entry = self.load(base + low_at, masked);
                if c.narrow || high_mask == 0 {
                    return entry;
                }
                let test = self.jump(JUMP_EQUAL, high & high_mask, entry, no);
                let masked = self.push_after(test, AND, high_mask);
                self.load(base + high_at, masked)
            }
            Op::Eq => {
                let test = self.jump(JUMP_EQUAL, low, yes, no);
                let entry = self.load(base + low_at, test);
                if c.narrow {
                    return entry;
                }
                let test = self.jump(JUMP_EQUAL, high, entry, no);
                self.load(base + high_at, test)
            }
            _ => {
                let code = if op == Op::Gt { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
                let test = self.jump(code, low, yes, no);
                let entry = self.load(base + low_at, test);
                if c.narrow {
                    return entry;
                }
                let same = self.jump(JUMP_EQUAL, high, entry, no);
                let test = self.jump(JUMP_GREATER, high, yes, same);
                self.load(base + high_at, test)
            }
        }
    }

    fn push_after(&mut self, next: Label, code: u16, k: u32) -> Label {
        self.fall_through(next);
        self.push(code, 0, 0, k)
    }
}
