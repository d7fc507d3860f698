//! Tests of the command line as a whole: texts and codes that need no engine, and what of Docker's is there.

mod compat;
mod texts;
