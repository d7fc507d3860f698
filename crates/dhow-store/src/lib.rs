//! dhow-store
