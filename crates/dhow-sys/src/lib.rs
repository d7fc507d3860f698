//! dhow-sys
