//! dhow-build
