//! Runs a filter in user space: what would the kernel answer?
//!
//! For tests, and for showing people what a profile does to a call. Knows the instructions that [`super::compile`] writes.

use super::compile::{AND, ARCH, ARGS, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, NR, RETURN};
use super::rules::Action;
use dhow_sys::seccomp::Instruction;

/// The verdict of a program; `None` for one that the kernel would not take.
pub(super) fn run(program: &[Instruction], audit: u32, number: u32, args: &[u64; 6]) -> Option<Action> {
    let mut a = 0u32;
    let mut at = 0usize;
    // Jumps go forward only, so this ends.
    loop {
        let i = program.get(at)?;
        at += 1;
        let jump = |condition: bool| usize::from(if condition { i.jt } else { i.jf });
        match i.code {
            LOAD => a = word(i.k, audit, number, args)?,
            AND => a &= i.k,
            JUMP => at = at.checked_add(i.k as usize)?,
            JUMP_EQUAL => at += jump(a == i.k),
            JUMP_GREATER => at += jump(a > i.k),
            JUMP_GREATER_EQUAL => at += jump(a >= i.k),
            RETURN => return Some(Action(i.k)),
            _ => return None,
        }
    }
}

/// A word of `struct seccomp_data`.
fn word(offset: u32, audit: u32, number: u32, args: &[u64; 6]) -> Option<u32> {
    match offset {
        NR => Some(number),
        ARCH => Some(audit),
        _ => {
            let from_args = offset.checked_sub(ARGS).filter(|o| o % 4 == 0)?;
            let argument = args.get(from_args as usize / 8)?;
            let first_half = from_args % 8 == 0;
            let low = first_half == cfg!(target_endian = "little");
            Some(if low { *argument as u32 } else { (argument >> 32) as u32 })
        }
    }
}
