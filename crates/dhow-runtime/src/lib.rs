//! dhow-runtime
