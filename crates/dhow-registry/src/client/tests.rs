//! Tests of the client against a fake registry and Debian's.
