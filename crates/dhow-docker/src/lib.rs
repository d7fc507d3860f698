//! Docker's vocabulary: what its flags, filters, templates, tables, documents and texts look like.
//!
//! Everything here is a pure function or a plain value: text or a snapshot goes in, a noun or text comes out. The command
//! line and the API server both speak through this crate, so that neither the engine nor they have words of their own.
//!
//! Deliberately absent: I/O, environment variables, printing, and decisions about containers.

mod error;

pub mod detach;
pub mod filter;
pub mod grammar;
pub mod inspect;
pub mod names;
pub mod rows;
pub mod status;
pub mod table;
pub mod template;
pub mod text;
pub mod time;
pub mod units;

pub use error::GrammarError;
