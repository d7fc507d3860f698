//! dhow-registry
