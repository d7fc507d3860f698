//! dhow-cli
