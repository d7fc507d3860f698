//! bpf(2) for device access programs of cgroups (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).
//!
//! Deliberately absent: maps, helpers, every other program type, and what a program should say.

use std::ffi::{c_long, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction: `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source in the high four (little endian hosts).
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

/// Return value.
pub const R0: u8 = 0;
/// Context on entry.
pub const R1: u8 = 1;
/// Scratch.
pub const R2: u8 = 2;
/// Scratch.
pub const R3: u8 = 3;
/// Scratch.
pub const R4: u8 = 4;
/// Scratch.
pub const R5: u8 = 5;

/// `BPF_LDX | BPF_MEM | BPF_W`
pub const LOAD_WORD: u8 = 0x61;
/// `BPF_ALU64 | BPF_MOV | BPF_X`
pub const MOVE_REGISTER: u8 = 0xbf;
/// `BPF_ALU64 | BPF_MOV | BPF_K`
pub const MOVE_VALUE: u8 = 0xb7;
/// `BPF_ALU | BPF_AND | BPF_K`, 32 bits
pub const AND: u8 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`, 32 bits
pub const SHIFT_RIGHT: u8 = 0x74;
/// `BPF_JMP32 | BPF_JEQ | BPF_K` (5.1)
pub const JUMP_EQUAL: u8 = 0x16;
/// `BPF_JMP32 | BPF_JNE | BPF_K` (5.1)
pub const JUMP_NOT_EQUAL: u8 = 0x56;
/// `BPF_JMP | BPF_EXIT`
pub const EXIT: u8 = 0x95;

const fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    // The two register fields are bit fields in C, laid out from the low bits on little endian and from the high bits
    // on big endian machines.
    let registers = if cfg!(target_endian = "little") { dst | src << 4 } else { dst << 4 | src };
    Instruction { code, registers, offset, immediate }
}

/// dst = *(u32 *)(src + offset)
pub const fn load_word(dst: u8, src: u8, offset: i16) -> Instruction {
    instruction(LOAD_WORD, dst, src, offset, 0)
}

/// dst = src
pub const fn move_register(dst: u8, src: u8) -> Instruction {
    instruction(MOVE_REGISTER, dst, src, 0, 0)
}

/// dst = value
pub const fn move_value(dst: u8, value: i32) -> Instruction {
    instruction(MOVE_VALUE, dst, 0, 0, value)
}

/// dst &= value, 32 bits
pub const fn and(dst: u8, value: i32) -> Instruction {
    instruction(AND, dst, 0, 0, value)
}

/// dst >>= bits, 32 bits
pub const fn shift_right(dst: u8, bits: i32) -> Instruction {
    instruction(SHIFT_RIGHT, dst, 0, 0, bits)
}

/// Skips `skip` instructions if the low 32 bits of `dst` are `value`.
pub const fn jump_if_equal(dst: u8, value: i32, skip: i16) -> Instruction {
    instruction(JUMP_EQUAL, dst, 0, skip, value)
}

/// Skips `skip` instructions unless the low 32 bits of `dst` are `value`.
pub const fn jump_if_not_equal(dst: u8, value: i32, skip: i16) -> Instruction {
    instruction(JUMP_NOT_EQUAL, dst, 0, skip, value)
}

/// Returns r0.
pub const fn exit() -> Instruction {
    instruction(EXIT, 0, 0, 0, 0)
}

const PROG_LOAD: c_uint = 5;
const PROG_ATTACH: c_uint = 8;
const PROG_QUERY: c_uint = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes a shorter structure for zeros.
#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct QueryAttr {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: c_uint, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: callers pass a repr(C) structure that is a prefix of `union bpf_attr`; its size goes with it, the kernel
    // reads and writes no further, and pointers inside are to memory that the caller keeps alive over the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Loads a device access program. Needs `CAP_BPF` and `CAP_NET_ADMIN` or `CAP_SYS_ADMIN`.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"dhow_devices\0\0\0\0",
    };
    let fd = bpf(PROG_LOAD, &mut attr)?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a version 2 cgroup. Programs of ancestors go on applying.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// How many device programs are attached to a cgroup itself.
pub fn count_device_programs(cgroup: BorrowedFd<'_>) -> io::Result<u32> {
    let mut attr = QueryAttr {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: 0,
        count: 0,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    Ok(attr.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(std::mem::offset_of!(LoadAttr, name), 48);
        assert_eq!(size_of::<AttachAttr>(), 16);
        assert_eq!(std::mem::offset_of!(QueryAttr, count), 24);
    }

    #[test]
    fn root_the_verifier_takes_a_program() {
        let allow_reads = [
            load_word(R2, R1, 0),
            shift_right(R2, 16),
            and(R2, 4),
            jump_if_equal(R2, 0, 2),
            move_value(R0, 0),
            exit(),
            move_value(R0, 1),
            exit(),
        ];
        load_device_program(&allow_reads).unwrap();
        assert!(load_device_program(&[exit()]).is_err(), "r0 was never set");
    }
}
